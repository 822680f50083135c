"""`release status`: who answers, who is tried, how it stands in each channel and over time, and what it waits for.

Reads only, and loads nothing that trains, so a server can answer with it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from headrace.feedback import outcomes
from headrace.feedback.outcomes import Labels
from headrace.records import Decision, Evidence, LedgerEntry, Release
from headrace.release import endings, releases, standing
from headrace.release.policies import shadow
from headrace.releasing import judging
from headrace.store import ledger as lines
from headrace.store import releases as rows
from headrace.store import traffic, versions
from headrace.workspace import Workspace

_PATIENCE = {
    "traffic": timedelta(hours=1),
    "stage": timedelta(days=1),
    "labels": timedelta(days=1),
    "differences": timedelta(days=1),
    "evidence": timedelta(days=1),
}
"""How long a release may go without what it waits for before it is called stuck."""
_HEALTH = {"promote": "ready to promote", "reject": "failing", "stop": "used up", "advance": "ready to advance"}
"""Of a verdict."""
_DAY_S = 86_400


def release_status(ws: Workspace, *, task: str | None = None) -> dict[str, Any]:
    """Who answers, who is tried, what the evidence says so far and what it waits for; changes nothing.

    Returns:
        What `release.releases.status` says, and while a release is open: `weights`, `stage`, `elapsed_s`, `health`,
        `waits_for`, `waits_since`, `is_stuck`, `days_left`, `n_repeated_labels` (not counted, as an earlier one of
        their unit does), `arms` (candidate arm to its `version` and its parts, see release/standing.py), `over_time`
        (the same arms to curves), `guardrails`, `channel_verdicts` (where the policy decides on channels) and `ended`
        (channels that are decided, to how). Without a release: None or empty.
    """
    name = ws.task_name(task)
    with ws.store.read() as conn:
        running = rows.open_release(conn, name)
    if running is None:
        return {**releases.status(ws, name), **_NOTHING}
    labels = outcomes.labels_of(ws, running)
    evidence = _evidence(ws, running, labels)
    decision = judging.decide(running, evidence)
    return {**releases.status(ws, name, decision=decision), **_stands(ws, running, labels, evidence, decision)}


def curves_of(ws: Workspace, release: Release) -> dict[str, Any]:
    """Candidate arm to the e-values of a release over time, open or not; see `release.standing.over_time`."""
    labels = outcomes.labels_of(ws, release)
    arms = standing.compared_arms(release, outcomes.evidence(ws, release, labels=labels))
    return standing.over_time(release, outcomes=labels.outcomes, answers=labels.answers, arms=arms)


_NOTHING: dict[str, Any] = {
    "weights": None,
    "stage": None,
    "elapsed_s": None,
    "health": None,
    "waits_for": None,
    "waits_since": None,
    "is_stuck": False,
    "days_left": None,
    "n_repeated_labels": 0,
    "arms": {},
    "over_time": {},
    "guardrails": [],
    "channel_verdicts": {},
    "ended": {},
}


def _evidence(ws: Workspace, release: Release, labels: Labels) -> Evidence:
    """With the time in the stage as the ledger has it; a server goes by a clock that nobody sets."""
    with ws.store.read() as conn:
        written = lines.of_release(conn, release.id)
    elapsed_s = (ws.clock() - _stage_began(release, written)).total_seconds()
    return outcomes.evidence(ws, release, labels=labels, stage_elapsed_s=max(0.0, elapsed_s))


def _stage_began(release: Release, written: list[LedgerEntry]) -> datetime:
    return max((line.at for line in written if line.kind in ("start", "advance")), default=release.started_at)


def _stands(ws: Workspace, release: Release, labels: Labels, evidence: Evidence, decision: Decision) -> dict[str, Any]:
    parts, elapsed = standing.stands(release, evidence), ws.clock() - release.started_at
    rails = standing.guardrails_of(release, evidence)
    with ws.store.read() as conn:
        names = {version.id: version.name for version in versions.listing(conn, release.task)}
        written = lines.of_release(conn, release.id)
        last_requests = traffic.last_at(conn, release.id)
    arms = standing.compared_arms(release, evidence)
    lack = _lack(parts, decision)
    moments = _moments(release, parts, labels, last_requests, _stage_began(release, written))
    waits = _waits(lack, moments, ws.clock())
    lack = "traffic" if waits.is_stuck and waits.what == "traffic" else lack
    return {
        "weights": dict(release.weights),
        "stage": release.stage,
        "elapsed_s": round(elapsed.total_seconds(), 1),
        "health": _health(rails, decision, lack),
        "waits_for": lack if lack == "traffic" else decision.evidence.get("waits_for") or lack,
        "waits_since": None if lack is None else waits.since.isoformat(),
        "is_stuck": waits.is_stuck,
        "days_left": _days_left(parts, elapsed),
        "n_repeated_labels": evidence.n_repeated_labels,
        "arms": {arm: {"version": names[release.version_of(arm)], **found} for arm, found in parts.items()},
        "over_time": standing.over_time(release, outcomes=labels.outcomes, answers=labels.answers, arms=arms),
        "guardrails": rails,
        "channel_verdicts": dict(decision.channels),
        "ended": _ended(written),
    }


@dataclass(frozen=True)
class _Waits:
    """What a release lacks, and since when none of it has come."""

    what: str | None
    since: datetime
    is_stuck: bool


def _moments(
    release: Release,
    parts: Mapping[str, standing.Parts],
    labels: Labels,
    last_requests: Mapping[str, datetime],
    stage_began: datetime,
) -> dict[str, datetime]:
    """When the last of each came that a release may lack; where none has, when it or its stage began."""
    began, pairs = release.started_at, shadow.counted(labels.outcomes, release.options)
    label = _last(began, [one.at for one in pairs] + [one.at for one in labels.answers])
    difference = _last(began, [one.at for one in pairs if one.control_correct != one.candidate_correct])
    request = _last(began, last_requests.values())
    evidence = difference if release.policy == outcomes.SHADOW else label
    if release.options.get("margin") and not any(found["all"]["n_waiting"] for found in parts.values()):
        evidence = max(evidence, request)  # answers that are alike count too
    compared = [at for arm, at in last_requests.items() if arm != "control" or "baseline" not in release.weights]
    return {
        "traffic": request,
        "stage": _last(stage_began, compared),
        "labels": label,
        "differences": difference,
        "evidence": evidence,
    }


def _last(began: datetime, moments: Iterable[datetime | None]) -> datetime:
    return max([began, *(at for at in moments if at is not None)])


def _waits(lack: str | None, moments: Mapping[str, datetime], now: datetime) -> _Waits:
    """Where neither requests nor labels come at all any more, that is what it waits for."""
    if lack is None:
        return _Waits(None, now, is_stuck=False)
    quiet_since = max(moments["traffic"], moments["labels"], moments["stage"])
    if now - quiet_since > _PATIENCE["traffic"]:
        return _Waits("traffic", moments["traffic"], is_stuck=True)
    return _Waits(lack, moments[lack], is_stuck=now - moments[lack] > _PATIENCE[lack])


def _lack(parts: dict[str, standing.Parts], decision: Decision) -> str | None:
    """What is missing of what a decision needs: the least of all arms'. A policy that waits for no label needs none."""
    if decision.verdict != "hold":
        return None
    lacks = {found["all"]["waits_for"] for found in parts.values()}
    waits_for = str(decision.evidence.get("waits_for", "labels"))
    if "traffic" in lacks:
        return "traffic"
    if "label" not in waits_for:
        return "stage"
    return next((lack for lack in ("labels", "differences") if lack in lacks), "evidence")


def _health(rails: list[dict[str, Any]], decision: Decision, lack: str | None) -> str:
    """One word for how the release does; docs/release.md lists them."""
    if any(rail["fired"] for rail in rails):
        return "guardrail fired"
    if decision.verdict != "hold":
        return _HEALTH[decision.verdict]
    ratios = decision.evidence.get("ratio_e", {}).values()
    if any(e >= decision.evidence["ratio_limit"] for e in ratios) or not decision.evidence:
        return "unhealthy"  # arms that do not get their shares, or counts that cannot be right
    return f"no {lack}" if lack in ("traffic", "labels") else "collecting"


def _days_left(parts: dict[str, standing.Parts], elapsed: timedelta) -> float | None:
    """Until the labels that are likely to decide have come, at the pace so far; None where that is not known."""
    whole = [found["all"] for found in parts.values() if found["all"]["n_more_labels"]]
    needed = [(part["n_more_labels"]["middle"], part["n_labelled"]) for part in whole]
    days = [elapsed.total_seconds() / _DAY_S * more / n for more, n in needed if more is not None and n]
    return round(max(days), 2) if days else None


def _ended(written: list[LedgerEntry]) -> dict[str, str]:
    """Channels in which the release is decided, to how."""
    ends = [line for line in written if line.kind in endings.ENDS and line.channel is not None]
    return {str(line.channel): endings.ENDS[line.kind] for line in ends}
