"""How a release stands, in words and over time.

Catches: a part that names no lack, the end of a curve that differs from the evidence now, shares of one stage taken for
those of another.
"""

import math
import random
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.records import Answered, Batch, Evidence, Outcome, Release, Score, Traffic
from headrace.release import standing
from headrace.release.policies.guardrails import Arms
from headrace.stats import evalues

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
OPTIONS = {"alpha": 0.05, "guardrail_alpha": 0.001, "channels": ["phone", "web"], "n_candidates": 1}
HALVES = {"control": 0.5, "candidate": 0.5}
SLICES = {"control": 0.9, "baseline": 0.05, "candidate": 0.05}
WIN, LOSS, BOTH = (False, True), (True, False), (True, True)


def release_of(weights: Mapping[str, float]) -> Release:
    return Release("rel_1", "tone", "ver_1", "ver_2", "p", OPTIONS, "open", NOON, None, weights=weights)


SHADOW = release_of({"control": 1.0})


def outcomes(channel: str, *kinds: tuple[tuple[bool, bool], int]) -> list[Outcome]:
    return [Outcome(channel, *kind) for kind, n in kinds for _ in range(n)]


def shadowed(found: Sequence[Outcome], **n_requests: int) -> Evidence:
    traffic = {"shadow": {name: Traffic(n_requests=n, n_units=n) for name, n in n_requests.items()}}
    return Evidence(outcomes=found, traffic=traffic, n_requests=sum(n_requests.values()))


def test_each_part_says_what_it_waits_for() -> None:
    evidence = shadowed(outcomes("web", (BOTH, 9)) + outcomes("mail", (WIN, 2), (BOTH, 3)), web=20, mail=9, phone=4)
    parts = standing.stands(SHADOW, evidence)["shadow"]
    waits = {name: part["waits_for"] for name, part in parts["channels"].items()}
    assert waits == {"mail": "evidence", "phone": "labels", "web": "differences"}
    empty = standing.stands(SHADOW, Evidence())["shadow"]
    assert {part["waits_for"] for part in (empty["all"], *empty["channels"].values())} == {"traffic"}
    assert empty["all"]["says"] == "no request has come yet"
    assert "headrace review next" in parts["channels"]["phone"]["says"]
    mail = parts["channels"]["mail"]
    assert mail["n_more_labels"]["low"] <= mail["n_more_labels"]["middle"]
    assert "more labels would decide" in mail["says"]
    assert (mail["n_requests"], mail["n_labelled"], mail["n_differing"], mail["gain"]) == (9, 5, 2, 0.4)


def test_a_ruined_channel_is_worse_though_all_together_gain() -> None:
    evidence = shadowed(outcomes("web", (WIN, 60), (BOTH, 100)) + outcomes("phone", (LOSS, 12), (BOTH, 5)))
    parts = standing.stands(SHADOW, evidence)["shadow"]
    assert parts["all"]["verdict"] == "better"
    assert {name: part["verdict"] for name, part in parts["channels"].items()} == {"phone": "worse", "web": "better"}
    assert parts["channels"]["phone"]["says"].startswith("the candidate is worse than the control: right alone 0 times")
    assert parts["channels"]["phone"]["waits_for"] is None
    assert parts["channels"]["phone"]["e_needed"] == 2 / 0.05


def test_a_small_channel_shows_what_it_counted_and_what_it_is_likely_to_gain() -> None:
    large = outcomes("web", (WIN, 60), (BOTH, 940)), outcomes("mail", (WIN, 130), (LOSS, 10), (BOTH, 1860))
    found = shadowed(large[0] + large[1] + outcomes("phone", (LOSS, 1), (BOTH, 4)))
    parts = standing.stands(SHADOW, found)["shadow"]
    phone = parts["channels"]["phone"]
    assert phone["gain"] == -0.2
    assert 0.03 < phone["pooled_gain"] < 0.06
    assert parts["channels"]["web"]["pooled_gain"] == pytest.approx(0.06, abs=0.002)
    assert parts["all"]["pooled_gain"] is None
    assert standing.stands(SHADOW, Evidence())["shadow"]["channels"]["web"]["pooled_gain"] is None
    scores = {
        "candidate": {"web": Score(1000, 900), "phone": Score(2, 2)},
        "control": {"web": Score(1000, 850), "phone": Score(3, 2)},
    }
    arms = standing.stands(release_of(HALVES), Evidence(feedback=scores))["candidate"]["channels"]
    assert (arms["phone"]["gain"], arms["web"]["gain"]) == pytest.approx((1 / 3, 0.05))
    assert 0.04 < arms["phone"]["pooled_gain"] < 0.1


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.sampled_from(["web", "phone"]), st.sampled_from([WIN, LOSS, BOTH])), max_size=120))
def test_a_curve_ends_where_the_evidence_stands(stream: list[tuple[str, tuple[bool, bool]]]) -> None:
    found = [Outcome(name, *kind) for name, kind in stream]
    parts = standing.stands(SHADOW, shadowed(found))["shadow"]
    curves = standing.over_time(SHADOW, outcomes=found, arms=[Arms("shadow", "control")])["shadow"]
    for name, curve in [("all", curves["all"]), *curves["channels"].items()]:
        part = parts["all"] if name == "all" else parts["channels"][name]
        assert curve["n_labelled"][-1] == part["n_labelled"]
        assert curve["n_labelled"] == sorted(set(curve["n_labelled"]))
        assert (curve["e_benefit"][-1], curve["e_harm"][-1]) == pytest.approx((part["e_benefit"], part["e_harm"]))


def test_a_long_curve_is_thinned_and_passes_through_the_evidence_of_its_time() -> None:
    rng = random.Random(4)
    found = [Outcome("web", *rng.choice([WIN, LOSS, LOSS, BOTH])) for _ in range(5000)]
    curve = standing.over_time(SHADOW, outcomes=found, arms=[Arms("shadow", "control")])["shadow"]["all"]
    assert len(curve["n_labelled"]) < 60
    for n, e in zip(curve["n_labelled"], curve["e_harm"], strict=True):
        losses = sum(one.control_correct and not one.candidate_correct for one in found[: int(n)])
        wins = sum(one.candidate_correct and not one.control_correct for one in found[: int(n)])
        assert e == pytest.approx(math.exp(min(690, evalues.log_e(losses, wins))))


def answered(n: int, accuracies: Mapping[str, float], shares: Mapping[str, float], seed: int = 0) -> list[Answered]:
    rng = random.Random(seed)
    arms = rng.choices([*shares], [*shares.values()], k=n)
    return [Answered(arm, rng.choice(["web", "phone"]), rng.random() < accuracies[arm], shares) for arm in arms]


def evidence_of(*stages: Sequence[Answered]) -> Evidence:
    """As labelled answers of users are gathered, a request and a label each."""
    feedback: dict[str, dict[str, Score]] = {}
    traffic: dict[str, dict[str, Traffic]] = {}
    batches = []
    for stage in stages:
        batch = Batch(stage[0].shares, {}, {})
        for one in stage:
            score, request = Score(1, int(one.is_right)), Traffic(n_requests=1, n_units=1)
            tables = (feedback, score), (batch.feedback, score), (traffic, request), (batch.traffic, request)
            for table, more in tables:
                by_channel = table.setdefault(one.arm, {})
                by_channel[one.channel] = by_channel.get(one.channel, type(more)()) + more
        batches.append(batch)
    return Evidence(traffic=traffic, feedback=feedback, batches=batches)


@pytest.mark.parametrize("weights", [HALVES, SLICES])
@pytest.mark.parametrize(("accuracy", "verdict"), [(0.6, "worse"), (0.99, "better"), (0.9, "inconclusive")])
def test_arms_that_users_meet_are_compared_by_their_labels(
    weights: Mapping[str, float], accuracy: float, verdict: str
) -> None:
    release = release_of(weights)
    control = standing.compared_arms(release, Evidence())[0].control
    assert control == ("baseline" if "baseline" in weights else "control")
    accuracies = {"control": 0.9, "baseline": 0.9, "candidate": accuracy}
    found = answered(20_000 if "baseline" in weights else 2_000, accuracies, weights)
    parts = standing.stands(release, evidence_of(found))["candidate"]
    assert parts["all"]["verdict"] == verdict
    if verdict != "inconclusive":
        assert parts["all"]["gain"] == pytest.approx(accuracy - 0.9, abs=0.05)
    assert set(parts["channels"]) == {"phone", "web"}
    assert parts["all"]["n_differing"] is None
    curves = standing.over_time(release, answers=found, arms=[Arms("candidate", control)])["candidate"]
    assert curves["all"]["n_labelled"][-1] == parts["all"]["n_labelled"]
    assert curves["all"]["e_harm"][-1] == pytest.approx(parts["all"]["e_harm"], rel=1e-6)


def test_when_shares_changed_each_stage_counts_by_its_own() -> None:
    three = {"control": 1 / 3, "candidate": 1 / 3, "candidate-2": 1 / 3}
    later = {"control": 0.1, "candidate": 0.85, "candidate-2": 0.05}
    accuracies = {"control": 0.9, "candidate": 0.9, "candidate-2": 0.5}
    stages = answered(600, accuracies, three), answered(600, accuracies, later, seed=1)
    release = release_of(later)
    evidence = evidence_of(*stages)
    found = standing.stands(release, evidence)
    assert {arm: parts["all"]["verdict"] for arm, parts in found.items()} == {
        "candidate": "inconclusive",
        "candidate-2": "worse",
    }
    arms = standing.compared_arms(release, evidence)
    curves = standing.over_time(release, answers=[*stages[0], *stages[1]], arms=arms)
    for arm, parts in found.items():
        assert curves[arm]["all"]["e_harm"][-1] == pytest.approx(parts["all"]["e_harm"], rel=1e-6)
        for name, part in parts["channels"].items():
            assert curves[arm]["channels"][name]["e_harm"][-1] == pytest.approx(part["e_harm"], rel=1e-6)
    assert found["candidate-2"]["channels"]["web"]["verdict"] == "worse"


def test_a_forecast_from_labels_of_arms_shrinks_as_evidence_grows() -> None:
    accuracies = {"control": 0.95, "candidate": 0.75}
    few, more = (
        standing.stands(release_of(HALVES), evidence_of(answered(n, accuracies, HALVES)))["candidate"]["all"]
        for n in (8, 90)
    )
    assert few["n_more_labels"] is None
    assert few["says"].endswith("it takes more labels")
    assert more["waits_for"] == "evidence"
    assert 0 < more["n_more_labels"]["middle"] < 2000
