"""A backup of one moment: a folder of plain files. `headrace-backup.json` lists each with its size and SHA-256."""

import glob
import json
import os
import shutil
import sqlite3
import stat
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from headrace import auditing, retention
from headrace.access.keys import PEPPER
from headrace.artifacts import file_hash, sync
from headrace.backups import sealed
from headrace.config_sources import FILE_NAME
from headrace.errors import AlreadyExists, BadInput, NotFound, Unusable
from headrace.files import names
from headrace.lineage import receipts, tombstones
from headrace.personal import secret
from headrace.release import ledger
from headrace.store import at_rest
from headrace.store import backups as rows
from headrace.version import VERSION
from headrace.workspace import Workspace

MANIFEST = "headrace-backup.json"
DATABASE = "headrace.db"
ARTIFACTS = "artifacts"
FORM = 2
_PLACE = "backup.json"
"""In the state folder."""
_LOCK = "lock"
"""In the folder that a backup or a restore works in: held for as long as its process lives."""
_PATIENCE_S = 60


@dataclass(frozen=True)
class Backup:
    """What a backup holds."""

    path: str
    n_files: int
    n_bytes: int
    ledger: str
    """Hash of the newest line of the ledger; empty where there is none."""
    audit_log: str
    """Number and hash of the newest line of the audit log, for `audit verify`; empty where there is none."""
    missing: list[str]
    """Digests of artifacts that the workspace itself did not have."""
    seconds: float


def backup(ws: Workspace, destination: Path | str) -> Backup:
    """Copy a workspace into a new folder, while others read and write it.

    Raises:
        AlreadyExists: something is there.
        BadInput: the folder is inside of the workspace.
        WrongState: the database is no SQLite file; the message says what to run instead.
        Damaged: an artifact, or the copy of the database, is not sound.
        Unusable: the folder cannot be written.
    """
    began, to = time.monotonic(), plain(destination)
    check_outside(to, ws)
    if to.exists():
        raise AlreadyExists("something is there already", value=str(to), next_step="Choose another folder")
    with unfinished(to) as room:
        folder = room / "backup"
        folder.mkdir(mode=0o700)
        made_at, chains = ws.clock().isoformat(), chains_of(ws)
        with retention.only_one(ws, wait_s=_PATIENCE_S):  # so that no prediction is in neither of the two
            ws.store.copy_to(folder / DATABASE)
            _copy_files(ws, folder)
        with closing(at_rest.connect(folder / DATABASE, ws.settings.store.key_file)) as copy:
            check_sound(copy, folder / DATABASE)
            digests, head, anchor = rows.artifacts_in(copy), rows.ledger_head(copy), rows.audit_anchor(copy)
        missing = [digest for digest in digests if not _copied(ws, digest, folder)]
        files = listed(folder)
        facts = {"form": FORM, "made_at": made_at, "headrace": VERSION, "ledger": head, "audit_log": anchor}
        sealed.write(folder / MANIFEST, {**facts, "chains": chains, "files": files, "missing": missing})
        sync_tree(folder)
        os.rename(folder, to)
    sync(to.parent)
    note_place(ws, to)
    n_bytes = sum(one["n_bytes"] for one in files.values())
    return Backup(str(to), len(files), n_bytes, head, anchor, missing, round(time.monotonic() - began, 2))


def note_place(ws: Workspace, to: Path) -> None:
    """Remember where the newest backup is."""
    draft = ws.state_folder / f"{_PLACE}.{os.getpid()}"
    draft.write_text(json.dumps({"path": str(to)}) + "\n", "utf-8")
    os.replace(draft, ws.state_folder / _PLACE)


def last(ws: Workspace) -> Path | None:
    """Where the newest backup was made, or is being made by one that follows; None: there never was one."""
    try:
        return Path(json.loads((ws.state_folder / _PLACE).read_text("utf-8"))["path"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def kept_files(ws: Workspace) -> dict[str, Path]:
    """Files of a workspace that backups hold beside database and artifacts, by their names in there."""
    state = ws.state_folder
    tombstones.key_of(state)  # of erasures to come, which this backup will be freed of
    found = {FILE_NAME: ws.root / FILE_NAME, tombstones.FILE: state / tombstones.FILE}
    found[PEPPER] = state / PEPPER
    for task in ws.settings.tasks.values():
        path = Path(os.path.normpath(ws.root / task.catalogue))
        if task.catalogue and path.is_relative_to(ws.root):  # another place is no part of the workspace
            found[f"root/{path.relative_to(ws.root).as_posix()}"] = path
    keys = [
        *(state / tombstones.KEYS).glob("*.pub"),
        state / tombstones.KEYS / tombstones.KEY_FILE,
        state / secret.FILE,
    ]
    kept = [path for name in (receipts.FOLDER, retention.FOLDER) for path in (state / name).rglob("*")]
    found |= {path.relative_to(state).as_posix(): path for path in [*keys, *kept] if path.suffix != ".draft"}
    return {name: found[name] for name in sorted(found) if found[name].is_file()}


def chains_of(ws: Workspace) -> dict[str, int | None]:
    """Number of the first line of the ledger and of the audit log that is not as it was written; None: all are."""
    return {"ledger": ledger.verify(ws)["first_broken"], "audit_log": auditing.verify(ws)["first_broken"]}


def plain(path: Path | str) -> Path:
    return Path(os.path.abspath(path))


def check_outside(to: Path, ws: Workspace) -> None:
    """
    Raises:
        BadInput: the folder is inside of the workspace.
    """
    if to.resolve().is_relative_to(ws.root.resolve()):
        raise BadInput("a backup inside of what it is a backup of", value=str(to), next_step="Choose another folder")


def check_plain(folder: Path) -> None:
    """
    Raises:
        Damaged: something in a backup is neither a file nor a folder, such as a link.
    """
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            with suppress(FileNotFoundError):  # one that follows deletes what it does not need any more
                mode = path.lstat().st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    raise sealed.damaged("something in the backup is neither a file nor a folder", path)


def check_names(found: Iterable[str], folder: Path) -> None:
    """
    Raises:
        Damaged: by one of these names a file of a backup would be written elsewhere than into the workspace.
    """
    for name in found:
        names.inside(folder, name)


def check_sound(conn: sqlite3.Connection, path: Path) -> None:
    """
    Raises:
        Damaged: the database is not sound.
    """
    faults = rows.faults_in(conn)
    if faults:
        raise sealed.damaged(f"the database of the backup is not sound ({faults[0]})", path)


@contextmanager
def unfinished(to: Path) -> Iterator[Path]:
    """A folder beside the destination to work in, gone at the end; those of processes that were killed go before."""
    for lock in to.parent.glob(f".{glob.escape(to.name)}.{'[0-9a-f]' * 32}.unfinished/{_LOCK}"):
        with suppress(Timeout), FileLock(lock, timeout=0):
            shutil.rmtree(lock.parent, ignore_errors=True)
    room = to.with_name(f".{to.name}.{uuid.uuid4().hex}.unfinished")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        room.mkdir(mode=0o700)
        with FileLock(room / _LOCK):
            yield room
    except (OSError, shutil.Error) as error:
        raise unwritable(error, to) from None
    finally:
        shutil.rmtree(room, ignore_errors=True)


def unwritable(error: Exception, to: Path) -> Unusable:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return Unusable(f"the folder cannot be written: {reason}", value=str(to), next_step="Check its disk and rights")


def listed(folder: Path) -> dict[str, dict[str, Any]]:
    """Every file below a folder but the manifest, with size and hash."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {path.relative_to(folder).as_posix(): entry_of(path) for path in files}


def entry_of(path: Path) -> dict[str, Any]:
    return {"n_bytes": path.stat().st_size, "sha256": file_hash(path)}


def place_of(digest: str) -> str:
    """Where an artifact is in a backup."""
    name = digest.removeprefix("sha256:")
    return f"{ARTIFACTS}/{name[:2]}/{name}"


def sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def _copied(ws: Workspace, digest: str, folder: Path) -> bool:
    """Copy an artifact as it is, every byte checked; whether the workspace has it."""
    try:
        source = ws.artifacts.get(digest)
    except NotFound:
        return False
    shutil.copytree(source, folder / place_of(digest))
    return True


def _copy_files(ws: Workspace, folder: Path) -> None:
    for name, path in kept_files(ws).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, folder / name)
