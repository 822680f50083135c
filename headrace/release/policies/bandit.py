"""Bandit: several candidates beside the control; requests go where labels tell most, until one is told to be the best.

At the start all arms have equal shares. The shares follow the labels (see stats/best_arm.py), with `floor_share` for
each, in steps: not before every arm has answered some requests with the old ones, and not for a small change. A
candidate that breaks a guardrail gets no more requests. The best of the arms that are left is told by e-values that
hold under any shares: a candidate takes charge, the control rejects. All else holds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.records import Decision, Evidence
from headrace.release.policies import guardrails
from headrace.release.policies.guardrails import Arms
from headrace.stats import best_arm

_STAGE_REQUESTS = 20  # of every arm before the shares change again
_LEAST_CHANGE = 0.05
_CENTRE = 0.8  # accuracy of a model worth serving; a wrong guess costs labels, not validity


class Bandit:
    """The policy `bandit`."""

    @staticmethod
    def weights(options: Mapping[str, Any]) -> dict[str, float]:
        """The shares of the arms at the start."""
        arms = _arms(options)
        return dict.fromkeys(arms, 1 / len(arms))

    @staticmethod
    def decide(evidence: Evidence, options: Mapping[str, Any]) -> Decision:
        """What the traffic and the labels so far say.

        Args:
            options: `alpha`, `guardrail_alpha`, `floor_share`, `n_candidates`, `channels`, and the limits of
                guardrails.py.
        """
        control, *candidates = _arms(options)
        for arm in candidates:
            if wrong := guardrails.unsound(evidence, Arms(arm, control)):
                return Decision("hold", wrong)
        rails = {arm: _fired(evidence, arm, control, options) for arm in candidates}
        broken = {arm: fired for arm, fired in rails.items() if fired}
        left = [control, *(arm for arm in candidates if arm not in broken)]
        batches = [
            best_arm.Batch(batch.shares, {arm: score for arm, score in batch.scores.items() if arm in left})
            for batch in evidence.batches
        ]
        centre = options.get("accuracy", _CENTRE)
        found = best_arm.decide(batches, alpha=options["alpha"], centre=centre)
        facts = _facts(evidence, options, broken) | {
            "e_not_best": {arm: guardrails.shown_e(log_e) for arm, log_e in found.log_e_not_best.items()},
        }
        if len(left) == 1:
            told = "; ".join(f"{arm}: {guardrails.explained(broken[arm])}" for arm in candidates)
            return Decision("reject", f"No candidate is left. {told}", facts)
        if silent := [arm for arm in left if not guardrails.traffic_of(evidence, arm).n_requests]:
            return Decision("hold", f"There are no requests to {', '.join(silent)}", {**facts, "waits_for": "requests"})
        if found.best == control:
            return Decision("reject", "The control is told to be the best of all arms", facts)
        if found.best is not None:
            return Decision("promote", f"{found.best} is told to be the best of all arms", facts, arm=found.best)
        return _reallocated(evidence, options, left, found.out, facts)


def _arms(options: Mapping[str, Any]) -> list[str]:
    more = [f"candidate-{number}" for number in range(2, options.get("n_candidates", 1) + 1)]
    return ["control", "candidate", *more]


def _fired(evidence: Evidence, arm: str, control: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Guardrails that a candidate broke; as shares change, the requests themselves say what its share was."""
    n, n_control = (guardrails.traffic_of(evidence, name).n_requests for name in (arm, control))
    if not n or not n_control:
        return []
    return guardrails.fired(evidence, Arms(arm, control, n / (n + n_control)), options)


def _facts(evidence: Evidence, options: Mapping[str, Any], broken: Mapping[str, Any]) -> dict[str, Any]:
    arms = _arms(options)
    return {
        "stage": evidence.stage,
        "n_requests": evidence.n_requests,
        "traffic": {arm: vars(guardrails.traffic_of(evidence, arm)) for arm in arms},
        "labels": {arm: vars(guardrails.score_of(evidence, arm)) for arm in arms},
        "guardrails": dict(broken),
    }


def _reallocated(
    evidence: Evidence, options: Mapping[str, Any], left: Sequence[str], out: frozenset[str], facts: dict[str, Any]
) -> Decision:
    scores = {arm: guardrails.score_of(evidence, arm) for arm in left}
    shares = best_arm.shares(scores, floor=options["floor_share"], out=out)
    weights = {arm: round(shares.get(arm, 0.0), 6) for arm in _arms(options)}
    now = evidence.batches[-1].shares if evidence.batches else Bandit.weights(options)
    change = max(abs(weights[arm] - now.get(arm, 0.0)) for arm in weights)
    is_broken_now = any(now.get(arm, 0.0) > 0 for arm in weights if arm not in left)
    has_labels = all(score.n > 0 for score in scores.values())
    if is_broken_now or (has_labels and evidence.stage_requests >= _STAGE_REQUESTS and change >= _LEAST_CHANGE):
        told = ", ".join(f"{arm} {share:.0%}" for arm, share in weights.items())
        return Decision("advance", f"Requests go where labels tell most: {told}", facts, weights=weights)
    told = ", ".join(f"{arm} {score.n_right} of {score.n} right" for arm, score in scores.items())
    return Decision("hold", f"No arm is told to be the best yet: {told}", {**facts, "waits_for": "labels"})
