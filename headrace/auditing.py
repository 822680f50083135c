"""The audit log: who changed who answers, what is trusted, what is kept and who may ask.

    key.create  key.rotate  key.revoke      channel.add  import  label.import  known.add  known.retire
    release.start  release.advance  release.promote  release.rollback  release.reject  release.stop
    trust.suspend  trust.lift               erase  restore  serve (with other settings)  refused

A line is written in the transaction of what it is about: neither is there without the other. It is never changed, so it
holds no personal data: ids, names of channels and tasks, counts, and hashes of what was there before and after. Lines
are in the order of their numbers; their times are what the clock said.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from headrace.errors import BadInput
from headrace.store import audit_log
from headrace.store.audit_log import AuditLine
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_MAX_CHARS = 200  # width of the columns


def note(
    ws: Workspace,
    conn: "Connection",
    action: str,
    object: str,
    *,
    before: object = None,
    after: object = None,
    facts: Mapping[str, Any] | None = None,
    actor: str | None = None,
    request_id: str | None = None,
) -> AuditLine:
    """Write one line, in the write transaction of what it is about, after what that reads and writes.

    Args:
        action: a noun and a verb, such as `key.create`.
        object: id or name of what it is about.
        before, after: JSON values, of which the hash is kept.
        facts: JSON values; nothing personal, and no secret.
        actor: default `ws.actor`.
    """
    content = {
        "actor": (actor or ws.actor)[:_MAX_CHARS],
        "action": action,
        "object": object[:_MAX_CHARS],
        "before_hash": _hash(before),
        "after_hash": _hash(after),
        "request_id": request_id,
        "facts": dict(facts or {}),
        "at": ws.clock(),
    }
    return audit_log.append(conn, content, config_hash=ws.config_hash)


def listing(
    ws: Workspace,
    *,
    action: str | None = None,
    actor: str | None = None,
    since: int = 0,
    limit: int | None = None,
) -> list[AuditLine]:
    """Lines with a number above `since`, oldest first.

    Args:
        limit: of them, the last so many.
    """
    with ws.store.read() as conn:
        return audit_log.listing(conn, action=action, actor=actor, since=since, limit=limit)


def verify(ws: Workspace, anchors: Iterable[str] = ()) -> dict[str, Any]:
    """Read every line and compute its hash again.

    Args:
        anchors: `NUMBER:HASH` of lines, noted somewhere else: backups have one in their manifest. Without any, lines
            cut off at the end leave a sound log behind.

    Returns:
        n_lines, first_broken (number of the first line that is changed, missing or in another place; None where there
        is none), problem, and anchor: of the newest line, to be noted somewhere else.

    Raises:
        BadInput: an anchor is none.
    """
    noted = [_anchor(text) for text in anchors]
    with ws.store.read() as conn:
        found = audit_log.check(conn, noted)
    anchor = f"{found.n_lines}:{found.head}" if found.n_lines else ""
    return {"n_lines": found.n_lines, "first_broken": found.first_broken, "problem": found.problem, "anchor": anchor}


def head(ws: Workspace) -> tuple[int, str]:
    """Number and hash of the newest line; 0 and nothing where there is none."""
    with ws.store.read() as conn:
        return audit_log.head(conn)


def note_settings(ws: Workspace) -> AuditLine | None:
    """Note that a server starts, if its settings are not those of the last one that did.

    Of the settings that are no defaults only the names are kept: a URL may hold a password.
    """
    with ws.store.write() as conn:
        last = audit_log.newest(conn, "serve")
        if last is not None and last.config_hash == ws.config_hash:
            return None
        names = sorted(one.key for one in ws.shown if one.source != "default")
        before = None if last is None else last.config_hash
        return note(ws, conn, "serve", ws.root.name, before=before, after=ws.config_hash, facts={"settings": names})


def _anchor(text: str) -> tuple[int, str]:
    number, _, digest = text.partition(":")
    if not (re.fullmatch("[1-9][0-9]{0,17}", number) and digest):
        raise BadInput("an anchor is NUMBER:HASH", value=text, next_step="`headrace audit verify` prints one")
    return int(number), digest


def _hash(value: object) -> str | None:
    """64 hex digits over the canonical JSON of a value; None of None."""
    if value is None:
        return None
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
