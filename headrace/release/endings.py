"""How a release ends: for the whole task at once, or for one channel after the other."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from headrace.errors import WrongState
from headrace.records import LedgerEntry, Release
from headrace.release import ledger
from headrace.store import ledger as lines
from headrace.store import releases as rows
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

ENDS = {"promote": "promoted", "reject": "rejected", "stop": "stopped"}
"""Kind of the line that ends a release, or its part in one channel, to the state it ends in."""


def left_of(conn: "Connection", release: Release, *, at: datetime | None = None) -> tuple[str, ...] | None:
    """Channels in which a release is not decided, now or at an instant; None: in none, and its scope is the task."""
    decided = {
        line.channel
        for line in lines.of_release(conn, release.id)
        if line.channel is not None and line.kind in ENDS and (at is None or line.at <= at)
    }
    if release.scope is None and not decided:
        return None
    return tuple(name for name in _scope_of(release) if name not in decided)


def is_about(conn: "Connection", release: Release, channel: str | None) -> bool:
    """Whether an open release is still to be decided in a channel, or anywhere."""
    left = left_of(conn, release)
    return channel is None or left is None or channel in left


def still_open(conn: "Connection", release: Release) -> Release:
    """A release as it is now.

    Raises:
        WrongState: it is closed, by an earlier or a faster decision.
    """
    found = rows.find(conn, release.id)
    if found is not None and found.state == "open":
        return found
    raise WrongState(
        f"the release is {'unknown' if found is None else found.state}, not open",
        value=release.id,
        next_step="`headrace history` shows what was decided",
    )


def settle(
    ws: Workspace,
    conn: "Connection",
    release: Release,
    kind: str,
    reason: str,
    actor: str,
    *,
    channels: Sequence[str] | None = None,
    evidence: Mapping[str, Any] | None = None,
    version_id: str | None = None,
) -> list[LedgerEntry]:
    """End an open release, in the caller's transaction, and write its last lines.

    Args:
        channels: end it in these only; None: in all that are left.
        version_id: what is promoted; None: the candidate.

    Raises:
        WrongState: it is not open, or not in one of the channels.
    """
    left = left_of(conn, still_open(conn, release))
    names = _scope_of(release) if left is None else left
    about: Sequence[str | None] = [None] if left is None and channels is None else channels or names
    for name in about:
        if name is not None and name not in names:
            raise WrongState(
                "the release is not open in this channel", value=name, next_step="`headrace release status` shows where"
            )
    written = [
        ledger.append(
            ws,
            conn,
            kind,
            task=release.task,
            version_id=version_id or release.candidate_id,
            release_id=release.id,
            reason=reason,
            evidence=_part(evidence or {}, name),
            actor=actor,
            channel=name,
        )
        for name in about
    ]
    if set(about) in ({None}, set(names)):
        kinds = {line.kind for line in lines.of_release(conn, release.id) if line.kind in ENDS}
        rows.close(conn, release.id, state=ENDS[kind] if len(kinds) == 1 else "mixed", ended_at=ws.clock())
    return written


def _scope_of(release: Release) -> tuple[str, ...]:
    """Names of the channels that a release is about."""
    return tuple(release.options.get("channels", ())) if release.scope is None else release.scope


def _part(evidence: Mapping[str, Any], channel: str | None) -> dict[str, Any]:
    """The evidence for what is decided in one channel: without the figures of the others."""
    by_channel = evidence.get("channels")
    if channel is None or not isinstance(by_channel, Mapping) or channel not in by_channel:
        return dict(evidence)
    return {**evidence, "channels": {channel: by_channel[channel]}}
