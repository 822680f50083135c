"""Files of a workspace: artifacts, secrets, and whether there is a backup of it all."""

import stat
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from headrace import backups
from headrace.doctor.finding import Finding, error, note, warning
from headrace.errors import Damaged, HeadraceError, NotFound
from headrace.store import backups as rows
from headrace.store import lineage, versions, wal
from headrace.workspace import Workspace

_OLD = timedelta(days=1)
_BEHIND = timedelta(minutes=1)
_SECRETS = ("keys/*", "pepper", "*.key", "*.pem")
"""In the state folder; public keys, which end in .pub, are none."""


def artifacts(ws: Workspace) -> Iterator[Finding]:
    """Every byte of every artifact."""
    with ws.store.read() as conn:
        raw: Any = conn.connection.driver_connection
        needed, known = rows.artifacts_in(raw), lineage.artifacts(conn)
        users: dict[str, list[str]] = {}
        for task in sorted(ws.settings.tasks):
            for version in versions.listing(conn, task):
                for digest in (version.artifact, version.checkpoint):
                    users.setdefault(digest, []).append(version.name)
    for digest in needed:
        used = f" of {', '.join(users[digest])}" if digest in users else ""
        try:
            ws.artifacts.get(digest)
        except NotFound:
            advice = "Bring it back from a backup: headrace restore BACKUP FOLDER"
            yield (error if used else warning)("artifacts", f"an artifact{used} is missing", digest, advice)
        except Damaged as fault:
            yield error("artifacts", f"an artifact{used} is damaged: {fault.problem}", digest, fault.next_step)
    orphans = sorted(set(ws.artifacts.digests()) - known)
    if orphans:
        told = f"{len(orphans)}, such as {orphans[0]}"
        yield note("artifacts", "artifacts that no row names take room", told, "They may be deleted by hand")


def secrets(ws: Workspace) -> Iterator[Finding]:
    """May anybody else read them?"""
    found = [path for pattern in _SECRETS for path in ws.state_folder.glob(pattern)]
    for path in sorted(set(found)):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_file() and path.suffix != ".pub" and mode & 0o077:
            told = f"{path}, {mode:o}"
            yield error("secrets", "others on this machine may read a secret", told, f"Run: chmod 600 '{path}'")


def backup(ws: Workspace) -> Iterator[Finding]:
    """Is there one, is it new, and does the one that follows keep up?"""
    if ws.settings.store.url and not ws.settings.store.url.startswith("sqlite"):
        return  # which has means of its own
    place = backups.last(ws)
    if place is None:
        advice = "Make one: headrace backup FOLDER, or one that follows: headrace backup --follow FOLDER"
        yield warning("backups", "there is no backup of this workspace", None, advice)
        return
    try:
        at = backups.newest_at(place)
    except HeadraceError as fault:
        advice = "Make another: headrace backup FOLDER"
        yield warning("backups", f"the newest backup is not there any more: {fault.problem}", place, advice)
        return
    age = ws.clock() - at
    if wal.is_followed(ws.state_folder / "follow.lock") and age > _BEHIND:
        advice = "Look at its disk, then start it again: headrace backup --follow FOLDER"
        yield error("backups", "the backup that follows does not keep up", f"{place}, {_told(at)}", advice)
    elif age > _OLD:
        yield warning("backups", "the newest backup is old", f"{place}, {_told(at)}", "Run: headrace backup FOLDER")


def _told(at: datetime) -> str:
    return f"as of {at:%Y-%m-%d %H:%M:%S} UTC"
