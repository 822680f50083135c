"""Old rows of the prediction log leave the store for files by day, and the oldest files leave the disk.

A file is in one of three states, told by the end of its name; a kill at any moment leaves one of them:

    .draft    being written; not looked at, removed by the next run
    .moving   whole and on disk; its rows leave the store, and some may have left already
    (none)    its rows are in no store any more

So a row is in the store, in a file, or in both while that is `.moving`; `read` knows. What feedback refers to stays in
the store for ever, with both arms' answers to the same input, since labels and the evidence of releases rest on it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from headrace.errors import WrongState
from headrace.ids import first_id
from headrace.records import Prediction
from headrace.retention import files
from headrace.store import predictions
from headrace.store.noun import as_record
from headrace.workspace import Workspace

FOLDER = "predictions"
"""In the state folder: `task=NAME/day=YYYY-MM-DD/FIRST-LAST.parquet`."""
_MOVING = ".moving"
_FILE_ROWS = 20_000
_REMOVED_AT_ONCE = 500  # rows per transaction, so that a server's writes find gaps
_PATIENCE_S = 60
_SPARE_SHARE = 0.1  # of log_keep_rows: when there are too many rows, as many more move, so that files do not get small


@dataclass(frozen=True)
class Moved:
    """What a run did."""

    n_rows: int
    """Moved from the store to files."""
    n_files: int
    days_removed: tuple[str, ...]
    """Days of which files were deleted, because all together took more than serve.log_max_bytes."""


def move(ws: Workspace) -> Moved:
    """Move what is older than `serve.log_keep_days`, and the oldest of more than `serve.log_keep_rows`, to files.

    Days move whole. Rows of an open release move only when the number of rows asks for it.

    Raises:
        WrongState: another process is at it.
    """
    serve = ws.settings.serve
    with only_one(ws):
        _finish_begun(ws)
        before = midnight(ws.clock() - timedelta(days=serve.log_keep_days))
        lines = list(_moved(ws, before=before, spare_open=True, n_most=None))
        with ws.store.read() as conn:
            n_excess = predictions.count(conn) - serve.log_keep_rows
        if n_excess > 0:
            n_most = n_excess + int(_SPARE_SHARE * serve.log_keep_rows)
            lines += _moved(ws, before=None, spare_open=False, n_most=n_most)
        removed = _within(_folder(ws), serve.log_max_bytes)
    return Moved(n_rows=sum(lines), n_files=len(lines), days_removed=tuple(removed))


def read(
    ws: Workspace,
    *,
    task: str | None = None,
    channel: str | None = None,
    unit: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Iterator[Prediction]:
    """Every logged prediction, in files and in the store, each once; by day, then in the order they were made.

    This is where an erasure finds what is kept of somebody.

    Args:
        task, channel, unit: whose predictions; None: all.
        since, until: instants with a time zone; the end is not in it.

    Raises:
        WrongState: rows are being moved.
        NotFound: no such task.
    """
    name = None if task is None else ws.task_name(task)
    after = first_id("prediction", since) if since is not None else ""
    before = first_id("prediction", until) if until is not None else "~"
    with only_one(ws):
        _finish_begun(ws)
        for path in _files(_folder(ws), name, since, until):
            for row in files.read(path):
                if after <= row["id"] < before and _is_of(row, channel, unit):
                    yield as_record(Prediction, {**row, "task": _task_of(path)})
        with ws.store.read() as conn:
            for line in predictions.listing(conn, task=name, since=since, until=until):
                if _is_of(line, channel, unit):
                    yield as_record(Prediction, line)


def moved(ws: Workspace) -> Iterator[dict[str, Any]]:
    """Every row that has left the store for a file, with all columns but the task.

    Raises:
        WrongState: another process has been moving or reading rows for a minute.
    """
    with only_one(ws, wait_s=_PATIENCE_S):
        _finish_begun(ws)
        for path in _files(_folder(ws)):
            yield from files.read(path)


def newest_moved(ws: Workspace, task: str) -> str:
    """Id of the newest answer of a task that has left the store, or is leaving; empty: none has.

    The store holds all answers after it, and of those before it those alone that feedback came for.
    """
    found = _folder(ws).glob(f"task={task}/day=*/*-*")
    return max((path.name.split(".")[0].partition("-")[2] for path in found), default="")


def find(ws: Workspace, prediction_id: str) -> dict[str, Any] | None:
    """A prediction that is in a file, by its id: all columns, and the task."""
    for path in _files(_folder(ws)):
        first, _, last = path.name.partition(".")[0].partition("-")
        if first <= prediction_id <= last:
            found = next((row for row in files.read(path) if row["id"] == prediction_id), None)
            if found is not None:
                return {**found, "task": _task_of(path)}
    return None


def remove(ws: Workspace, is_doomed: Callable[[Mapping[str, Any]], bool], *, until: datetime | None = None) -> int:
    """Write files anew without the rows that are to go; how many went. Rows in the store stay.

    Args:
        until: no row made later is to go, so that files of later days need not be read.

    Raises:
        WrongState: another process has been moving or reading rows for a minute.
    """
    n_removed = 0
    with only_one(ws, wait_s=_PATIENCE_S):
        _finish_begun(ws)
        for path in _files(_folder(ws), until=until):
            rows = list(files.read(path))
            kept = [row for row in rows if not is_doomed(row)]
            if len(kept) < len(rows):
                _replace(path, kept)
                n_removed += len(rows) - len(kept)
    return n_removed


def _replace(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        files.write(path, rows)
        return
    path.unlink()
    if not any(path.parent.iterdir()):
        path.parent.rmdir()


def _is_of(row: Mapping[str, Any], channel: str | None, unit: str | None) -> bool:
    return channel in (None, row["channel"]) and unit in (None, row["unit"])


def _folder(ws: Workspace) -> Path:
    return ws.state_folder / FOLDER


@contextmanager
def only_one(ws: Workspace, *, wait_s: float = 0) -> Iterator[None]:
    """Keep others from moving rows or reading files meanwhile.

    Raises:
        WrongState: another process has been at it for `wait_s`.
    """
    lock = FileLock(ws.state_folder / "predictions.lock", thread_local=False)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise WrongState(
            "another process moves or reads old predictions", value=str(ws.root), next_step="Try again when it is done"
        ) from None
    try:
        yield
    finally:
        lock.release()


def midnight(at: datetime) -> datetime:
    """The begin of a day (UTC)."""
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _moved(ws: Workspace, *, before: datetime | None, spare_open: bool, n_most: int | None) -> Iterator[int]:
    """Move rows, oldest first; the number of rows of each file made."""
    after, n_left = "", n_most
    while n_left is None or n_left > 0:
        limit = _FILE_ROWS if n_left is None else min(_FILE_ROWS, n_left)
        with ws.store.read() as conn:
            rows = predictions.oldest_movable(conn, after=after, before=before, spare_open=spare_open, limit=limit)
        if not rows:
            return
        after = rows[-1]["id"]
        n_left = None if n_left is None else n_left - len(rows)
        for (task, day), some in groupby(sorted(rows, key=_place), key=_place):
            yield _move_rows(ws, task, day, list(some))


def _place(row: Mapping[str, Any]) -> tuple[str, str]:
    """Task and day of a row."""
    return row["task"], row["at"].astimezone(UTC).date().isoformat()


def _move_rows(ws: Workspace, task: str, day: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """Write rows to a file, then take them out of the store; how many went."""
    folder = _folder(ws) / f"task={task}" / f"day={day}"
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"{rows[0]['id']}-{rows[-1]['id']}{files.suffix()}"
    moving = final.with_name(final.name + _MOVING)
    files.write(moving, rows)
    return _finish(ws, moving, rows)


def _finish(ws: Workspace, moving: Path, rows: Sequence[Mapping[str, Any]]) -> int:
    """Take the rows of a whole file out of the store, those that feedback came for meanwhile out of the file."""
    ids = [row["id"] for row in rows]
    for start in range(0, len(ids), _REMOVED_AT_ONCE):
        with ws.store.write() as conn:
            predictions.remove(conn, ids[start : start + _REMOVED_AT_ONCE])
    with ws.store.read() as conn:
        staying = predictions.present(conn, ids)
    leaving = [row for row in rows if row["id"] not in staying]
    if not leaving:
        moving.unlink()
        return 0
    if staying:
        files.write(moving, leaving)
    files.rename(moving, moving.with_name(moving.name.removesuffix(_MOVING)))
    return len(leaving)


def _finish_begun(ws: Workspace) -> None:
    """Go on with what a killed run began."""
    for draft in _folder(ws).glob(f"task=*/day=*/*{files.DRAFT}"):
        draft.unlink()
    for moving in sorted(_folder(ws).glob(f"task=*/day=*/*{_MOVING}")):
        _finish(ws, moving, list(files.read(moving)))


def _files(
    folder: Path, task: str | None = None, since: datetime | None = None, until: datetime | None = None
) -> list[Path]:
    """Files that may hold rows of a time, by day."""
    first = "" if since is None else since.astimezone(UTC).date().isoformat()
    last = "~" if until is None else until.astimezone(UTC).date().isoformat()
    found = folder.glob(f"task={task or '*'}/day=*/*")
    return sorted(
        (p for p in found if first <= _day_of(p) <= last and files.is_one(p)), key=lambda p: (_day_of(p), p.name)
    )


def _day_of(path: Path) -> str:
    return path.parent.name.removeprefix("day=")


def _task_of(path: Path) -> str:
    return path.parent.parent.name.removeprefix("task=")


def _within(folder: Path, max_bytes: int) -> list[str]:
    """Delete the oldest files until all together take no more than `max_bytes`; the days that lost some."""
    found = [(path, path.stat().st_size) for path in _files(folder)]
    n_bytes = sum(size for _, size in found)
    days = []
    for path, size in found:
        if n_bytes <= max_bytes:
            break
        path.unlink()
        n_bytes -= size
        days.append(_day_of(path))
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    return sorted(set(days))
