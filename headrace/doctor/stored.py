"""Files of a workspace: artifacts, secrets, signatures, and whether there is a backup of it all."""

import stat
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from headrace import backups, signing
from headrace.access import tls
from headrace.doctor.finding import Finding, error, note, warning
from headrace.errors import BadConfig, Damaged, HeadraceError, NotFound
from headrace.personal import mapping, secret
from headrace.secret_files import secrets_in
from headrace.store import backups as rows
from headrace.store import ledger, lineage, versions, wal
from headrace.workspace import Workspace

_OLD = timedelta(days=1)
_BEHIND = timedelta(minutes=1)
_ENDS_SOON = timedelta(days=14)


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
    """May anybody else read them, and are they there?"""
    sign, access = ws.settings.sign, ws.settings.access
    named = [ws.root / name for name in (sign.private_key, access.private_key, ws.settings.store.key_file) if name]
    own = secrets_in(ws.state_folder)
    for path in (*own, *(path for path in named if path.is_file() and path not in own)):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & (0o077 if path in own else 0o007):  # elsewhere a group may be meant to
            told = f"{path}, {mode:o}"
            yield error("secrets", "others on this machine may read a secret", told, f"Run: chmod 600 '{path}'")
    yield from _certificate(ws)
    if sign.private_key and not (ws.root / sign.private_key).exists():
        advice = "Bring it back, or make another and sign what is trusted: headrace sign key, headrace sign version"
        yield warning("secrets", "the key that signs is gone: nothing can be trained", sign.private_key, advice)
    yield from _lost_mapping(ws)


def _certificate(ws: Workspace) -> Iterator[Finding]:
    """Does it fit its key, and how long is it valid?"""
    try:
        ends_at = tls.ends_at(ws)
    except HeadraceError as fault:
        yield error("secrets", f"no server can start: {fault.problem}", fault.value, fault.next_step)
        return
    if ends_at is not None and ends_at - ws.clock() < _ENDS_SOON:
        told = f"{ws.settings.access.certificate}, {ends_at:%Y-%m-%d %H:%M} UTC"
        advice = "Renew it at the place of access.certificate, and start the server again"
        if ends_at < ws.clock():
            yield error("secrets", "the certificate has ended: clients refuse the server", told, advice)
        else:
            yield warning("secrets", "the certificate ends soon", told, advice)


def _lost_mapping(ws: Workspace) -> Iterator[Finding]:
    """Surrogates that stand for nothing any more, since a key is gone."""
    n_lost, n_people = mapping.lost(ws)
    if n_lost:
        told = f"{ws.state_folder / mapping.FILE}, of {n_lost} of {n_people} people"
        advice = "Bring the file back from the disk that has it, before more comes in; the next erasure drops the rest"
        yield error("secrets", "a key is gone, and with it what surrogates stand for", told, advice)
    path = ws.state_folder / secret.FILE
    if n_people and not path.exists():
        advice = "Bring the file back from the disk or backup that has it, before more comes in"
        yield error("secrets", "a key is gone, and with it that the same has the same surrogate", path, advice)


def signatures(ws: Workspace) -> Iterator[Finding]:
    """Would the versions in charge be loaded, by `sign.policy`? Where none ever was, the newest takes charge."""
    if ws.settings.sign.policy == "off":
        return
    for task in sorted(ws.settings.tasks):
        with ws.store.read() as conn:
            in_charge = set(ledger.controls(conn, task).values())
            known = versions.listing(conn, task)
        for version in [version for version in known if version.id in in_charge] or known[-1:]:
            with suppress(NotFound):  # `artifacts` says so
                try:
                    signing.verify(ws, version)
                except (Damaged, BadConfig) as fault:
                    problem = f"a version in charge is not loaded: {fault.problem}"
                    yield error("signatures", problem, fault.value, fault.next_step)


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
    if wal.is_followed(ws.state_folder / wal.LOCK) and age > _BEHIND:
        advice = "Look at its disk, then start it again: headrace backup --follow FOLDER"
        yield error("backups", "the backup that follows does not keep up", f"{place}, {_told(at)}", advice)
    elif age > _OLD:
        yield warning("backups", "the newest backup is old", f"{place}, {_told(at)}", "Run: headrace backup FOLDER")


def _told(at: datetime) -> str:
    return f"as of {at:%Y-%m-%d %H:%M:%S} UTC"
