"""Bandit: several candidates beside the control; requests go where labels tell most, until one is told to be the best.

At the start all arms have equal shares. The shares follow the labels (see stats/best_arm.py), with `floor_share` for
each, in steps: not before every arm has answered some requests with the old ones, and not for a small change. In this
order:

- A candidate that breaks a guardrail, or that labelled answers tell to be worse than the control, overall or in a
  channel, is dropped: it gets no more requests.
- The best of the arms that are left is told by e-values that hold under any shares. The control rejects, as it does
  where no candidate is left.
- A candidate that is told to be the best takes charge, if requests and labels come to the arms by their shares, no harm
  of it is suspected, and every channel that sends requests has labels of both arms.

All else holds. Shares change, so whatever compares arms adds up the evidence of the stages, each with its own shares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from headrace.errors import BadConfig
from headrace.records import Batch, Decision, Evidence, Score
from headrace.release.policies import guardrails, labelled
from headrace.release.policies.guardrails import Arms
from headrace.release.policies.labelled import Labelled
from headrace.stats import best_arm
from headrace.stats.best_arm import Found

_STAGE_REQUESTS = 20  # of every arm before the shares change again
_LEAST_CHANGE = 0.05
_CENTRE = 0.8  # accuracy of a model worth serving; a wrong guess costs labels, not validity


class Bandit:
    """The policy `bandit`."""

    @staticmethod
    def weights(options: Mapping[str, Any]) -> dict[str, float]:
        """The shares of the arms at the start.

        Raises:
            BadConfig: channels are to be decided one by one.
        """
        if options.get("each_channel"):
            raise BadConfig(
                "a bandit puts one version in charge of all channels of its release",
                value='release.scope = "channels"',
                next_step="Choose the policy ab, which decides channel by channel, or set release.scope to task",
            )
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
        look = _Look(evidence, options)
        if not look.candidates:
            told = "; ".join(f"{arm}: {why}" for arm, why in look.dropped.items())
            return Decision("reject", f"No candidate is left. {told}", look.facts)
        if look.serves_dropped:
            return _reallocated(look)
        if silent := [arm for arm in look.left if not guardrails.traffic_of(evidence, arm).n_requests]:
            return look.hold(f"There are no requests to {', '.join(silent)}", "requests")
        if look.found.best == control:
            return Decision("reject", "The control is told to be the best of all arms", look.facts)
        if look.found.best is None:
            return _reallocated(look)
        found = look.compared[look.found.best]
        if missing := look.unequal() or found.missing():
            return look.hold(f"{look.found.best} is told to be the best of all arms, but {missing}", found.waits_for())
        reason = f"{look.found.best} is told to be the best of all arms: {found.told()}"
        return Decision("promote", reason, look.facts, arm=look.found.best)


@dataclass(frozen=True)
class _Look:
    """What the evidence says of each arm."""

    evidence: Evidence
    options: Mapping[str, Any]

    @cached_property
    def rails(self) -> dict[str, list[dict[str, Any]]]:
        """Candidate to the guardrails that it broke."""
        return {arms.candidate: guardrails.fired(self.evidence, arms, self.options) for arms in self.pairs}

    @cached_property
    def compared(self) -> dict[str, Labelled]:
        """Candidate to its labelled answers beside the control's."""
        return {arms.candidate: labelled.compare(self.evidence, arms, self.options) for arms in self.pairs}

    @property
    def pairs(self) -> list[Arms]:
        control, *candidates = _arms(self.options)
        return [Arms(arm, control, share=None) for arm in candidates]

    @cached_property
    def dropped(self) -> dict[str, str]:
        """Candidate to why it gets no more requests."""
        why = {
            arm: guardrails.explained(broken) if broken else self.compared[arm].harm()
            for arm, broken in self.rails.items()
        }
        return {arm: reason for arm, reason in why.items() if reason}

    @property
    def now(self) -> Mapping[str, float]:
        """The shares of the arms."""
        return self.evidence.batches[-1].shares if self.evidence.batches else Bandit.weights(self.options)

    @property
    def serves_dropped(self) -> bool:
        """Whether a dropped arm still gets requests."""
        return any(self.now.get(arm, 0.0) > 0 for arm in self.dropped)

    @property
    def left(self) -> list[str]:
        return [arm for arm in _arms(self.options) if arm not in self.dropped]

    @property
    def candidates(self) -> list[str]:
        return self.left[1:]

    @cached_property
    def found(self) -> Found:
        """Which arm is told to be the best of those that are left."""
        arms = _arms(self.options)
        batches = [_scores(batch, arms) for batch in self.evidence.batches]
        centre = self.options.get("accuracy", _CENTRE)
        return best_arm.decide(batches, alpha=self.options["alpha"], centre=centre, dropped=frozenset(self.dropped))

    @cached_property
    def ratio_e(self) -> dict[str, float]:
        """That requests, or labels, do not come to the arms by their shares: of all stages together."""
        log_es = [guardrails.ratio_log_e(batch, batch.shares) for batch in self.evidence.batches]
        return {what: guardrails.shown_e(sum(one[what] for one in log_es)) for what in ("requests", "labels")}

    def unequal(self) -> str:
        """Why the arms are not to be compared, as part of a sentence; empty where they are."""
        evidence = self.evidence
        for arm in self.left:
            n_units = sum(guardrails.traffic_of(batch, arm).n_units for batch in evidence.batches)
            if n_units != guardrails.traffic_of(evidence, arm).n_units:
                return "not all requests are counted by stage"
        for what, e in self.ratio_e.items():
            if e >= 1 / self.options["guardrail_alpha"]:
                return f"{what} do not come to the arms by their shares; find out what loses them"
        return ""

    @cached_property
    def facts(self) -> dict[str, Any]:
        arms = _arms(self.options)
        return {
            "stage": self.evidence.stage,
            "n_requests": self.evidence.n_requests,
            "traffic": {arm: vars(guardrails.traffic_of(self.evidence, arm)) for arm in arms},
            "ratio_e": self.ratio_e,
            "ratio_limit": 1 / self.options["guardrail_alpha"],
            "labels": {arm: found.as_json() for arm, found in self.compared.items()},
            "guardrails": {arm: broken for arm, broken in self.rails.items() if broken},
            "dropped": self.dropped,
            "e_not_best": {arm: guardrails.shown_e(log_e) for arm, log_e in self.found.log_e_not_best.items()},
        }

    def hold(self, reason: str, waits_for: str) -> Decision:
        return Decision("hold", reason, {**self.facts, "waits_for": waits_for})


def _arms(options: Mapping[str, Any]) -> list[str]:
    more = [f"candidate-{number}" for number in range(2, options.get("n_candidates", 1) + 1)]
    return ["control", "candidate", *more]


def _scores(batch: Batch, arms: Sequence[str]) -> best_arm.Batch:
    """Over all channels."""
    return best_arm.Batch(batch.shares, {arm: guardrails.score_of(batch, arm) for arm in arms})


def _reallocated(look: _Look) -> Decision:
    evidence, left = look.evidence, look.left
    scores: dict[str, Score] = {arm: guardrails.score_of(evidence, arm) for arm in left}
    shares = best_arm.shares(scores, floor=look.options["floor_share"], out=look.found.out)
    weights = {arm: round(shares.get(arm, 0.0), 6) for arm in _arms(look.options)}
    change = max(abs(weights[arm] - look.now.get(arm, 0.0)) for arm in weights)
    has_labels = all(score.n > 0 for score in scores.values())
    if look.serves_dropped or (has_labels and evidence.stage_requests >= _STAGE_REQUESTS and change >= _LEAST_CHANGE):
        told = ", ".join(f"{arm} {share:.0%}" for arm, share in weights.items())
        return Decision("advance", f"Requests go where labels tell most: {told}", look.facts, weights=weights)
    told = ", ".join(f"{arm} {score.n_right} of {score.n} right" for arm, score in scores.items())
    return look.hold(f"No arm is told to be the best yet: {told}", "labels")
