"""Going back: one line of the ledger puts an earlier version in charge again, of the whole task or of a channel."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.errors import WrongState
from headrace.records import LedgerEntry
from headrace.release import controls, endings, ledger
from headrace.store import ledger as lines
from headrace.store import releases as rows
from headrace.store.channels import check_channel
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection


def rollback(
    ws: Workspace,
    *,
    to: str | None = None,
    task: str | None = None,
    channel: str | None = None,
    reason: str = "by hand",
    evidence: Mapping[str, Any] | None = None,
    actor: str = "cli",
) -> LedgerEntry:
    """Put the version in charge that was so before, or a named one that once was.

    An open release is stopped; with `channel`, only in that channel where the release is about named channels. Rolling
    back twice goes two versions back, not back and forth. Where channels have been given a newer version than the rest
    of the task, the whole task goes back to the version of the rest.

    Args:
        channel: the others stay as they are; None: one version for the whole task, whatever channels had of their own.

    Raises:
        WrongState: none was in charge before, or the named one never was or is.
        NotFound: no such version or channel.
    """
    task = ws.task_name(task)
    with ledger.writing(ws) as conn:
        check_channel(conn, channel)
        past = lines.changes(conn, task, channel)
        target = _before(conn, task, channel, past) if to is None else controls.named(conn, task, to).id
        if target is None:
            raise WrongState(
                "no version was in charge before this one",
                value=channel or task,
                next_step="`headrace history` shows who was",
            )
        if target not in {version_id for _, _, version_id in past} or not controls.would_change(
            conn, task, channel, target
        ):
            raise WrongState(
                "one can only go back to a version that was in charge before",
                value=to,
                next_step="`headrace history` shows who was; `headrace release promote` puts any version in charge",
            )
        running = rows.open_release(conn, task)
        if running is not None and endings.is_about(conn, running, channel):
            part = None if channel is None or running.scope is None else [channel]
            endings.settle(ws, conn, running, "stop", f"stopped by a rollback: {reason}", actor, channels=part)
        return ledger.append(
            ws,
            conn,
            "rollback",
            task=task,
            version_id=target,
            reason=reason,
            actor=actor,
            evidence=evidence,
            channel=channel,
        )


def _before(conn: "Connection", task: str, channel: str | None, past: list[tuple[int, str, str]]) -> str | None:
    """The version in charge before the current one: promotions pile up, a rollback takes off down to its target."""
    pile: list[str] = []
    for _, kind, version_id in past:
        if kind == "rollback" and version_id in pile:
            while pile[-1] != version_id:
                pile.pop()
        elif pile[-1:] != [version_id]:
            pile.append(version_id)
    if channel is None and pile and _is_ahead_somewhere(conn, task):
        return pile[-1]
    return pile[-2] if len(pile) > 1 else None


def _is_ahead_somewhere(conn: "Connection", task: str) -> bool:
    """Whether a channel was given another version than the whole task, other than by going back."""
    in_charge = lines.controls(conn, task)
    ahead = [name for name, version_id in in_charge.items() if name and version_id != in_charge[None]]
    return any(lines.entry(conn, lines.in_charge(conn, task, name) or 0).kind == "promote" for name in ahead)
