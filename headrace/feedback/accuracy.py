"""How often answers are right, by audits; and beside it what those say who told of an answer without being asked.

An answer counts once it is `feedback.audit_days` old, whether its audit was answered in that time or not: of younger
ones, the quick answers would be there alone. An audit that was not answered in time widens the interval to what holds
whatever it would have said; so does one that somebody answered who does not count (trust.not_counted). How
sure the model was helps as far as it is worth something (stats.audits).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial, reduce
from operator import add
from typing import Any

import numpy as np

from headrace import retention
from headrace.feedback import audited, trust
from headrace.feedback.naming import check_instant
from headrace.feedback.outcomes import with_truth
from headrace.ids import first_id
from headrace.records import Interval
from headrace.stats import audits
from headrace.stats.audits import Tally
from headrace.store import audits as rows
from headrace.store import ledger, versions
from headrace.store.channels import check_channel
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

_NOT_A_SAMPLE = "not a sample: whether somebody tells of an answer hangs on whether it was right"


@dataclass(frozen=True)
class Volunteered:
    """What corrections say that nobody asked for. No estimate of accuracy; shown to be told apart from one."""

    share_right: float | None
    n: int
    n_right: int
    times_as_often: float | None
    """How many times as often wrong answers were told of as right ones, by the audits; None where they cannot say."""
    bias: str


@dataclass(frozen=True)
class Part:
    """Of the answers to one channel, or to all, by the versions that are in charge now."""

    version: str
    accuracy: Interval | None
    """Holds whatever the unanswered audits would have said; None without an answered one."""
    if_alike: Interval | None
    """If the unanswered audits are like the answered ones."""
    always: Interval | None
    """The like of `accuracy` for a figure that is looked at all the time."""
    n_requests: int
    """Answers that could have been audited."""
    n_audits: int
    """Answered in time."""
    n_unanswered: int
    reason: str
    """Why there is no figure; empty where there is one."""
    volunteered: Volunteered


@dataclass(frozen=True)
class Live:
    """Live accuracy of a task, of answers from `since` on and up to `until`."""

    task: str
    since: datetime | None
    """None: as far back as the store has all answers."""
    until: datetime
    window_days: float
    overall: Part | None
    """None while nobody is in charge."""
    channels: Mapping[str, Part]


@dataclass
class _Sums:
    """What was counted of one channel's answers."""

    version: str
    answered: Tally
    if_wrong: Tally
    """With the unanswered audits taken to be wrong."""
    if_right: Tally
    told: list[bool] = field(default_factory=list)
    """Whether each answer was right that somebody told of."""


def live(ws: Workspace, task: str | None = None, *, channel: str | None = None, since: datetime | None = None) -> Live:
    """Live accuracy of the versions in charge, overall and of each channel.

    Args:
        channel: of this one only.
        since: of answers from this instant on.

    Raises:
        NotFound: no such task or channel.
        BadInput: an instant without a time zone.
    """
    check_instant("since", since)
    task = ws.task_name(task)
    window = timedelta(days=ws.settings.feedback.audit_days)
    until = ws.clock() - window
    first = max(retention.newest_moved(ws, task), "" if since is None else first_id("prediction", since))
    is_nothing = trust.not_counted(ws, task)
    with ws.store.read() as conn:
        check_channel(conn, channel)
        in_charge = ledger.controls(conn, task)
        names = {version.id: version.name for version in versions.listing(conn, task)}
        given = {
            "first": first,
            "before": first_id("prediction", until),
        }  # before `first`, only what has feedback is here
        totals = rows.totals(conn, task, **given)
        drawn = audited.drawn(conn, task, is_nothing, **given)
        told = rows.volunteered(conn, task, **given)

    def counts(name: str, version_id: str) -> bool:
        return channel in (None, name) and in_charge.get(name, in_charge.get(None)) == version_id

    task_type: TaskType = TASK_TYPES.get(ws.task(task).type)(ws.task(task))
    parts: dict[str, _Sums] = {}
    for line in totals:
        if counts(line.channel, line.version_id):
            mine = [one for one in drawn if (one["channel"], one["version_id"]) == (line.channel, line.version_id)]
            parts[line.channel] = _sums(task_type, names[line.version_id], line, mine, window)
    for one, truth in with_truth(task_type, [one for one in told if counts(one["channel"], one["version_id"])]):
        if one["channel"] in parts:
            parts[one["channel"]].told.append(task_type.answers_match(one["output"], truth))
    whole = names[in_charge[None]] if in_charge else ""
    nothing = partial(_why_not, ws)
    return Live(
        task,
        since,
        until,
        ws.settings.feedback.audit_days,
        _part(whole, list(parts.values()), nothing) if in_charge else None,
        {name: _part(sums.version, [sums], nothing) for name, sums in sorted(parts.items())},
    )


def _sums(
    task_type: TaskType, version: str, line: rows.Totals, drawn: Sequence[Mapping[str, Any]], window: timedelta
) -> _Sums:
    """Sums of answers of which there were `line` in all, and these drawn."""
    p, proxy = (np.array([one[name] for one in drawn], dtype=np.float64) for name in ("probability", "proxy"))
    right = np.full(len(drawn), np.nan)
    for place, one in enumerate(drawn):
        if one["is_answered"] and one["answered_at"] <= one["asked_at"] + window:
            right[place] = task_type.answers_match(one["output"], one["answer"])
    missing = np.isnan(right)
    every = np.ones(len(drawn), dtype=bool)
    answered, if_wrong, if_right = (
        audits.tally(p, asked, y, proxy).of_requests(line.n, line.proxy, line.proxy_squares)
        for asked, y in ((~missing, right), *((every, np.where(missing, end, right)) for end in (0.0, 1.0)))
    )
    return _Sums(version, answered, if_wrong, if_right)


def _part(version: str, parts: "Sequence[_Sums]", nothing: Callable[[int, int], str]) -> Part:
    answered, if_wrong, if_right = (
        [getattr(sums, name) for sums in parts] for name in ("answered", "if_wrong", "if_right")
    )
    if_alike = together(answered)
    n_audits, n_drawn = (sum(sums.n_audited for sums in tallies) for tallies in (answered, if_wrong))
    n_requests = sum(sums.n for sums in answered)
    told = [is_right for sums in parts for is_right in sums.told]
    return Part(
        version=version,
        accuracy=audits.between(if_alike, together(if_wrong), together(if_right)),
        if_alike=if_alike,
        always=audits.between(*(_always(tallies) for tallies in (answered, if_wrong, if_right))),
        n_requests=n_requests,
        n_audits=n_audits,
        n_unanswered=n_drawn - n_audits,
        reason="" if n_audits else nothing(n_requests, n_drawn),
        volunteered=_volunteered(told, n_requests, if_alike),
    )


def together(tallies: Sequence[Tally]) -> Interval | None:
    """Of all together; each with a slope of its own where all have enough audits for that, few ones put together."""
    if not tallies:
        return None
    few = [sums for sums in tallies if sums.n_audited < audits.MIN_FOR_PROXY]
    strata = [sums for sums in tallies if sums.n_audited >= audits.MIN_FOR_PROXY]
    strata += [reduce(add, few)] if few else []
    if len(strata) > 1 and strata[-1].n_audited >= audits.MIN_FOR_PROXY:
        return audits.by_strata(strata)
    return audits.estimate(reduce(add, tallies))


def _always(tallies: Sequence[Tally]) -> Interval | None:
    return audits.estimate_always(reduce(add, tallies)) if tallies else None


def _volunteered(told: Sequence[bool], n_requests: int, accuracy: Interval | None) -> Volunteered:
    n, n_right = len(told), sum(told)
    if not n:
        return Volunteered(None, 0, 0, None, "nobody told of an answer without being asked")
    times = None
    if accuracy is not None and n_right and 0 < accuracy.estimate < 1:
        n_wrong_given, n_right_given = ((1 - accuracy.estimate) * n_requests, accuracy.estimate * n_requests)
        times = ((n - n_right) / n_wrong_given) / (n_right / n_right_given)
    by = "by how much, only audits can say" if times is None else f"wrong ones were told of {times:.1f} times as often"
    return Volunteered(n_right / n, n, n_right, times, f"{_NOT_A_SAMPLE}; {by}")


def _why_not(ws: Workspace, n_requests: int, n_drawn: int) -> str:
    """Why there is no figure, and what would give one."""
    feedback = ws.settings.feedback
    if not n_requests:
        turned_off = "; feedback.audit_share is 0, so none will be" if not feedback.audit_share else ""
        return f"no answer that could have been audited is {feedback.audit_days:g} days old{turned_off}"
    if not n_drawn:
        return f"of {n_requests:,} answers none is in the review queue: headrace review list"
    return f"none of {n_drawn:,} audits was answered within {feedback.audit_days:g} days: headrace review next"
