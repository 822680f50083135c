"""Feedback that does not count for now: bursts are found and put aside, by hand anything can be, and all of it back.

A burst is an hour in which a source is surely many times as busy as before (stats.annotators.log_e_of_burst). In the
first 24 hours of a task there is no before, and only an hour in which one labeller gives more than a person can is one
(`feedback.burst_first_labels`). What a review asked for is no part of it. An hour is looked at again as it fills, and
once suspended and lifted it stays so.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from headrace import auditing
from headrace.config import FeedbackTable
from headrace.errors import BadInput, NotFound, WrongState, nearest
from headrace.feedback import intake
from headrace.feedback.naming import check_instant
from headrace.feedback.sources import Source, covered
from headrace.ids import new_id
from headrace.personal.policies import door_of
from headrace.records import Suspension
from headrace.stats import annotators
from headrace.store import channels, lineage, suspensions, votes
from headrace.store.channels import check_channel
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

WINDOW_S = 3600
_N_BEFORE = 28 * 24  # windows that a window is compared with, at most
_LEAST_BEFORE = 24  # and at least: the first hours of a task are all busier than those before, so a number alone counts
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_REASON_CHARS = 2_000
Windows = Mapping[Source, Counter[int]]
"""Of each source, corrections by the number of the window since 1970."""


@dataclass(frozen=True)
class Burst:
    """A window in which a source was far busier than before."""

    source: Source
    window: int
    n_now: int
    n_before: int
    n_windows_before: int
    log_e: float | None
    """None: there is too little before to compare with, and it is more than the number that is a burst then."""

    @property
    def since(self) -> datetime:
        return _EPOCH + timedelta(seconds=self.window * WINDOW_S)

    @property
    def until(self) -> datetime:
        return _EPOCH + timedelta(seconds=(self.window + 1) * WINDOW_S)


def watch(ws: Workspace, task: str | None = None) -> list[Suspension]:
    """Suspend the bursts that have no suspension yet, lifted or not; those made."""
    name, now = ws.task_name(task), ws.clock()
    since = now - timedelta(seconds=2 * _N_BEFORE * WINDOW_S)
    with ws.store.read() as conn:
        known = suspensions.listing(conn, name)
        corrections = list(votes.volunteered(conn, name, since))
    found = bursts(corrections, known, ws.settings.feedback)
    if not found:
        return []
    with ws.store.write() as conn:
        now_known = suspensions.listing(conn, name)  # another process may have looked, too
        fresh = [one for one in found if not any(_is_about(held, one.source, one.window) for held in now_known)]
        made = [_suspension(name, burst, now) for burst in fresh]
        suspensions.add(conn, made, {one.name: one.id for one in channels.listing(conn)})
        for one in made:
            _note(ws, conn, "trust.suspend", one)
    return made


def bursts(
    corrections: Iterable[tuple[str, str, datetime]], known: Sequence[Suspension], settings: FeedbackTable
) -> list[Burst]:
    """Windows to suspend, in the order of time: of labellers first, then of channels by what is left.

    Args:
        corrections: (channel, labeller, instant).
        known: suspensions so far. What one in force covers is not compared with; a window that had one is settled, and
            what was lifted is no burst of the channel either.
    """
    in_force = covered(one for one in known if one.lifted_at is None)
    vouched = covered(one for one in known if one.lifted_at is not None)
    said = ((Source(channel, labeller), at) for channel, labeller, at in corrections)
    left = [(source, at) for source, at in said if not in_force(source, at)]
    found = _bursts(_counted(left), known, settings, at_first=settings.burst_first_labels)
    aside = {(burst.source, burst.window) for burst in found}
    rest = [
        (Source(source.channel), at)
        for source, at in left
        if (source, _window(at)) not in aside and not vouched(source, at)
    ]
    return found + _bursts(_counted(rest), known, settings)


def _bursts(
    windows: Windows, known: Sequence[Suspension], settings: FeedbackTable, *, at_first: float = math.inf
) -> list[Burst]:
    """Bursts of sources of one kind; a window that is one is not compared with.

    Args:
        at_first: corrections from which on a window is one while there is too little before to compare with.
    """
    if not windows:
        return []
    first = min(min(counts) for counts in windows.values())
    busy = [(w, s) for s, counts in windows.items() for w, n in counts.items() if n >= settings.burst_labels]
    found: list[Burst] = []
    quiet = {source: Counter(counts) for source, counts in windows.items()}
    for window, source in sorted(busy, key=lambda one: (one[0], str(one[1]))):
        n_windows = min(window - first, _N_BEFORE)
        is_first = n_windows < _LEAST_BEFORE
        if (is_first and windows[source][window] < at_first) or any(_is_about(one, source, window) for one in known):
            continue
        before = [_n_within(counts, window - n_windows, window) for counts in quiet.values()]
        typical = sum(before) / max(1, sum(n > 0 for n in before))
        n_now, n_before = windows[source][window], _n_within(quiet[source], window - n_windows, window)
        log_e = None if is_first else _log_e(n_now, n_before, n_windows, typical, settings)
        if log_e is None or log_e >= -math.log(settings.burst_alpha):
            found.append(Burst(source, window, n_now, n_before, n_windows, log_e))
            quiet[source].pop(window)
    return found


def _log_e(n_now: int, n_before: int, n_windows: int, typical: float, settings: FeedbackTable) -> float:
    found = annotators.log_e_of_burst(
        np.array([n_now]),
        np.array([n_before]),
        now_share=1 / (1 + n_windows),
        times=settings.burst_times,
        typical=max(1.0, typical),
    )
    return float(found[0])


def _counted(said: Iterable[tuple[Source, datetime]]) -> dict[Source, Counter[int]]:
    found: dict[Source, Counter[int]] = {}
    for source, at in said:
        found.setdefault(source, Counter())[_window(at)] += 1
    return found


def _window(at: datetime) -> int:
    return int((at - _EPOCH).total_seconds() // WINDOW_S)


def _n_within(counts: Counter[int], first: int, end: int) -> int:
    return sum(n for window, n in counts.items() if first <= window < end)


def _is_about(one: Suspension, source: Source, window: int) -> bool:
    return (one.channel, one.labeller, _window(one.since)) == (source.channel, source.labeller, window)


def _suspension(task: str, burst: Burst, now: datetime) -> Suspension:
    hours = burst.n_windows_before
    before = "too soon to compare" if burst.log_e is None else f"{burst.n_before} in the {hours} hours before"
    return Suspension(
        id=new_id("suspension"),
        task=task,
        channel=burst.source.channel,
        labeller=burst.source.labeller,
        since=burst.since,
        until=burst.until,
        reason=f"burst: {burst.n_now} corrections within an hour, {before}",
        evidence={
            "n_now": burst.n_now,
            "n_before": burst.n_before,
            "n_hours_before": hours,
            "log_e": None if burst.log_e is None else round(burst.log_e, 3),
        },
        created_at=now,
    )


def suspend(
    ws: Workspace,
    channel: str,
    labeller: str | None = None,
    *,
    because: str,
    since: datetime | None = None,
    until: datetime | None = None,
    task: str | None = None,
) -> Suspension:
    """Have feedback of a source, or of a whole channel, not count until this is lifted.

    Args:
        since, until: of the feedback; None: from the first on, and for ever.

    Raises:
        NotFound: no such channel, or nobody of this name has said anything in it.
        BadInput: no reason, an end before the start, or an instant without a time zone.
    """
    for which, at in (("since", since), ("until", until)):
        check_instant(which, at)
    name, since = ws.task_name(task), since or _EPOCH
    _check_reason(because)
    if until is not None and until <= since:
        raise BadInput("the end is not after the start", value=until.isoformat(), next_step="Give a later --until")
    with ws.store.write() as conn:
        check_channel(conn, channel)
        ids = {one.name: one.id for one in channels.listing(conn)}
        labeller = None if labeller is None else _kept_name(ws, conn, channel, ids[channel], labeller)
        made = Suspension(
            new_id("suspension"), name, channel, labeller, since, until, because, {"by": "hand"}, ws.clock()
        )
        suspensions.add(conn, [made], ids)
        _note(ws, conn, "trust.suspend", made)
    return made


def _kept_name(ws: Workspace, conn: "Connection", channel: str, channel_id: str, labeller: str) -> str:
    """What somebody who has spoken in a channel is called here."""
    intake.check_labeller(labeller)
    known = lineage.names_in(conn, channel_id)
    name = labeller if labeller in known else door_of(ws).name(channel, labeller)
    if name not in known:
        raise NotFound(f"no such labeller in channel {channel}", value=labeller, next_step=nearest(name, sorted(known)))
    return name


def lift(ws: Workspace, suspension_id: str, *, because: str, by: str = "anonymous") -> Suspension:
    """Have what was suspended count again, as if it had never been.

    Raises:
        NotFound: no such suspension.
        WrongState: it was lifted before.
        BadInput: no reason.
    """
    _check_reason(because)
    with ws.store.write() as conn:
        found = suspensions.find(conn, suspension_id)
        if found is None:
            raise NotFound("no such suspension", value=suspension_id, next_step="Run: headrace trust list")
        if not suspensions.lift(conn, suspension_id, at=ws.clock(), by=by, because=because):
            raise WrongState(
                "this suspension was lifted before",
                value=f"{suspension_id}, by {found.lifted_by}: {found.lifted_because}",
                next_step="Suspend the source again: headrace trust suspend",
            )
        lifted = suspensions.find(conn, suspension_id)
        assert lifted is not None
        _note(ws, conn, "trust.lift", lifted)
    return lifted


def _note(ws: Workspace, conn: "Connection", action: str, about: Suspension) -> None:
    """Into the audit log, without the labeller's name, which an erasure could not take out of there."""
    facts = {"task": about.task, "channel": about.channel, "whole_channel": about.labeller is None}
    auditing.note(ws, conn, action, about.id, facts=facts)


def listing(ws: Workspace, task: str | None = None) -> list[Suspension]:
    """All of a task, lifted ones too, in the order of the time that they are about."""
    with ws.store.read() as conn:
        return suspensions.listing(conn, ws.task_name(task))


def _check_reason(because: str) -> None:
    if not because.strip() or len(because) > _MAX_REASON_CHARS:
        raise BadInput(
            f"a reason of 1 to {_MAX_REASON_CHARS} characters is needed",
            value=because,
            next_step='Say why: --because "..."',
        )
