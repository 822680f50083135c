"""Policies that look at traffic: what advances, promotes, holds and rejects. Catches: a promotion without data, a
guardrail that fires for trouble of both arms or not at all, a ruined channel behind a good mean, a stage skipped.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.config import ReleaseTable
from headrace.errors import BadConfig
from headrace.records import Batch, Decision, Evidence, Outcome, Score, Traffic
from headrace.release.policies import POLICIES, options_of
from headrace.release.policies.ab import AB
from headrace.release.policies.bandit import Bandit
from headrace.release.policies.canary import Canary
from headrace.release.policies.shadow import Shadow

TABLE = ReleaseTable(ramp=(1, 10, 50), dwell_requests=100, dwell_s=60, min_labels=50)
OPTIONS = options_of(TABLE, ["a", "b"])
WON, LOST = (Outcome("a", False, True), Outcome("a", True, False))


def traffic(n: int, **events: int) -> Traffic:
    return Traffic(n, n_units=n, **events)


def canary(candidate: Traffic, baseline: Traffic, *, stage: int = 0, elapsed_s: float = 60, **more: Any) -> Evidence:
    return Evidence(
        traffic={"candidate": {"a": candidate}, "baseline": {"a": baseline}},
        stage=stage,
        stage_elapsed_s=elapsed_s,
        stage_requests=min(candidate.n_requests, baseline.n_requests),
        **more,
    )


def labelled(candidate: Score, control: Score, *, arm: str = "baseline") -> dict[str, Any]:
    return {"feedback": {"candidate": {"a": candidate}, arm: {"a": control}}}


def weights(decision: Decision) -> dict[str, float]:
    assert decision.weights is not None
    return dict(decision.weights)


def test_a_canary_begins_small_with_a_slice_of_the_control_as_large() -> None:
    assert Canary.weights(OPTIONS) == {"control": 0.98, "baseline": 0.01, "candidate": 0.01}


@pytest.mark.parametrize("ramp", [[], [5, 5], [10, 1]])
def test_a_ramp_that_does_not_rise_is_refused(ramp: list[float]) -> None:
    with pytest.raises(BadConfig, match="does not rise"):
        Canary.weights({**OPTIONS, "ramp": ramp})


def test_a_quiet_stage_advances_to_the_next_share() -> None:
    decision = Canary.decide(canary(traffic(120), traffic(110)), OPTIONS)
    assert decision.verdict == "advance"
    assert weights(decision) == {"control": 0.8, "baseline": 0.1, "candidate": 0.1}
    assert weights(Canary.decide(canary(traffic(120), traffic(110), stage=1), OPTIONS))["control"] == 0


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        (canary(traffic(99), traffic(110)), "99 of 100 requests"),
        (canary(traffic(120), traffic(110), elapsed_s=59), "59 of 60 s"),
        (canary(traffic(120), traffic(110), elapsed_s=math.nan), "s have passed"),
        (canary(traffic(120), traffic(110), elapsed_s=math.inf), "s have passed"),
        (replace(canary(traffic(120), traffic(110)), stage_requests=math.nan), "requests"),
        (replace(canary(traffic(120), traffic(110)), traffic={}), "not all there"),
        (canary(traffic(500), traffic(250)), "one to one"),
        (canary(traffic(-1), traffic(250)), "no count"),
        (canary(Traffic(100, n_errors=101, n_units=100), traffic(100)), "cannot be right"),
        (canary(traffic(120), traffic(110), stage=7), "no such stage"),
    ],
)
def test_what_a_stage_waits_for(evidence: Evidence, words: str) -> None:
    decision = Canary.decide(evidence, OPTIONS)
    assert decision.verdict == "hold"
    assert words in decision.reason


def test_the_last_stage_waits_for_labels_and_then_promotes() -> None:
    last = canary(traffic(300), traffic(300), stage=2)
    assert "0 and 0 of 50 labelled answers" in Canary.decide(last, OPTIONS).reason
    one_sided = replace(last, **labelled(Score(60, 50), Score(3, 3)))
    assert Canary.decide(one_sided, OPTIONS).verdict == "hold"
    lopsided = replace(last, **labelled(Score(400, 320), Score(60, 48)))
    assert "labels do not come" in Canary.decide(lopsided, OPTIONS).reason
    equal = replace(last, **labelled(Score(60, 50), Score(60, 50)))
    assert Canary.decide(equal, OPTIONS).verdict == "promote"


def test_a_suspected_harm_delays_the_promotion_and_a_told_one_rejects() -> None:
    last = canary(traffic(900), traffic(900), stage=2)
    suspected = replace(last, **labelled(Score(200, 150), Score(200, 168)))
    decision = Canary.decide(suspected, OPTIONS)
    assert decision.verdict == "hold"
    assert "may be worse" in decision.reason
    told = replace(last, **labelled(Score(400, 200), Score(400, 340)))
    assert Canary.decide(told, OPTIONS).verdict == "reject"


@pytest.mark.parametrize("field", ["n_errors", "n_timeouts", "n_slow", "n_abstained"])
def test_each_guardrail_fires_on_its_own(field: str) -> None:
    decision = Canary.decide(canary(traffic(100, **{field: 60}), traffic(100)), OPTIONS)
    assert decision.verdict == "reject"
    assert "breaks a guardrail" in decision.reason
    assert Canary.decide(canary(traffic(100, **{field: 3}), traffic(100, **{field: 2})), OPTIONS).verdict != "reject"


def test_trouble_of_both_arms_rolls_nothing_back() -> None:
    assert Canary.decide(canary(traffic(1000, n_errors=400), traffic(1000, n_errors=390)), OPTIONS).verdict != "reject"


def test_a_candidate_that_fails_is_found_within_fifteen_failures() -> None:
    # Every request fails; and one in twenty.
    assert Canary.decide(canary(traffic(13, n_errors=13), traffic(13)), OPTIONS).verdict == "reject"
    assert Canary.decide(canary(traffic(300, n_errors=15), traffic(300)), OPTIONS).verdict == "reject"


def test_errors_of_one_channel_are_found_below_the_limit_for_all() -> None:
    arms = {
        "candidate": {"a": traffic(20, n_errors=20), "b": traffic(9000)},
        "baseline": {"a": traffic(20), "b": traffic(9000)},
    }
    decision = Canary.decide(Evidence(traffic=arms), OPTIONS)
    assert decision.verdict == "reject"
    assert "errors in a" in decision.reason
    alone = Canary.decide(Evidence(traffic=arms), {**OPTIONS, "each_channel": True})
    assert (alone.verdict, dict(alone.channels)) == ("hold", {"a": "reject"})


def test_with_each_channel_the_others_go_on_without_the_bad_one() -> None:
    arms = {
        "candidate": {"a": traffic(200, n_errors=150), "b": traffic(200)},
        "baseline": {"a": traffic(200), "b": traffic(200)},
    }
    evidence = Evidence(traffic=arms, stage_elapsed_s=99, stage_requests=200)
    decision = Canary.decide(evidence, {**OPTIONS, "each_channel": True})
    assert (decision.verdict, dict(decision.channels)) == ("advance", {"a": "reject"})


def ab(candidate: Score, control: Score, *, n: int = 1000) -> Evidence:
    arms = {"candidate": {"a": traffic(n)}, "control": {"a": traffic(n)}}
    return Evidence(traffic=arms, **labelled(candidate, control, arm="control"))


def test_ab_asks_for_better_or_with_a_margin_for_no_worse() -> None:
    assert AB.weights({**OPTIONS, "candidate_share": 0.2}) == {"control": 0.8, "candidate": 0.2}
    assert AB.decide(ab(Score(500, 450), Score(500, 380)), OPTIONS).verdict == "promote"
    assert AB.decide(ab(Score(500, 380), Score(500, 450)), OPTIONS).verdict == "reject"
    alike = ab(Score(4000, 3200), Score(4000, 3200), n=4000)
    assert AB.decide(alike, OPTIONS).verdict == "hold"
    assert AB.decide(alike, {**OPTIONS, "margin": 0.05}).verdict == "promote"
    assert AB.decide(replace(alike, traffic={}), {**OPTIONS, "margin": 0.05}).verdict == "hold"


def test_ab_decides_each_channel_by_itself() -> None:
    arms = {arm: {"a": traffic(900), "b": traffic(900)} for arm in ("candidate", "control")}
    feedback = {
        "candidate": {"a": Score(500, 460), "b": Score(500, 300)},
        "control": {"a": Score(500, 380), "b": Score(500, 430)},
    }
    evidence = Evidence(traffic=arms, feedback=feedback)
    decision = AB.decide(evidence, {**OPTIONS, "each_channel": True})
    assert dict(decision.channels) == {"a": "promote", "b": "reject"}
    assert AB.decide(evidence, OPTIONS).verdict == "reject"


def bandit(*scores: Score, n_requests: int = 100) -> Evidence:
    names = ["control", *("candidate" if k == 1 else f"candidate-{k}" for k in range(1, len(scores)))]
    arms = dict(zip(names, scores, strict=True))
    return Evidence(
        traffic={arm: {"a": traffic(max(n_requests, score.n))} for arm, score in arms.items()},
        feedback={arm: {"a": score} for arm, score in arms.items()},
        batches=[Batch(dict.fromkeys(arms, 1 / len(arms)), arms)],
        stage_requests=n_requests,
    )


def test_a_bandit_moves_requests_and_decides_for_the_best_arm() -> None:
    three = {**OPTIONS, "n_candidates": 2}
    assert Bandit.weights(three) == {"control": 1 / 3, "candidate": 1 / 3, "candidate-2": 1 / 3}
    moved = Bandit.decide(bandit(Score(60, 40), Score(60, 42), Score(60, 52)), three)
    assert moved.verdict == "advance"
    assert min(weights(moved).values()) >= 0.05 - 1e-6
    assert max(weights(moved), key=weights(moved).__getitem__) == "candidate-2"
    told = Bandit.decide(bandit(Score(900, 600), Score(900, 610), Score(900, 800)), three)
    assert (told.verdict, told.arm) == ("promote", "candidate-2")
    assert Bandit.decide(bandit(Score(900, 850), Score(900, 610), Score(900, 600)), three).verdict == "reject"
    assert Bandit.decide(bandit(Score(), Score(), Score()), three).verdict == "hold"


def test_an_arm_that_breaks_a_guardrail_gets_no_more_requests() -> None:
    three = {**OPTIONS, "n_candidates": 2}
    evidence = bandit(Score(60, 40), Score(60, 42), Score(60, 52))
    broken = {**evidence.traffic, "candidate-2": {"a": traffic(100, n_errors=80)}}
    decision = Bandit.decide(replace(evidence, traffic=broken), three)
    assert decision.verdict == "advance"
    assert weights(decision)["candidate-2"] == 0
    both = {**broken, "candidate": {"a": traffic(100, n_errors=80)}}
    assert Bandit.decide(replace(evidence, traffic=both), three).verdict == "reject"


def test_shadow_looks_at_errors_and_abstentions_too() -> None:
    arms = {"shadow": {"a": traffic(40, n_errors=30)}, "control": {"a": traffic(40)}}
    assert Shadow.decide(Evidence(traffic=arms), OPTIONS).verdict == "reject"
    slow = {"shadow": {"a": traffic(400, n_slow=300)}, "control": {"a": traffic(400)}}
    assert Shadow.decide(Evidence(traffic=slow), OPTIONS).verdict == "hold"


def test_shadow_decides_each_channel_by_itself() -> None:
    outcomes = [WON] * 20 + [Outcome("b", True, False)] * 20
    evidence = Evidence(outcomes, n_requests=500)
    decision = Shadow.decide(evidence, {**OPTIONS, "each_channel": True})
    assert dict(decision.channels) == {"a": "promote", "b": "reject"}
    assert Shadow.decide(evidence, OPTIONS).verdict == "reject"


NUMBERS = st.one_of(st.integers(-5, 2000), st.just(math.nan), st.just(math.inf), st.none(), st.floats(0, 100))
BAD_TRAFFIC = st.builds(
    Traffic, *([st.one_of(st.just(0), NUMBERS)] * 6)
)  # what a broken counter, a lost table or a bad migration may give
ARMS = ("control", "baseline", "candidate", "shadow")


@st.composite
def without_data(draw: st.DrawFn) -> Evidence:
    """Evidence that lacks something without which nothing may be concluded: requests, times, labels, or all of it."""
    kind = draw(st.sampled_from(["traffic", "labels", "no labels", "candidate", "time"]))
    good = {arm: {"a": traffic(5000)} for arm in ARMS}
    scores = {arm: {"a": Score(900, 800)} for arm in ("control", "baseline", "candidate")}
    scores["candidate"] = {"a": Score(900, 890)}
    whole = Evidence(
        traffic=good,
        feedback=scores,
        n_requests=5000,
        stage=draw(st.integers(0, 4)),
        stage_elapsed_s=1e6,
        stage_requests=5000,
        batches=[
            Batch({"control": 0.5, "candidate": 0.5}, {arm: scores[arm]["a"] for arm in ("control", "candidate")})
        ],
    )
    if kind == "traffic":
        arms = draw(st.dictionaries(st.sampled_from(ARMS), st.dictionaries(st.just("a"), BAD_TRAFFIC)))
        broken = {arm: arms.get(arm, {}) for arm in ARMS}
        return replace(whole, traffic=broken, stage_requests=draw(NUMBERS))
    if kind == "candidate":
        return replace(whole, traffic={**good, "candidate": {}}, stage_requests=0)
    if kind == "time":
        late = draw(st.sampled_from([math.nan, math.inf, -1.0, 0.0]))
        return replace(whole, stage_elapsed_s=late, feedback={}, batches=())
    if kind == "labels":
        broken_scores = {
            arm: {"a": Score(draw(NUMBERS), draw(st.sampled_from([math.nan, -1, 3000])))} for arm in scores
        }
        batch = Batch({"control": 0.5, "candidate": 0.5}, {arm: of["a"] for arm, of in broken_scores.items()})
        return replace(whole, stage=4, feedback=broken_scores, batches=[batch])
    return replace(whole, stage=4, feedback={}, batches=())


@pytest.mark.parametrize("name", POLICIES.names())
@given(evidence=without_data())
@settings(max_examples=250, deadline=None)  # of each of four: 1,000
def test_missing_data_never_promotes_nor_advances(name: str, evidence: Evidence) -> None:
    options = options_of(ReleaseTable(), ["a"])
    decision = POLICIES.get(name).decide(evidence, options)
    assert decision.verdict in ("hold", "reject")
    assert set(decision.channels.values()) <= {"hold", "reject"}
