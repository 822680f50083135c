"""Every policy of the registry keeps the promises that releases rest on."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.records import Outcome
from headrace.release.policies import POLICIES

OUTCOMES = st.lists(st.builds(Outcome, st.sampled_from(["a", "b", "c"]), st.booleans(), st.booleans()), max_size=60)
each_policy = pytest.mark.parametrize("policy", [POLICIES.get(name) for name in POLICIES.names()], ids=POLICIES.names())


def won(channel: str, n: int) -> list[Outcome]:
    return [Outcome(channel, control_correct=False, candidate_correct=True)] * n


def lost(channel: str, n: int) -> list[Outcome]:
    return [Outcome(channel, control_correct=True, candidate_correct=False)] * n


@each_policy
def test_no_evidence_never_promotes(policy: Any) -> None:
    for n_requests in (0, 10, 10**6):
        assert policy.decide([], alpha=0.05, n_requests=n_requests).verdict == "hold"


@each_policy
def test_agreement_alone_never_promotes(policy: Any) -> None:
    both = [Outcome("a", control_correct=True, candidate_correct=True)] * 5000
    assert policy.decide(both, alpha=0.05, n_requests=5000).verdict != "promote"


@each_policy
def test_overwhelming_evidence_decides(policy: Any) -> None:
    assert policy.decide(won("a", 40), alpha=0.05, n_requests=400).verdict == "promote"
    assert policy.decide(lost("a", 40), alpha=0.05, n_requests=400).verdict == "reject"


@each_policy
def test_a_gain_elsewhere_does_not_pay_for_a_ruined_channel(policy: Any) -> None:
    mixed = [o for pair in zip(won("a", 40), lost("b", 40), strict=True) for o in pair] + won("a", 400)
    decision = policy.decide(mixed, alpha=0.05, n_requests=2000)
    assert decision.verdict == "reject"
    assert "b" in decision.reason


@each_policy
@given(outcomes=OUTCOMES, n_requests=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_same_facts_same_decision_and_plain_json(policy: Any, outcomes: list[Outcome], n_requests: int) -> None:
    # A decision is replayed after a restart and kept in the ledger.
    first = policy.decide(outcomes, alpha=0.05, n_requests=n_requests)
    assert first == policy.decide(list(outcomes), alpha=0.05, n_requests=n_requests)
    assert first.verdict in ("promote", "hold", "reject")
    assert first.reason
    assert json.loads(json.dumps(first.evidence, allow_nan=False)) == first.evidence
