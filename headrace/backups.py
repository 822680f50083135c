"""Copies of a workspace that can take its place: made while a server writes, checked before they replace anything.

    backup    database at one moment + artifacts + old predictions + settings -> a folder, its manifest written last
    restore   every byte checked -> a new folder -> newer erasures applied -> renamed into place, the old one put aside

A backup is a folder of plain files. `headrace-backup.json` lists each with its size and SHA-256. Caches, logs and the
key that signs receipts are not in it. Not for PostgreSQL, which has its own means.
"""

import json
import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace import auditing, retention
from headrace.artifacts import file_hash, sync
from headrace.config_sources import FILE_NAME
from headrace.errors import AlreadyExists, Damaged, NotFound, Unusable, WrongState
from headrace.lineage import erasing, receipts, tombstones
from headrace.lineage.tombstones import Tombstone
from headrace.store import backups as rows
from headrace.version import VERSION
from headrace.workspace import STATE_FOLDER, Workspace, open_workspace

MANIFEST = "headrace-backup.json"
DATABASE = "headrace.db"
ARTIFACTS = "artifacts"
_FORM = 1
_PATIENCE_S = 60
_ELSEWHERE = {"store.url": "", "artifacts.url": ""}
"""Settings under which a restored workspace reads its own files, wherever those of its origin are."""


@dataclass(frozen=True)
class Backup:
    """What a backup holds."""

    path: str
    n_files: int
    n_bytes: int
    ledger: str
    """Hash of the newest line of the ledger; empty where there is none."""
    missing: list[str]
    """Digests of artifacts that the workspace itself did not have."""
    seconds: float


@dataclass(frozen=True)
class Restored:
    """What a restore did."""

    path: str
    n_files: int
    n_bytes: int
    made_at: str
    """When the backup was made."""
    erased_again: list[str]
    """Ids of erasures newer than the backup."""
    put_aside: str | None
    """Where the workspace is that was there before."""
    settings_to_change: list[str]
    """Settings of headrace.toml that name other places than the restored files."""
    seconds: float


def backup(ws: Workspace, destination: Path | str) -> Backup:
    """Copy a workspace into a new folder, while others read and write it.

    Raises:
        AlreadyExists: something is there.
        WrongState: the database is no SQLite file; the message says what to run instead.
        Damaged: an artifact, or the copy of the database, is not sound.
        Unusable: the folder cannot be written.
    """
    began, to = time.monotonic(), _plain(destination)
    if to.exists():
        raise AlreadyExists("something is there already", value=str(to), next_step="Choose another folder")
    with _unfinished(to) as folder:
        with retention.only_one(ws, wait_s=_PATIENCE_S):  # so that no prediction is in neither of the two
            ws.store.copy_to(folder / DATABASE)
            _copy_tree(ws.state_folder / retention.FOLDER, folder / retention.FOLDER)
        with closing(sqlite3.connect(folder / DATABASE)) as copy:
            _check_sound(copy, folder / DATABASE)
            digests, head, anchor = rows.artifacts_in(copy), rows.ledger_head(copy), rows.audit_anchor(copy)
        missing = [digest for digest in digests if not _copied(ws, digest, folder)]
        _copy_settings(ws, folder)
        files = _listed(folder)
        facts = {"form": _FORM, "made_at": ws.clock().isoformat(), "headrace": VERSION, "ledger": head, "files": files}
        facts["audit_log"] = anchor
        _write_json(folder / MANIFEST, {**facts, "missing": missing})
        _sync_tree(folder)
        os.rename(folder, to)
    sync(to.parent)
    n_bytes = sum(one["n_bytes"] for one in files.values())
    return Backup(str(to), len(files), n_bytes, head, missing, round(time.monotonic() - began, 2))


def restore(
    source: Path | str, destination: Path | str, *, replace: bool = False, erasures: Path | str | None = None
) -> Restored:
    """Make a workspace of a backup, without what was erased since.

    Args:
        replace: take the place of a workspace that is there; that one is put aside, not deleted. Its erasures are
            applied, too.
        erasures: an erasures.jsonl of the same workspace that is newer than the backup, its key in `keys` beside it.

    Raises:
        NotFound: no backup there; or a key of the erasures is missing.
        Damaged: a file of the backup is missing, added or changed.
        AlreadyExists: the destination is there and `replace` was not said.
        WrongState: a server answers from the destination.
        Unusable: the destination cannot be written.
    """
    began, backup_, to = time.monotonic(), _plain(source), _plain(destination)
    manifest = verify(backup_)
    _check_place(to, replace=replace)
    newer, folders = _newer(backup_, to, None if erasures is None else _plain(erasures))
    with _unfinished(to) as folder:
        _lay_out(backup_, folder, to, manifest["files"])
        with open_workspace(folder, overrides=_ELSEWHERE) as ws:
            again = erasing.apply(ws, newer, [ws.state_folder, *folders])
            with ws.store.write() as conn:
                restored = {"made_at": manifest["made_at"], "n_erased_again": len(again)}
                auditing.note(ws, conn, "restore", to.name, facts=restored)
        with open_workspace(folder) as ws:
            named = [f"{one.key} = {one.value}" for one in ws.shown if one.key in _ELSEWHERE and one.value]
        _sync_tree(folder)
        aside = _put_aside(to)
        os.rename(folder, to)
    sync(to.parent)
    return Restored(
        path=str(to),
        n_files=len(manifest["files"]),
        n_bytes=sum(one["n_bytes"] for one in manifest["files"].values()),
        made_at=manifest["made_at"],
        erased_again=[one.id for one in again],
        put_aside=aside,
        settings_to_change=named,
        seconds=round(time.monotonic() - began, 2),
    )


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a backup, every byte of which was checked.

    Raises:
        NotFound: there is no backup.
        Damaged: a file is missing, added or changed, or the database is not sound.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))
        listed = manifest["files"]
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound("no backup there", value=str(folder), next_step=f"It is a folder with {MANIFEST}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(f"the backup's manifest cannot be read: {error}", folder / MANIFEST) from None
    found = _listed(folder)
    for name in sorted(listed.keys() | found.keys()):
        if listed.get(name) != found.get(name):
            raise _damaged("a file of the backup is not as it was written", folder / name)
    with closing(sqlite3.connect(f"file:{folder / DATABASE}?mode=ro&immutable=1", uri=True)) as copy:
        _check_sound(copy, folder / DATABASE)
    return manifest


def _plain(path: Path | str) -> Path:
    return Path(os.path.abspath(path))


def _damaged(problem: str, path: Path) -> Damaged:
    return Damaged(problem, value=str(path), next_step="Use another backup; nothing was changed")


def _check_sound(conn: sqlite3.Connection, path: Path) -> None:
    faults = rows.faults_in(conn)
    if faults:
        raise _damaged(f"the database of the backup is not sound ({faults[0]})", path)


@contextmanager
def _unfinished(to: Path) -> Iterator[Path]:
    """A folder beside the destination, gone unless it was renamed."""
    folder = to.with_name(f".{to.name}.{uuid.uuid4().hex}.unfinished")
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        yield folder
    except (OSError, shutil.Error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unusable(
            f"the folder cannot be written: {reason}", value=str(to), next_step="Check its disk and rights"
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copied(ws: Workspace, digest: str, folder: Path) -> bool:
    """Copy an artifact as it is, every byte checked; whether the workspace has it."""
    try:
        source = ws.artifacts.get(digest)
    except NotFound:
        return False
    shutil.copytree(source, folder / ARTIFACTS / _place(digest))
    return True


def _place(digest: str) -> Path:
    name = digest.removeprefix("sha256:")
    return Path(name[:2]) / name


def _copy_settings(ws: Workspace, folder: Path) -> None:
    shutil.copy2(ws.root / FILE_NAME, folder / FILE_NAME)
    for task in ws.settings.tasks.values():
        if task.catalogue:
            (folder / "root" / task.catalogue).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ws.root / task.catalogue, folder / "root" / task.catalogue)
    tombstones.key_of(ws.state_folder)  # of erasures to come, which this backup will be freed of
    for name in (tombstones.FILE, *_public_keys(ws.state_folder), f"{tombstones.KEYS}/{tombstones.KEY_FILE}"):
        if (ws.state_folder / name).exists():
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy2(ws.state_folder / name, folder / name)
    _copy_tree(ws.state_folder / receipts.FOLDER, folder / receipts.FOLDER)


def _public_keys(state: Path) -> list[str]:
    return [f"{tombstones.KEYS}/{path.name}" for path in sorted((state / tombstones.KEYS).glob("*.pub"))]


def _copy_tree(source: Path, to: Path) -> None:
    if source.exists():
        shutil.copytree(source, to)


def _listed(folder: Path) -> dict[str, dict[str, Any]]:
    """Every file below a folder but the manifest, with size and hash."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {
        path.relative_to(folder).as_posix(): {"n_bytes": path.stat().st_size, "sha256": file_hash(path)}
        for path in files
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", "utf-8")


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def _check_place(to: Path, *, replace: bool) -> None:
    if to.exists() and not replace:
        raise AlreadyExists(
            "something is there already", value=str(to), next_step="Choose another folder, or say --replace"
        )
    if not to.exists() or not any(to.iterdir()):
        return
    if not (to / FILE_NAME).exists():
        raise AlreadyExists("what is there is no workspace", value=str(to), next_step="Choose another folder")
    pid = _server_pid(to)
    if pid is not None:
        raise WrongState(
            "a server answers from this workspace", value=f"process {pid}", next_step="Stop it, then restore again"
        )


def _server_pid(root: Path) -> int | None:
    """The process that serves a workspace, if it lives."""
    import psutil

    try:
        pid = int(json.loads((root / STATE_FOLDER / "server.json").read_text("utf-8"))["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return pid if psutil.pid_exists(pid) else None


def _newer(source: Path, to: Path, given: Path | None) -> tuple[list[Tombstone], list[Path]]:
    """Every erasure that is known of the workspace, by id, and the folders that may hold the keys."""
    if given is not None and not given.exists():
        raise NotFound(
            "no such file of erasures", value=str(given), next_step=f"It is {STATE_FOLDER}/{tombstones.FILE}"
        )
    paths = [source / tombstones.FILE, to / STATE_FOLDER / tombstones.FILE, *([] if given is None else [given])]
    found = {one.id: one for path in paths for one in tombstones.read(path)}
    return [found[name] for name in sorted(found)], [path.parent for path in paths]


def _lay_out(source: Path, folder: Path, to: Path, files: dict[str, Any]) -> None:
    """The files of a backup where a workspace has them, with the keys and receipts of the one that is replaced."""
    for name in (tombstones.KEYS, receipts.FOLDER):
        _copy_tree(to / STATE_FOLDER / name, folder / STATE_FOLDER / name)
    for name in files:
        inside = Path(name)
        if name == FILE_NAME or inside.parts[0] == "root":
            target = folder / (inside if name == FILE_NAME else Path(*inside.parts[1:]))
        else:
            target = folder / STATE_FOLDER / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy2(source / name, target)
    (folder / STATE_FOLDER / ".gitignore").write_text("*\n", "utf-8")


def _put_aside(to: Path) -> str | None:
    """Rename what is there; to what."""
    if not to.exists():
        return None
    if not any(to.iterdir()):
        to.rmdir()
        return None
    aside = to.with_name(f"{to.name}.before-{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:4]}")
    os.rename(to, aside)
    return str(aside)
