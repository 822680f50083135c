"""Who is in charge: of the whole task, of each channel, now and at any instant.

A version is in charge of a channel when the newest `promote` or `rollback` line about the channel or about the whole
task names it. So a line about the whole task puts one version in charge of every channel, whatever was said before.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from headrace.errors import BadInput, NotFound, WrongState, nearest
from headrace.records import LedgerEntry, ModelVersion, Release
from headrace.release import ledger
from headrace.release.endings import left_of
from headrace.store import ledger as lines
from headrace.store import releases as rows
from headrace.store import versions
from headrace.store.channels import check_channel
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

FIRST = "first version: nothing to compare it with"


@dataclass(frozen=True)
class Serving:
    """Who answers for a task: the control, and the candidates of the open release beside it."""

    control: ModelVersion
    candidate: ModelVersion | None
    release: Release | None
    channels: Mapping[str, ModelVersion] = field(default_factory=dict)
    """Channels that another version than the control is in charge of."""
    others: tuple[ModelVersion, ...] = ()
    """The release's further candidates."""
    tried_in: tuple[str, ...] | None = ()
    """Channels in which the release is not decided yet; None: in all that there are."""

    def control_of(self, channel: str | None) -> ModelVersion:
        """The version in charge of a channel; of the whole task with None."""
        return self.control if channel is None else self.channels.get(channel, self.control)

    def is_tried_in(self, channel: str) -> bool:
        """Whether requests of a channel take part in the open release."""
        return self.release is not None and (self.tried_in is None or channel in self.tried_in)


@dataclass(frozen=True)
class Served:
    """Who answered for a channel at an instant, and by which line of the ledger."""

    task: str
    channel: str | None
    at: datetime
    version: str
    since: datetime
    rule: str
    """The policy that decided, or `by hand`, or `first version`."""
    line: LedgerEntry
    tried: dict[str, Any] | None
    """The release whose candidates answered part of the requests then, with the shares of its arms."""


def serving(ws: Workspace, task: str | None = None, *, channel: str | None = None) -> Serving:
    """Who answers for a task now.

    Args:
        channel: `control` is the version in charge of it; None: of the whole task.

    Raises:
        WrongState: no version is in charge yet.
        NotFound: no such channel.
    """
    task = ws.task_name(task)
    with ws.store.read() as conn:
        check_channel(conn, channel)
        in_charge = lines.controls(conn, task)
        if not in_charge:
            raise _nobody(conn, task)
        known = {version.id: version for version in versions.listing(conn, task)}
        release = rows.open_release(conn, task)
        tried_in = () if release is None else left_of(conn, release)
    own = {name: known[version_id] for name, version_id in in_charge.items() if name is not None}
    control = known[in_charge[None]]
    return Serving(
        control=control if channel is None else own.get(channel, control),
        candidate=None if release is None else known[release.candidate_id],
        release=release,
        channels=own,
        others=() if release is None else tuple(known[version_id] for version_id in release.others),
        tried_in=tried_in,
    )


def served_at(ws: Workspace, at: datetime, *, task: str | None = None, channel: str | None = None) -> Served:
    """Who answered for a channel, or for the whole task, at an instant, by which rule and on what evidence.

    Raises:
        BadInput: the instant has no zone, or is still to come.
        WrongState: no version was in charge then.
        NotFound: no such task or channel.
    """
    task = ws.task_name(task)
    if at.tzinfo is None or at > ws.clock():
        why = "has no zone" if at.tzinfo is None else "is still to come"
        raise BadInput(f"the instant {why}", value=at.isoformat(), next_step="Give one such as 2026-11-01T12:00Z")
    with ws.store.read() as conn:
        check_channel(conn, channel)
        seq = lines.in_charge(conn, task, channel, at=at)
        if seq is None:
            raise WrongState(
                "no version was in charge at that time",
                value=at.isoformat(),
                next_step="`headrace history` shows since when one was",
            )
        line = lines.entry(conn, seq)
        version = versions.find(conn, line.version_id or "")
        decided = None if line.release_id is None else rows.find(conn, line.release_id)
        tried = _tried_at(conn, task, channel, at)
    assert version is not None  # the ledger refers to it
    by_hand = "first version" if line.reason == FIRST else "by hand"
    rule = by_hand if decided is None else decided.policy
    return Served(task, channel, at, version.name, line.at, rule, line, tried)


def find_version(ws: Workspace, task: str | None, name: str | int) -> ModelVersion:
    """The version called `name`: "task/2", "2" or its id.

    Raises:
        NotFound: there is none; the message names the nearest.
    """
    task = ws.task_name(task)
    with ws.store.read() as conn:
        return named(conn, task, name)


def named(conn: "Connection", task: str, name: str | int) -> ModelVersion:
    """`find_version` in the caller's transaction."""
    known = versions.listing(conn, task)
    wanted = str(name).strip()
    for version in known:
        if wanted in (version.id, version.name, str(version.number)):
            return version
    if not known:
        raise NotFound("the task has no model version", value=wanted, next_step="Make one first: headrace train")
    raise NotFound("no such model version", value=wanted, next_step=nearest(wanted, [v.name for v in known]))


def version_names(ws: Workspace) -> dict[str, str]:
    """Id to name, of the versions of all tasks."""
    with ws.store.read() as conn:
        return versions.names(conn)


def ensure_control(ws: Workspace, task: str | None = None, *, actor: str = "cli") -> ModelVersion:
    """The version in charge of the task; where none ever was, the newest one takes charge, with a ledger line.

    Raises:
        WrongState: the task has no version.
    """
    task = ws.task_name(task)
    with ledger.writing(ws) as conn:
        version_id = lines.control_id(conn, task)
        known = versions.listing(conn, task)
        if version_id is not None:
            return next(version for version in known if version.id == version_id)
        if not known:
            raise WrongState("the task has no model version", value=task, next_step="Make one first: headrace train")
        ledger.append(ws, conn, "promote", task=task, version_id=known[-1].id, reason=FIRST, actor=actor)
        return known[-1]


def would_change(conn: "Connection", task: str, channel: str | None, version_id: str) -> bool:
    """Whether putting a version in charge of a channel, or of the whole task, would change who answers anywhere."""
    if channel is not None:
        return lines.control_id(conn, task, channel) != version_id
    in_charge = set(lines.controls(conn, task).values())
    return in_charge != {version_id}


def _tried_at(conn: "Connection", task: str, channel: str | None, at: datetime) -> dict[str, Any] | None:
    release = rows.open_at(conn, task, at)
    if release is None:
        return None
    left = left_of(conn, release, at=at)
    if channel is not None and left is not None and channel not in left:
        return None
    known = {version.id: version.name for version in versions.listing(conn, task)}
    moves = [e for e in lines.of_release(conn, release.id) if e.kind in ("start", "advance") and e.at <= at]
    weights = moves[-1].evidence.get("weights", {}) if moves else {}
    return {
        "release": release.id,
        "policy": release.policy,
        "channels": left,
        "versions": [known[version_id] for version_id in (release.candidate_id, *release.others)],
        "weights": weights,
    }


def _nobody(conn: "Connection", task: str) -> WrongState:
    step = "Put one in charge: headrace serve, or headrace release promote 1"
    return WrongState(
        "no version of the task is in charge yet",
        value=task,
        next_step=step if versions.listing(conn, task) else "Make one first: headrace train",
    )
