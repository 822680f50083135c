"""The database by itself, before any code of ours writes to it: can it be read, is it sound, who wrote it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from headrace.config import StoreTable
from headrace.doctor.finding import Finding, error, note, of_error, warning
from headrace.errors import HeadraceError
from headrace.store import at_rest
from headrace.store.backups import faults_in
from headrace.store.migrations import NEWEST
from headrace.workspace import STATE_FOLDER

_PART = "database"
_LONG_LOG_BYTES = 80 << 20  # more than writers let it become even while a backup follows
_SOUND_SQLITE = (3, 51, 3)
_RESTORE = "Restore it: headrace restore BACKUP FOLDER"


def look(root: Path, store: StoreTable) -> Iterator[Finding]:
    """Of SQLite; what there is to say of other databases shows when the workspace is opened."""
    url = store.url
    if url and not url.startswith("sqlite"):
        return
    path = Path(url.partition(":///")[2]) if url else root / STATE_FOLDER / "headrace.db"
    if sqlite3.sqlite_version_info < _SOUND_SQLITE:
        yield note(
            _PART,
            "this SQLite can damage a log that two programs write at once; headrace takes turns, others may not",
            sqlite3.sqlite_version,
            "Open the database with other programs for reading only, or install a Python with SQLite 3.51.3",
        )
    if not path.exists():
        yield warning(_PART, "there is no database yet", path, "Run: headrace channel add NAME")
        return
    yield from _content(path, store.key_file)
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size > _LONG_LOG_BYTES:
        yield warning(
            "log",
            "the database's log is long: something has been reading for long, and keeps it from being taken in",
            f"{log}, {log.stat().st_size >> 20} MiB",
            "Find what reads the database, such as an open sqlite3 shell, and end it",
        )


def _content(path: Path, key_file: str) -> Iterator[Finding]:
    try:
        with closing(at_rest.connect(f"file:{quote(str(path))}?mode=ro", key_file, uri=True)) as conn:
            faults = faults_in(conn)
            (revision,) = conn.execute("SELECT version_num FROM alembic_version").fetchone() or (None,)
    except HeadraceError as fault:  # of its key
        yield of_error(_PART, fault)
        return
    except at_rest.errors() as fault:
        if key_file:
            yield of_error(_PART, at_rest.unreadable(path, key_file))
        else:
            problem = f"the database is damaged, encrypted, or none of headrace: {fault}"
            yield error(_PART, problem, path, f"Set store.key_file if it is encrypted. {_RESTORE}")
        return
    for one in faults:
        yield error(_PART, f"the database is damaged: {one}", path, _RESTORE)
    if revision is not None and revision > NEWEST:
        problem = "the database was written by a newer headrace"
        yield error(_PART, problem, f"{revision}, this code knows {NEWEST}", "Run: pip install -U headrace")
    elif revision is not None and revision < NEWEST:
        problem = "the database is of an older headrace, and is brought up to date by whatever opens it next"
        yield warning(_PART, problem, f"{revision}, not {NEWEST}", "Run with the old one first: headrace backup FOLDER")
