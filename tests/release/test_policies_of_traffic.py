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
    return in_stages(
        Batch(
            dict.fromkeys(arms, 1 / len(arms)),
            {arm: {"a": score} for arm, score in arms.items()},
            {arm: {"a": traffic(max(n_requests, score.n))} for arm, score in arms.items()},
        ),
        stage_requests=n_requests,
    )


def in_stages(*batches: Batch, **more: Any) -> Evidence:
    """With the totals of the stages."""
    totals: tuple[Any, Any] = {}, {}
    for batch in batches:
        for total, part in zip(totals, (batch.traffic, batch.feedback), strict=True):
            for arm, by_channel in part.items():
                mine = total.setdefault(arm, {})
                for name, counts in by_channel.items():
                    mine[name] = mine[name] + counts if name in mine else counts
    return Evidence(traffic=totals[0], feedback=totals[1], batches=batches, **more)


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
    (batch,) = bandit(Score(60, 40), Score(60, 42), Score(60, 52)).batches
    broken = {**batch.traffic, "candidate-2": {"a": traffic(100, n_errors=80)}}
    decision = Bandit.decide(in_stages(replace(batch, traffic=broken), stage_requests=100), three)
    assert decision.verdict == "advance"
    assert weights(decision)["candidate-2"] == 0
    both = {**broken, "candidate": {"a": traffic(100, n_errors=80)}}
    assert Bandit.decide(in_stages(replace(batch, traffic=both)), three).verdict == "reject"


HALVES = {"control": 0.5, "candidate": 0.5}


def stage_of(candidate: dict[str, Score], control: dict[str, Score], shares: dict[str, float] = HALVES) -> Batch:
    """A request for each labelled answer."""
    feedback = {"control": control, "candidate": candidate}
    requests = {arm: {name: traffic(score.n) for name, score in of.items()} for arm, of in feedback.items()}
    return Batch(shares, feedback, requests)


def test_a_bandit_drops_an_arm_that_ruins_a_channel_and_goes_on_with_the_others() -> None:
    # Catches a policy that looks at totals only: candidate-2 leads by far, since it is better in a.
    scores = {
        "control": {"a": Score(400, 300), "b": Score(100, 80)},
        "candidate": {"a": Score(400, 302), "b": Score(100, 80)},
        "candidate-2": {"a": Score(400, 396), "b": Score(100, 30)},
    }
    requests = {arm: {name: traffic(score.n) for name, score in of.items()} for arm, of in scores.items()}
    evidence = in_stages(Batch(dict.fromkeys(scores, 1 / 3), scores, requests), stage_requests=500)
    decision = Bandit.decide(evidence, {**OPTIONS, "n_candidates": 2})
    assert decision.verdict == "advance"
    assert weights(decision)["candidate-2"] == 0
    assert weights(decision)["candidate"] > 0
    assert "b: 30 of 100" in decision.evidence["dropped"]["candidate-2"]
    # It leaves at once, also while another arm, told to be the best, waits for labels of a channel.
    scores["candidate"]["a"] = Score(400, 390)
    requests = {arm: {**of, "c": traffic(9)} for arm, of in requests.items()}
    evidence = in_stages(Batch(dict.fromkeys(scores, 1 / 3), scores, requests), stage_requests=500)
    decision = Bandit.decide(evidence, {**OPTIONS, "n_candidates": 2})
    assert (decision.verdict, weights(decision)["candidate-2"]) == ("advance", 0)
    later = Batch(weights(decision))
    waits = Bandit.decide(in_stages(*evidence.batches, later), {**OPTIONS, "n_candidates": 2})
    assert (waits.verdict, waits.evidence["waits_for"]) == ("hold", "labels from c")


def test_a_bandit_waits_with_a_promotion_for_a_suspected_harm_and_for_arms_out_of_proportion() -> None:
    better = {"a": Score(900, 860)}, {"a": Score(900, 700)}
    assert Bandit.decide(in_stages(stage_of(*better)), OPTIONS).verdict == "promote"
    suspected = Bandit.decide(
        in_stages(stage_of({**better[0], "b": Score(40, 26)}, {**better[1], "b": Score(40, 36)})), OPTIONS
    )
    assert suspected.verdict == "hold"
    assert "it may be worse (b:" in suspected.reason
    lopsided = Bandit.decide(in_stages(stage_of({"a": Score(600, 580)}, {"a": Score(1200, 900)})), OPTIONS)
    assert lopsided.verdict == "hold"
    assert "requests do not come to the arms by their shares" in lopsided.reason


def test_stages_of_other_shares_are_compared_each_by_itself() -> None:
    # Equal arms; the first stage had 20 times the errors, and 19 times as much of the candidate. Totals would reject
    # it for errors, hold it for its requests, and call it worse (Simpson's paradox).
    even = stage_of({"a": Score(500, 250)}, {"a": Score(500, 250)})
    late = stage_of({"a": Score(250, 240)}, {"a": Score(4750, 4560)}, {"control": 0.95, "candidate": 0.05})
    errors = {arm: {"a": traffic(500, n_errors=50)} for arm in HALVES}
    decision = Bandit.decide(in_stages(replace(even, traffic=errors), late, stage=1, stage_requests=250), OPTIONS)
    assert decision.verdict in ("hold", "advance")
    assert decision.evidence["dropped"] == {}
    assert max(decision.evidence["ratio_e"].values()) < 2
    worse = replace(even, traffic={**errors, "control": {"a": traffic(500)}})
    decision = Bandit.decide(in_stages(worse, late, stage=1, stage_requests=250), OPTIONS)
    assert (decision.verdict, "errors" in decision.reason) == ("reject", True)


def test_a_bandit_does_not_decide_channel_by_channel() -> None:
    with pytest.raises(BadConfig, match="all channels"):
        Bandit.weights({**OPTIONS, "each_channel": True})


@pytest.mark.parametrize("name", ["ab", "canary", "bandit"])
def test_a_channel_that_sends_requests_is_not_promoted_unheard(name: str) -> None:
    # Catches a promotion of channels that nothing is known of, and one that does not name those without requests.
    scores = {"a": Score(900, 860)}, {"a": Score(900, 700)}
    batch = stage_of(*scores)
    whole = in_stages(batch, stage=2, stage_elapsed_s=99, stage_requests=900)
    whole = replace(whole, traffic={**whole.traffic, "baseline": whole.traffic["control"]})
    whole = replace(whole, feedback={**whole.feedback, "baseline": whole.feedback["control"]})
    decision = POLICIES.get(name).decide(whole, OPTIONS)
    assert decision.verdict == "promote"
    assert decision.reason.endswith("No requests came from: b")
    also = {arm: {**of, "b": traffic(30)} for arm, of in whole.traffic.items()}
    batch = replace(batch, traffic={arm: {**of, "b": traffic(30)} for arm, of in batch.traffic.items()})
    met = replace(whole, traffic=also, batches=[batch])
    decision = POLICIES.get(name).decide(met, OPTIONS)
    assert decision.verdict == "hold"
    assert "no labelled answers of both arms came from: b" in decision.reason
    assert "label" in decision.evidence["waits_for"]
    assert "b" in decision.evidence["waits_for"]
    assert POLICIES.get(name).decide(met, {**OPTIONS, "channels": ["a"]}).verdict == "hold"  # it met b all the same


def test_a_canary_with_a_margin_excludes_a_drop_of_that_size() -> None:
    few, many = (
        replace(
            canary(traffic(9 * n), traffic(9 * n), stage=2), **labelled(Score(n, n * 8 // 10), Score(n, n * 8 // 10))
        )
        for n in (100, 1000)
    )
    assert Canary.decide(few, OPTIONS).verdict == "promote"
    decision = Canary.decide(few, {**OPTIONS, "margin": 0.1})
    assert (decision.verdict, "a drop by 0.1" in decision.reason) == ("hold", True)
    assert Canary.decide(many, {**OPTIONS, "margin": 0.1}).verdict == "promote"


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


NO_COUNT = st.one_of(st.sampled_from([math.nan, math.inf, None, -1]), st.floats(0, 100).filter(lambda n: n % 1))
BAD_TRAFFIC = st.one_of(
    NO_COUNT.map(lambda n: Traffic(n_requests=n, n_units=0)),
    NO_COUNT.map(lambda n: Traffic(5000, n_units=n)),
    NO_COUNT.map(lambda n: Traffic(5000, n_errors=n, n_units=5000)),
    st.just(Traffic(100, n_timeouts=101, n_units=100)),
)  # what a broken counter, a lost table or a bad migration may give
BAD_SCORES = st.one_of(NO_COUNT.map(lambda n: Score(n, 0)), NO_COUNT.map(lambda n: Score(900, n)), st.just(Score(1, 2)))
CHANNELS = st.sets(st.sampled_from(["a", "b"]), min_size=1)


def full() -> tuple[dict[str, dict[str, Traffic]], dict[str, dict[str, Score]], dict[str, Any]]:
    """Requests, labels and the rest of what every policy that looks at traffic promotes on."""
    requests = {arm: {"a": traffic(5000), "b": traffic(5000)} for arm in ("control", "baseline", "candidate", "shadow")}
    scores = {arm: {"a": Score(900, 800), "b": Score(900, 800)} for arm in ("control", "baseline")}
    scores["candidate"] = {"a": Score(900, 890), "b": Score(900, 890)}
    return requests, scores, {"stage": 4, "stage_elapsed_s": 1e6, "stage_requests": 5000}


def put_together(
    requests: dict[str, dict[str, Traffic]], scores: dict[str, dict[str, Score]], rest: dict[str, Any]
) -> Evidence:
    tables = [{arm: of[arm] for arm in HALVES if arm in of} for of in (scores, requests)]
    return Evidence(traffic=requests, feedback=scores, batches=[Batch(HALVES, *tables)], n_requests=5000, **rest)


@st.composite
def without_data(draw: st.DrawFn) -> Evidence:
    """That evidence without something that it takes, in one of the two channels or in both."""
    requests, scores, rest = full()
    kind, names = (
        draw(st.sampled_from(["requests", "no requests", "labels", "no labels", "time", "stage"])),
        draw(CHANNELS),
    )
    for name in names:
        if kind == "requests":
            requests["candidate"][name] = requests["shadow"][name] = draw(BAD_TRAFFIC)
        elif kind == "no requests":
            del requests["candidate"][name], requests["shadow"][name]
        elif kind == "labels":
            scores["candidate"][name] = draw(BAD_SCORES)
        elif kind == "no labels":
            del scores["candidate"][name]
    if kind in ("requests", "no requests"):
        rest["stage"] = draw(st.integers(0, 4))
    elif kind == "time":
        rest |= {
            "stage_elapsed_s": draw(st.sampled_from([math.nan, math.inf, -1.0, 0.0])),
            "stage": draw(st.integers(0, 4)),
        }
        scores = {}
    elif kind == "stage":
        rest |= {"stage_requests": draw(NO_COUNT), "stage": draw(st.integers(0, 4))}
    return put_together(requests, scores, rest)


@pytest.mark.parametrize("name", ["ab", "canary", "bandit"])
def test_the_evidence_of_the_next_test_promotes_while_it_is_whole(name: str) -> None:
    assert POLICIES.get(name).decide(put_together(*full()), options_of(ReleaseTable(), ["a", "b"])).verdict == "promote"


@pytest.mark.parametrize("name", POLICIES.names())
@given(evidence=without_data())
@settings(max_examples=250, deadline=None)  # of each of four: 1,000
def test_missing_data_never_promotes_nor_advances(name: str, evidence: Evidence) -> None:
    options = options_of(ReleaseTable(), ["a", "b"])
    decision = POLICIES.get(name).decide(evidence, options)
    assert decision.verdict in ("hold", "reject")
    assert set(decision.channels.values()) <= {"hold", "reject"}
