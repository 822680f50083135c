"""The ledger of every decision about who answers: written under a lock, never changed, checked by its hashes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from headrace import auditing
from headrace.ids import new_id
from headrace.records import LedgerEntry
from headrace.store import ledger as lines
from headrace.store.channels import check_channel
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


def history(ws: Workspace, task: str | None = None, *, channel: str | None = None) -> list[LedgerEntry]:
    """The ledger, oldest line first; of one task or of all.

    Args:
        channel: only lines about this channel, or about the whole task.

    Raises:
        NotFound: no such task or channel.
    """
    name = None if task is None else ws.task_name(task)
    with ws.store.read() as conn:
        check_channel(conn, channel)
        return lines.listing(conn, name, channel=channel)


def verify(ws: Workspace) -> dict[str, Any]:
    """Read every line and compute its hash again.

    Returns:
        n_lines, first_broken (number of the first line that is not as it was written, or missing; None where there is
        none), and head, the hash of the newest line. Lines cut off at the end leave a sound ledger behind: note the
        head somewhere else to see that.
    """
    with ws.store.read() as conn:
        found = lines.check(conn)
    return {"n_lines": found.n_lines, "first_broken": found.first_broken, "head": found.head}


@contextmanager
def writing(ws: Workspace) -> Iterator["Connection"]:
    """A write transaction in which nobody else appends: what it reads still holds when its own lines are written."""
    with ws.store.write() as conn:
        lines.lock(conn)
        yield conn


def append(
    ws: Workspace,
    conn: "Connection",
    kind: str,
    *,
    task: str,
    version_id: str,
    reason: str,
    actor: str,
    evidence: Mapping[str, Any] | None = None,
    release_id: str | None = None,
    channel: str | None = None,
) -> LedgerEntry:
    """Write one line, in a transaction of `writing`; also into the audit log, where it changes anything."""
    line = lines.append(
        conn,
        config_hash=ws.config_hash,
        channel=channel,
        id=new_id("ledger"),
        task=task,
        kind=kind,
        version_id=version_id,
        release_id=release_id,
        reason=reason,
        evidence=dict(evidence or {}),
        actor=actor,
        at=ws.clock(),
    )
    if kind != "hold":
        facts = {"task": task, "channel": channel, "version": version_id, "ledger": line.seq, "by": actor}
        auditing.note(ws, conn, f"release.{kind}", release_id or version_id, facts=facts)
    return line
