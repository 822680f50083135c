"""Which differences of a shadow release reviewers are asked about, and what came of it.

A difference is an input that both arms answered, and not the same. A coin with probability `release.ask_share`, fixed
as the release starts and thrown by a hash of the answer's id, says which are asked about, the oldest first. Only what
reviewers answer to these counts, unless release.labels says otherwise: corrections that users send by themselves come
for answers that looked wrong to them, and audits are drawn more often where the control is in doubt. For a margin, one
that is skipped, or answered by somebody who does not count, counts as a loss. So does one whose text the log did not
keep, since nobody can be asked about it. Where a reviewer is erased while the release is open, what he or she answered
waits for somebody else.

Evidence may be counted up to any answer that does not hang on who is right (see stats/noninferiority.py): up to the
first difference that waits for a reviewer, and up to now with those that wait as losses.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from headrace.compared import Asked, Compared
from headrace.feedback import auditing, trust
from headrace.feedback.sources import Source, author_of
from headrace.ids import first_id, made_at
from headrace.records import Release
from headrace.store import outcomes as rows
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, RowMapping

SHARE = 1.0
"""Of releases that began before there was a share."""
_LATE = timedelta(seconds=10)  # how much later than others a pair may be written to the log


def due(ws: Workspace, conn: "Connection", release: Release, n_most: int) -> "Iterator[RowMapping]":
    """Differences that are to be asked about and are not yet, the oldest first; columns of `store.shadowed_since`."""
    asked = rows.asked_about(conn, release.id)
    after = first_id("prediction", made_at(asked[-1]["id"]) - _LATE) if asked else ""
    known = {row["id"] for row in asked}
    for row in _drawn(ws, conn, release, after):
        if n_most <= 0:
            return
        if row["id"] not in known:
            n_most -= 1
            yield row


def asks(release: Release) -> bool:
    """Whether a coin says which differences reviewers are asked about; else the newest ones are, to learn from."""
    return bool(release.options.get("margin")) or release.options.get("labels") != "all"


def share_of(release: Release) -> float:
    return float(release.options.get("ask_share", SHARE))


def asked_of(ws: Workspace, release: Release) -> Asked | None:
    """What is known by now; None where no coin asks."""
    if not asks(release):
        return None
    with ws.store.read() as conn:
        asked = rows.asked_about(conn, release.id)
        new = next(_drawn(ws, conn, release, asked[-1]["id"] if asked else ""), None)
        before = None if new is None else new["id"]
        told = _told(ws, release, asked)
        limits = _limits(release, told)
        counted = rows.count_shadowed(conn, release.id, before=before, limits=limits)
    looked_at = {channel: Compared(n) for channel, (n, _) in counted.items()}
    settled = {channel: Compared(n) for channel, (_, n) in counted.items()}
    for answer_id, channel, counts in told:
        looked_at[channel] += counts
        if all(answer_id < limit for at, limit in limits.items() if at in (None, channel)):
            settled[channel] += counts
    return Asked(settled, looked_at)


def _limits(release: Release, told: list[tuple[str, str, Compared]]) -> dict[str | None, str]:
    """The first difference that waits for an answer: of all channels (None), or of each where each is decided alone."""
    waiting = [(answer_id, channel) for answer_id, channel, counts in told if counts.n_waiting]
    if release.options.get("each_channel"):
        return {channel: answer_id for answer_id, channel in reversed(waiting)}
    return {None: waiting[0][0]} if waiting else {}


def _told(ws: Workspace, release: Release, asked: "Sequence[RowMapping]") -> list[tuple[str, str, Compared]]:
    """Id of the candidate's answer, channel, and what the review of the difference says."""
    task_type = _task_type(ws, release)
    is_nothing = trust.not_counted(ws, release.task) if any(row["state"] == "answered" for row in asked) else None
    found = []
    for row in asked:
        counts = Compared(losses=1)
        if row["state"] == "open":
            counts = Compared(n_waiting=1)
        elif is_nothing is not None and _counts(row, is_nothing):
            is_won, is_lost = (task_type.answers_match(row[arm], row["answer"]) for arm in ("candidate", "control"))
            counts = Compared(wins=int(is_won and not is_lost), losses=int(is_lost and not is_won))
        found.append((row["id"], row["channel"], counts))
    return found


def _counts(row: "RowMapping", is_nothing: Callable[[Source, datetime], bool]) -> bool:
    """Whether somebody answered whose word counts."""
    return row["state"] == "answered" and not is_nothing(author_of(row), row["at"])


def _drawn(ws: Workspace, conn: "Connection", release: Release, after: str) -> "Iterator[RowMapping]":
    """Differences that the coin asks about, in the order of the candidate's answers."""
    task_type, salt, share = _task_type(ws, release), f"{ws.settings.feedback.audit_salt} ask", share_of(release)
    for row in rows.shadowed_since(conn, release.id, after=after):
        is_drawn = auditing.is_drawn(row["prediction_id"], share, salt=salt)
        if is_drawn and not task_type.answers_match(row["control"], task_type.answer_of(row["candidate"])):
            yield row


def _task_type(ws: Workspace, release: Release) -> TaskType:
    settings = ws.task(release.task)
    found: TaskType = TASK_TYPES.get(settings.type)(settings)
    return found
