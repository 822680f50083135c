"""Guardrails: kinds of answers that must not become more frequent while a candidate meets traffic.

A guardrail fires when two e-values say so over all looks: at level `guardrail_alpha` more than a limit's share of the
candidate's requests are of its kind, and at CONTROL_ALPHA more than a tolerated multiple of what the control's slice
has at the same time. So trouble that strikes both arms rolls nothing back, nor does a difference too small to matter.
It is asked of all requests, and of each channel by e-Holm over the channels.

The second level is the looser one, since it only matters while the control is in trouble too. At .001 a candidate that
fails 5 % of requests gave 27 bad answers beside a control that fails 1 %, at .05 it gives 14; of two arms that fail 5 %
alike 2.7 % are rolled back and not .02 % (`python -m bench.release`).

Events are counted once per unit, since all of a unit's requests meet the same arm (see server/traffic.py).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from headrace.records import Batch, Evidence, Score, Traffic
from headrace.stats import guardrails, multiplicity, sample_ratio

ALPHA = 0.001
CONTROL_ALPHA = 0.05
SUSPICION_E = math.sqrt(10)
"""Of a harm, with which a promotion waits (see shadow.py)."""
_Counted = TypeVar("_Counted")
_LARGEST_LOG = 690.0  # exp() of it is still a finite float; more evidence than this is shown as this


@dataclass(frozen=True)
class Guardrail:
    """One kind of answers, in words; how it is counted, the option with its limit, and what is tolerated."""

    name: str
    field: str
    limit: str
    default: float
    ratio: float
    """Times the share of the control's slice that the candidate may have."""


GUARDRAILS = (
    Guardrail("errors", "n_errors", "max_error_share", 0.01, 1.0),
    Guardrail("timeouts", "n_timeouts", "max_timeout_share", 0.01, 1.0),
    Guardrail("slow answers", "n_slow", "max_slow_share", 0.1, 2.0),
    Guardrail("abstentions", "n_abstained", "max_abstained_share", 0.05, 1.5),
)


@dataclass(frozen=True)
class Arms:
    """Two arms that are compared, and the candidate's share of the requests of both; None: each stage has its own."""

    candidate: str
    control: str
    share: float | None = 0.5


def within(evidence: Evidence, channels: Sequence[str]) -> Evidence:
    """The evidence of some channels alone."""

    def cut(by_arm: Mapping[str, Mapping[str, _Counted]]) -> dict[str, dict[str, _Counted]]:
        return {arm: {name: one for name, one in by.items() if name in channels} for arm, by in by_arm.items()}

    return replace(
        evidence,
        outcomes=[one for one in evidence.outcomes if one.channel in channels],
        traffic=cut(evidence.traffic),
        feedback=cut(evidence.feedback),
        batches=[Batch(one.shares, cut(one.feedback), cut(one.traffic)) for one in evidence.batches],
    )


def parts(evidence: Evidence, arms: Arms) -> list[tuple[Evidence | Batch, float]]:
    """The evidence in parts in which the candidate had the same share of the requests of both arms, with that share.

    Totals over stages of different shares compare nothing: a stage with more errors, and more of the candidate, makes
    equal arms look unequal (Simpson's paradox).
    """
    if arms.share is not None:
        return [(evidence, arms.share)]
    shares = [(one.shares.get(arms.candidate, 0.0), one.shares.get(arms.control, 0.0)) for one in evidence.batches]
    both = zip(evidence.batches, shares, strict=True)
    return [(batch, n / (n + n_control)) for batch, (n, n_control) in both if n > 0 and n_control > 0]


def unsound(evidence: Evidence, arms: Arms) -> str:
    """Why the counts of two arms cannot be right, or are not there; empty when they can."""
    if not _is_count(evidence.stage_requests):
        return "The requests of this stage are no count"
    found = [_unsound(evidence, arms), *(_unsound(batch, arms) for batch in evidence.batches)]
    return next((wrong for wrong in found if wrong), "")


def _unsound(evidence: Evidence | Batch, arms: Arms) -> str:
    for arm in (arms.control, arms.candidate):
        for channel, traffic in evidence.traffic.get(arm, {}).items():
            counts = [traffic.n_requests, traffic.n_units, *(getattr(traffic, rail.field) for rail in GUARDRAILS)]
            if not all(_is_count(n) and n <= traffic.n_requests for n in counts):
                return f"The counts of {arm} in {channel} cannot be right"
        for channel, score in evidence.feedback.get(arm, {}).items():
            if not (_is_count(score.n) and _is_count(score.n_right) and score.n_right <= score.n):
                return f"The labelled answers of {arm} in {channel} cannot be right"
    return ""


def fired(
    evidence: Evidence, arms: Arms, options: Mapping[str, Any], *, only: Sequence[Guardrail] = GUARDRAILS
) -> list[dict[str, Any]]:
    """The guardrails that fired, each with its channel (None: all together) and its counts."""
    alpha = options.get("guardrail_alpha", ALPHA)
    found = []
    for rail in only:
        by_channel = {name: _log_e(rail, evidence, arms, options, [name]) for name in channels_of(evidence, options)}
        overall = _log_e(rail, evidence, arms, options, list(by_channel))
        where: list[str | None] = [None] if overall >= math.log(1 / alpha) else []
        where += multiplicity.refuted(by_channel, alpha=alpha)
        for name in where:
            log_e = overall if name is None else by_channel[name]
            found.append(_shown(rail, evidence, arms, options, name, log_e))
    return found


def looked_at(
    evidence: Evidence, arms: Arms, options: Mapping[str, Any], *, only: Sequence[Guardrail] = GUARDRAILS
) -> list[dict[str, Any]]:
    """Every guardrail over all channels, with its counts, whether it fired there or in a channel, and what it takes."""
    broken = {one["guardrail"] for one in fired(evidence, arms, options, only=only)}
    channels, needed = channels_of(evidence, options), 1 / options.get("guardrail_alpha", ALPHA)
    return [
        {
            **_shown(rail, evidence, arms, options, None, _log_e(rail, evidence, arms, options, channels)),
            "arm": arms.candidate,
            "e_needed": needed,
            "fired": rail.name in broken,
        }
        for rail in only
    ]


def explained(found: Sequence[Mapping[str, Any]]) -> str:
    """Fired guardrails as a sentence."""
    parts = [
        f"{one['guardrail']}{'' if one['channel'] is None else ' in ' + one['channel']}: {one['n_events']} in "
        f"{one['n_requests']} requests, {one['n_events_control']} in {one['n_requests_control']} of the control"
        for one in found
    ]
    return f"The candidate breaks a guardrail ({'; '.join(parts)})"


def channels_out(found: Sequence[Mapping[str, Any]], channels: Sequence[str]) -> list[str]:
    """The channels in which a guardrail fired; all of them where one fired for all together."""
    if any(one["channel"] is None for one in found):
        return list(channels)
    return sorted({one["channel"] for one in found})


def ratio_log_e(evidence: Evidence | Batch, weights: Mapping[str, float]) -> dict[str, float]:
    """Evidence that requests, or labelled answers, do not fall to the arms in proportion to their weights.

    Returns:
        log E by `requests` and `labels`; labels that come more often from one arm would bias what they say.
    """
    units = {arm: traffic_of(evidence, arm).n_units for arm in weights}
    labels = {arm: score_of(evidence, arm).n for arm in weights}
    return {"requests": sample_ratio.log_e(units, weights), "labels": sample_ratio.log_e(labels, weights)}


def channels_of(evidence: Evidence, options: Mapping[str, Any]) -> list[str]:
    """All that the release may meet, and what it has met besides."""
    met = {name for by_channel in (*evidence.traffic.values(), *evidence.feedback.values()) for name in by_channel}
    return sorted(met | set(options.get("channels", ())))


def traffic_of(evidence: Evidence | Batch, arm: str, channels: Sequence[str] | None = None) -> Traffic:
    by_channel = evidence.traffic.get(arm, {})
    return sum((t for name, t in by_channel.items() if channels is None or name in channels), Traffic())


def score_of(evidence: Evidence | Batch, arm: str, channels: Sequence[str] | None = None) -> Score:
    by_channel = evidence.feedback.get(arm, {})
    return sum((s for name, s in by_channel.items() if channels is None or name in channels), Score())


def shown_e(log_e: float) -> float:
    """An e-value as a finite number."""
    return math.exp(min(log_e, _LARGEST_LOG))


def _log_e(
    rail: Guardrail, evidence: Evidence, arms: Arms, options: Mapping[str, Any], channels: Sequence[str]
) -> float:
    """The weaker of the two, the second in terms of the first one's level."""
    tried = traffic_of(evidence, arms.candidate, channels)
    n_events = getattr(tried, rail.field)
    if not n_events:
        return -math.inf
    above = guardrails.log_e_above(n_events, tried.n_requests, options.get(rail.limit, rail.default))
    worse = 0.0
    for part, share in parts(evidence, arms):
        n, n_control = (getattr(traffic_of(part, arm, channels), rail.field) for arm in (arms.candidate, arms.control))
        odds = rail.ratio * share / (1 - share)
        worse += guardrails.log_e_worse(n, n_control, odds / (1 + odds))
    lead = math.log(CONTROL_ALPHA / options.get("guardrail_alpha", ALPHA))
    return float(min(above, worse + lead))


def _shown(
    rail: Guardrail, evidence: Evidence, arms: Arms, options: Mapping[str, Any], channel: str | None, log_e: float
) -> dict[str, Any]:
    channels = None if channel is None else [channel]
    tried, control = (traffic_of(evidence, arm, channels) for arm in (arms.candidate, arms.control))
    return {
        "guardrail": rail.name,
        "channel": channel,
        "n_events": getattr(tried, rail.field),
        "n_requests": tried.n_requests,
        "n_events_control": getattr(control, rail.field),
        "n_requests_control": control.n_requests,
        "limit": options.get(rail.limit, rail.default),
        "e": shown_e(log_e),
    }


def _is_count(n: object) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and n >= 0
