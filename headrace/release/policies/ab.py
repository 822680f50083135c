"""A/B: control and candidate answer fixed shares of the units, and labels say which of them answers better.

In this order:
- A guardrail that fired, or labelled answers that tell harm overall or in a channel, reject.
- Requests or labels that do not come to the arms in proportion to their shares hold: what loses them may bias the rest.
- The candidate takes charge if it is told to be better, or, with a `margin`, not to be worse by more than that; as long
  as no harm is suspected and every channel that sends requests has labels of both arms.

All else holds. With `each_channel` every channel is decided on its own, by e-Holm over the channels.
"""

from collections.abc import Mapping
from typing import Any

from headrace.records import Decision, Evidence, Verdict
from headrace.release.policies import guardrails, labelled
from headrace.release.policies.guardrails import Arms
from headrace.release.policies.labelled import Labelled


class AB:
    """The policy `ab`."""

    @staticmethod
    def weights(options: Mapping[str, Any]) -> dict[str, float]:
        """The shares of the arms at the start."""
        share = options["candidate_share"]
        return {"control": 1 - share, "candidate": share}

    @staticmethod
    def decide(evidence: Evidence, options: Mapping[str, Any]) -> Decision:
        """What the traffic and the labels so far say.

        Args:
            options: `alpha`, `guardrail_alpha`, `candidate_share`, `margin`, `each_channel`, `channels`, and the limits
                of guardrails.py.
        """
        arms = Arms("candidate", "control", options["candidate_share"])
        if wrong := guardrails.unsound(evidence, arms):
            return Decision("hold", wrong, {})
        broken = guardrails.fired(evidence, arms, options)
        found = labelled.compare(evidence, arms, options)
        facts = _facts(evidence, arms, options, found) | {"guardrails": broken}
        if options.get("each_channel"):
            out = guardrails.channels_out(broken, list(found.channels))
            return _each_channel(found, out, facts, options)
        if broken:
            return Decision("reject", guardrails.explained(broken), facts)
        if harm := found.harm():
            return Decision("reject", harm, facts)
        if missing := _missing(facts):
            return Decision("hold", missing, {**facts, "waits_for": missing})
        return _whole(found, facts, options)


def _facts(evidence: Evidence, arms: Arms, options: Mapping[str, Any], found: Labelled) -> dict[str, Any]:
    ratio = guardrails.ratio_log_e(evidence, AB.weights(options))
    return {
        "n_requests": evidence.n_requests,
        "traffic": {arm: vars(guardrails.traffic_of(evidence, arm)) for arm in (arms.candidate, arms.control)},
        "ratio_e": {name: guardrails.shown_e(log_e) for name, log_e in ratio.items()},
        "ratio_limit": 1 / options["guardrail_alpha"],
        "labels": found.as_json(),
    }


def _missing(facts: Mapping[str, Any]) -> str:
    """What keeps the arms from being compared."""
    if not all(traffic["n_requests"] > 0 for traffic in facts["traffic"].values()):
        return "There are no requests to compare"
    for what, e in facts["ratio_e"].items():
        if e >= facts["ratio_limit"]:
            return f"{what.capitalize()} do not come to the arms by their shares; find out what loses them"
    return ""


def _whole(found: Labelled, facts: dict[str, Any], options: Mapping[str, Any]) -> Decision:
    margin = options.get("margin") or 0.0
    if not (found.is_better or _is_no_worse(found.overall.low, margin)):
        reason = f"Not decided yet: {found.line()}. More labels will tell"
        return Decision("hold", reason, {**facts, "waits_for": "labels"})
    if missing := found.missing():
        reason = f"The candidate does well overall, but {missing}. More labels will tell"
        return Decision("hold", reason, {**facts, "waits_for": found.waits_for()})
    told = "answers better than the control" if found.is_better else f"is not worse by {margin:g} or more"
    return Decision("promote", f"The candidate {told}: {found.told()}", facts)


def _each_channel(found: Labelled, out: list[str], facts: dict[str, Any], options: Mapping[str, Any]) -> Decision:
    margin = options.get("margin") or 0.0
    out = sorted({*out, *found.harmed})
    good = {name for name, one in found.channels.items() if name in found.better or _is_no_worse(one.low, margin)}
    missing = _missing(facts)
    verdicts: dict[str, Verdict] = {}
    for name in found.channels:
        verdicts[name] = "reject" if name in out else "promote" if name in good and not missing else "hold"
    lines = "; ".join(f"{name}: {verdict} ({found.line(name)})" for name, verdict in verdicts.items())
    reason = f"{missing}. {lines}" if missing else lines or "There is no channel to decide"
    return Decision("hold", reason, facts, channels=verdicts)


def _is_no_worse(low: float, margin: float) -> bool:
    return margin > 0 and low > -margin
