"""Every policy of the registry keeps the promises that releases rest on."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.config import ReleaseTable
from headrace.records import Batch, Evidence, Outcome, Score, Traffic
from headrace.release.policies import POLICIES, options_of

OPTIONS = options_of(ReleaseTable(dwell_s=0, dwell_requests=10, min_labels=50), ["a", "b", "c"])
OUTCOMES = st.lists(st.builds(Outcome, st.sampled_from(["a", "b", "c"]), st.booleans(), st.booleans()), max_size=60)
COUNTS = st.integers(0, 500)
each_policy = pytest.mark.parametrize("policy", [POLICIES.get(name) for name in POLICIES.names()], ids=POLICIES.names())


def seen(by_channel: dict[str, tuple[int, int]], *, n: int = 400, stage: int = 4) -> Evidence:
    """Evidence in the terms of every policy: of n labelled answers in each channel, how many candidate and control got
    right, well mixed."""
    outcomes = []
    for k in range(n):
        for name, (n_tried, n_control) in by_channel.items():
            outcomes.append(Outcome(name, k * 7919 % n < n_control, k * 104729 % n < n_tried))
    arms = {arm: {name: Traffic(n, n_units=n) for name in by_channel} for arm in ("control", "baseline", "candidate")}
    control = {name: Score(n, right) for name, (_, right) in by_channel.items()}
    tried = {name: Score(n, right) for name, (right, _) in by_channel.items()}
    halves = {arm: arms[arm] for arm in ("control", "candidate")}
    return Evidence(
        outcomes=outcomes,
        traffic={**arms, "shadow": arms["candidate"]},
        feedback={"control": control, "baseline": control, "candidate": tried},
        batches=[Batch({"control": 0.5, "candidate": 0.5}, {"control": control, "candidate": tried}, halves)],
        n_requests=n,
        stage=stage,
        stage_elapsed_s=1.0,
        stage_requests=n,
    )


@each_policy
def test_the_first_shares_are_shares_and_leave_the_control_one(policy: Any) -> None:
    weights = policy.weights(OPTIONS)
    assert math.isclose(sum(weights.values()), 1)
    assert "control" in weights
    assert json.loads(json.dumps(weights)) == weights


@each_policy
def test_no_evidence_never_promotes_nor_advances(policy: Any) -> None:
    for n_requests in (0, 10, 10**6):
        assert policy.decide(Evidence(n_requests=n_requests), OPTIONS).verdict == "hold"


@each_policy
def test_equal_answers_do_not_reject(policy: Any) -> None:
    assert policy.decide(seen({"a": (320, 320), "b": (320, 320)}), OPTIONS).verdict != "reject"


@each_policy
def test_overwhelming_evidence_decides(policy: Any) -> None:
    assert policy.decide(seen({"a": (380, 200)}), OPTIONS).verdict == "promote"
    assert policy.decide(seen({"a": (200, 380)}), OPTIONS).verdict == "reject"


@each_policy
def test_a_gain_elsewhere_does_not_pay_for_a_ruined_channel(policy: Any) -> None:
    decision = policy.decide(seen({"a": (398, 200), "b": (200, 300)}), OPTIONS)
    assert decision.verdict == "reject"
    assert "b:" in decision.reason


@each_policy
@given(outcomes=OUTCOMES, counts=st.tuples(COUNTS, COUNTS, COUNTS, COUNTS))
@settings(max_examples=60, deadline=None)
def test_same_facts_same_decision_and_plain_json(
    policy: Any, outcomes: list[Outcome], counts: tuple[int, int, int, int]
) -> None:
    # A decision is replayed after a restart and kept in the ledger.
    n, n_errors, n_labelled, n_right = counts
    arm = {"a": Traffic(n, min(n, n_errors), n_units=n)}
    score = {"a": Score(n_labelled, min(n_labelled, n_right))}
    control = {"a": Traffic(n, n_units=n)}
    halves = {"control": 0.5, "candidate": 0.5}
    evidence = Evidence(
        outcomes,
        {"control": control, "baseline": control, "candidate": arm},
        {"control": score, "baseline": score, "candidate": score},
        [Batch(halves, {"control": score, "candidate": score}, {"control": control, "candidate": arm})],
        n_requests=n,
        stage=1,
        stage_elapsed_s=2.0,
        stage_requests=n,
    )
    first = policy.decide(evidence, OPTIONS)
    assert first == policy.decide(evidence, dict(OPTIONS))
    assert first.verdict in ("promote", "hold", "reject", "advance")
    assert first.reason
    assert json.loads(json.dumps(first.evidence, allow_nan=False)) == first.evidence
