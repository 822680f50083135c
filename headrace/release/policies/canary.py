"""Canary: the candidate answers a small share of the units, then more, as long as nothing speaks against it.

    stage 0: 1 %  ->  5 %  ->  10 %  ->  25 %  ->  50 %  ->  promote

In every stage a slice of the control as large as the candidate's, the arm `baseline`, is counted beside it, so that the
two differ in nothing but their version. In this order:

- A guardrail that fired, or labelled answers that tell harm overall or in a channel, reject.
- A stage ends when the candidate and the baseline have answered `dwell_requests` requests each in it and `dwell_s` have
  passed, whichever comes later, if the requests of the two arms come as one to one (else something between them loses
  requests, and no comparison of them is to be trusted).
- After the last stage it takes charge if both arms have `min_labels` labelled answers (if that is 0, N_LABELS at least,
  and more where there are many channels), which come as one to one too, some of every channel that sends requests, and
  no harm is suspected. With a `margin`, a drop of that size has to be excluded besides.

All else holds. This promotes what is not found worse, and finds what so many labels can show; use `shadow` or `ab` to
ask for better. With `each_channel` what rejects in one channel ends the release there only, and the others go on
without it.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from headrace.errors import BadConfig
from headrace.records import Decision, Evidence, Verdict
from headrace.release.policies import guardrails, labelled
from headrace.release.policies.guardrails import Arms
from headrace.release.policies.labelled import N_LABELS_A_CHANNEL, Labelled

ARMS = Arms("candidate", "baseline")
N_LABELS = 500
"""Of candidates that lose 10 points, 2 % are promoted with as many, 21 % with 250 and 86 % with 50 (simulated by
bench/release_traffic.py)."""


class Canary:
    """The policy `canary`."""

    @staticmethod
    def weights(options: Mapping[str, Any]) -> dict[str, float]:
        """The shares of the arms at the start.

        Raises:
            BadConfig: a ramp that does not rise.
        """
        ramp = options["ramp"]
        if not ramp or any(after <= before for before, after in pairwise(ramp)):
            raise BadConfig("the ramp does not rise", value=ramp, next_step="Set release.ramp to such as [1, 10, 50]")
        return _weights(ramp[0])

    @staticmethod
    def decide(evidence: Evidence, options: Mapping[str, Any]) -> Decision:
        """What the traffic so far says.

        Args:
            options: `alpha`, `guardrail_alpha`, `ramp` (percent, rising, at most 50), `dwell_requests`, `dwell_s`,
                `min_labels`, `margin`, `each_channel`, `channels`, and the limits of guardrails.py.
        """
        if wrong := guardrails.unsound(evidence, ARMS):
            return Decision("hold", wrong)
        if options.get("each_channel"):
            return _each_channel(evidence, options)
        return _whole(evidence, options)


def n_labels(min_labels: int, n_channels: int) -> int:
    """Of either arm that the end of the last stage takes.

    Args:
        min_labels: as the settings have it.
        n_channels: that requests come from.
    """
    return min_labels or max(N_LABELS, N_LABELS_A_CHANNEL * n_channels)


def _weights(percent: float) -> dict[str, float]:
    """Both slices grow from an end, so no unit goes from one into the other, and as many are new in either."""
    share = percent / 100
    return {"baseline": share, "control": max(0.0, 1 - 2 * share), "candidate": share}


def _whole(evidence: Evidence, options: Mapping[str, Any]) -> Decision:
    broken = guardrails.fired(evidence, ARMS, options)
    found = labelled.compare(evidence, ARMS, options)
    facts = _facts(evidence, options, found) | {"guardrails": broken}
    if broken:
        return Decision("reject", guardrails.explained(broken), facts)
    if harm := found.harm():
        return Decision("reject", harm, facts)
    if missing := _missing(evidence, options, facts):
        return Decision("hold", f"{_where(evidence, options)}: {missing}", {**facts, "waits_for": missing})
    if evidence.stage + 1 < len(options["ramp"]):
        share = options["ramp"][evidence.stage + 1]
        return Decision("advance", f"Nothing speaks against {share:g} %", facts, weights=_weights(share))
    if missing := _labels_missing(options, found, facts):
        return Decision("hold", f"{_where(evidence, options)}: {missing}", {**facts, "waits_for": missing})
    return Decision("promote", f"The candidate was not found worse in any stage: {found.told()}", facts)


def _each_channel(evidence: Evidence, options: Mapping[str, Any]) -> Decision:
    """The channels in which something rejects are out; the others are decided together."""
    names = guardrails.channels_of(evidence, options)
    broken = guardrails.fired(evidence, ARMS, options)
    harmed = labelled.compare(evidence, ARMS, options).harmed
    out = sorted({*harmed, *(one["channel"] for one in broken if one["channel"] is not None)})
    rest = [name for name in names if name not in out]
    decision = _whole(guardrails.within(evidence, rest), {**options, "channels": rest})
    verdicts: dict[str, Verdict] = dict.fromkeys(out, "reject")
    if decision.verdict in ("promote", "reject"):
        verdicts |= dict.fromkeys(rest, decision.verdict)
    reason = f"{decision.reason}. The candidate is out in: {', '.join(out)}" if out else decision.reason
    return replace(decision, channels=verdicts, reason=reason)


def _facts(evidence: Evidence, options: Mapping[str, Any], found: Labelled) -> dict[str, Any]:
    ratio = guardrails.ratio_log_e(evidence, {ARMS.control: 1, ARMS.candidate: 1})
    traffic = {arm: vars(guardrails.traffic_of(evidence, arm)) for arm in (ARMS.candidate, ARMS.control)}
    return {
        "stage": evidence.stage,
        "traffic": traffic,
        "ratio_e": {name: guardrails.shown_e(log_e) for name, log_e in ratio.items()},
        "ratio_limit": 1 / options["guardrail_alpha"],
        "labels": found.as_json(),
    }


def _where(evidence: Evidence, options: Mapping[str, Any]) -> str:
    ramp = options["ramp"]
    return f"Stage {evidence.stage + 1} of {len(ramp)}, at {ramp[min(evidence.stage, len(ramp) - 1)]:g} %"


def _missing(evidence: Evidence, options: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """What a stage waits for; worded so that a count or a time that is no number is waited for too."""
    n_needed, needed_s = options["dwell_requests"], options["dwell_s"]
    if not 0 <= evidence.stage < len(options["ramp"]):
        return "there is no such stage"
    if facts["ratio_e"]["requests"] >= facts["ratio_limit"]:
        return "requests do not come to candidate and baseline as one to one; find out what loses them"
    if not math.inf > evidence.stage_requests >= n_needed:
        return f"{evidence.stage_requests} of {n_needed} requests to candidate and baseline each"
    if not all(traffic["n_requests"] >= n_needed for traffic in facts["traffic"].values()):
        return "the counts of requests are not all there"
    if not math.inf > evidence.stage_elapsed_s >= needed_s:
        return f"{evidence.stage_elapsed_s:.0f} of {needed_s:g} s have passed"
    return ""


def _labels_missing(options: Mapping[str, Any], found: Labelled, facts: Mapping[str, Any]) -> str:
    """What else the last stage waits for."""
    n, _, n_control, _ = found.counts[""]
    n_needed = n_labels(options["min_labels"], len(found.channels) - len(found.silent))
    if not min(n, n_control) >= n_needed:
        return f"{n} and {n_control} of {n_needed} labelled answers of candidate and baseline"
    if facts["ratio_e"]["labels"] >= facts["ratio_limit"]:
        return "labels do not come to candidate and baseline as one to one, so they cannot compare them"
    margin = options.get("margin") or 0.0
    if margin > 0 and not found.overall.low > -margin:
        return f"a drop by {margin:g} is not excluded by the labels yet: {found.line()}"
    return found.missing()
