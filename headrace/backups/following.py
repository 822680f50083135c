"""A backup that follows: every commit of a workspace, in another folder within a second, for as long as it runs.

Writers leave taking SQLite's log into the database to this process, which copies the log first. States:

    no generation -> (base copied beside writers, the log noted before) -> following -> next generation, once
        the logs are longer than the base . something was erased . the log was reset by somebody else

Nothing here stops a server: where this process is stuck, writers take the log in again, and a new generation begins.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.artifacts import sync
from headrace.backups import generations, sealed
from headrace.backups.copying import (
    FORM,
    chains_of,
    check_outside,
    kept_files,
    listed,
    note_place,
    place_of,
    plain,
    unwritable,
)
from headrace.backups.generations import BASE, FOLLOWED, Entry, Generation, Kept, Pool
from headrace.errors import AlreadyExists, HeadraceError, NotFound, WrongState
from headrace.lineage import tombstones
from headrace.store import backups as rows
from headrace.store.wal import Log, LogLost
from headrace.workspace import Workspace

_log = logging.getLogger("headrace.backups")

_EVERY_S = 0.25
_IDLE_S = 10.0  # how often it says that nothing is new
_TRY_AGAIN_S = 1.0
_TELL_EVERY_S = 60.0
_LONG_FRAMES = 1000  # SQLite's own default for taking the log into the database
_MOST_BYTES = 256 << 20  # of the logs of a generation, or as much as its base
_KEPT = 2  # generations: the newest, and the one before for moments that it does not know


@dataclass(frozen=True)
class Followed:
    """Where a backup that follows has got."""

    path: str
    at: str
    """All that was committed until then is in it."""
    n_generations: int
    """Begun since it runs."""
    n_bytes: int
    """Of the newest generation's logs."""
    missing: list[str]
    """Digests of artifacts that are not in it: not copied yet, or not there."""


def follow(
    ws: Workspace,
    destination: Path | str,
    *,
    stop: threading.Event | None = None,
    report: Callable[[Followed], None] = lambda _: None,
) -> Followed:
    """Keep a folder so that the workspace as it was less than a second ago can be restored from it, until told to stop.

    In a process of its own: it keeps a handle of the database's log open until that ends.

    Args:
        destination: a new folder, or one that followed this workspace before.
        report: is told of every generation, once that can be restored.

    Raises:
        AlreadyExists: something else is in the folder.
        BadInput: the folder is inside of the workspace.
        WrongState: the database has no such log, or another process follows it; or something else took its place.
        Unusable: the folder cannot be written from the start.
    """
    to, stop = plain(destination), stop or threading.Event()
    check_outside(to, ws)
    try:
        pool = _claim(to, tombstones.key_name(tombstones.key_of(ws.state_folder)))
    except OSError as error:
        raise unwritable(error, to) from None
    with ws.store.followed() as log, _Follower(ws, to, pool, log, report) as follower:
        while not stop.is_set():
            _check_there(ws, log)
            stop.wait(_EVERY_S if follower.turn() else _TRY_AGAIN_S)
        _check_there(ws, log)
        follower.finish()
        return follower.standing()


class _Follower:
    def __init__(self, ws: Workspace, to: Path, pool: Pool, log: Log, report: Callable[[Followed], None]) -> None:
        self._ws, self._to, self._pool, self._log, self._report = ws, to, pool, log, report
        self._mirror = _Mirror(ws, pool, generations.newest_files(to, pool))
        self._now: Generation | None = None
        self._next: Future[Generation] | None = None
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="headrace-base")
        self._n_begun = 0
        self._at, self._noted_at, self._told_at = "", 0.0, 0.0
        self._said: tuple[Entry, list[str]] | None = None

    def __enter__(self) -> "_Follower":
        return self

    def __exit__(self, *_: object) -> None:
        self._mirror.close()
        self._beside.shutdown(cancel_futures=True)

    def standing(self) -> Followed:
        n_bytes = 0 if self._now is None else self._now.n_bytes
        return Followed(str(self._to), self._at, self._n_begun, n_bytes, self._mirror.missing)

    def finish(self) -> None:
        """Copy what is new, and wait for the artifacts; in a new generation if the log was reset just now, or if this
        one knows what was erased since."""
        self.turn(is_last=True)
        if self._now is None or self._now.n_erased < self._mirror.n_erased:
            if self._next is not None:
                wait([self._next])
            self._now = self._next = None
            self.turn(is_last=True)

    def turn(self, *, is_last: bool = False) -> bool:
        """Copy what is new; False where that failed, which the log of this process says now and then.

        Args:
            is_last: wait for the artifacts, too.
        """
        try:
            if self._now is None:
                self._take(self._begun(self._ws))
            self._copy()
            if is_last:
                self._mirror.wait()
                self._copy()
            if self._log.mark().n_frames > _LONG_FRAMES and self._next is None:
                self._ws.store.checkpoint(self._copy)
            self._turn_over()
        except LogLost as error:
            _log.warning("a new generation of the backup begins: %s", error)
            self._now = None
        except (OSError, HeadraceError) as error:  # a full disk, or one that comes back: the next turn tries again
            if time.monotonic() > self._told_at + _TELL_EVERY_S:
                _log.error("the backup does not follow: %s", error)
                self._told_at = time.monotonic()
            return False
        return True

    def _copy(self) -> None:
        """What is committed now, and before it every file that it may rest on."""
        assert self._now is not None
        at, mark = self._ws.clock().isoformat(), self._log.mark()
        is_first = self._said is None  # of a generation, whose base may know other artifacts than the one before
        is_idle = self._now.has_all(mark) and time.monotonic() < self._noted_at + _IDLE_S
        self._mirror.renew_files(is_idle and not is_first)
        is_new = self._now.add_log(self._log, mark)
        self._mirror.renew_artifacts(is_new or is_first)
        said = self._mirror.said()
        if is_new or said != self._said or time.monotonic() > self._noted_at + _IDLE_S:
            self._now.note(at, *said)
            self._said, self._noted_at = said, time.monotonic()
        self._at = at

    def _turn_over(self) -> None:
        """Begin the next generation when it is due, and take it when its base is there."""
        assert self._now is not None
        if self._next is None:
            most = max(_MOST_BYTES, self._now.n_base_bytes)
            if self._now.n_bytes > most or self._now.n_erased < self._mirror.n_erased:
                self._next = self._beside.submit(self._begun, self._ws)
        elif self._next.done():
            ready, self._next = self._next, None
            self._take(ready.result())

    def _begun(self, ws: Workspace) -> Generation:
        """A generation with its base."""
        folder = generations.folder_of(self._to, 1 + max(generations.all_numbers(self._to), default=0))
        folder.mkdir(mode=0o700)
        try:
            mark = self._log.mark()
            begun = Generation(folder, mark, chains=chains_of(ws), n_erased=_n_erased(ws))
            begun.begin(self._log, mark)
            ws.store.copy_to(folder / BASE)
            begun.set_base()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return begun

    def _take(self, begun: Generation) -> None:
        """Go on with a generation, and forget those that are not needed any more."""
        before, self._now, self._said = self._now, begun, None
        try:
            self._copy()
        except BaseException:
            self._now = before
            generations.remove(self._to, begun.number)
            raise
        _say_newest(self._to, begun.number)
        self._n_begun += 1
        note_place(self._ws, self._to)
        self._forget(begun)
        self._report(self.standing())

    def _forget(self, newest: Generation) -> None:
        """Delete what is neither needed nor allowed any more: what was erased is in no generation that stays."""
        kept: list[Kept] = []
        for number in sorted(generations.all_numbers(self._to), reverse=True):
            found = generations.sound(self._to, number)
            if found is None or len(kept) == _KEPT or found.facts["n_erased"] < newest.n_erased:
                generations.remove(self._to, number)
            else:
                kept.append(found)
        entries = [entry for one in kept for entry in generations.entries_of(one, self._pool)]
        self._mirror.forget_all_but(entries)


class _Mirror:
    """The files of a workspace in the pool. Artifacts are copied beside, since a large one takes seconds."""

    def __init__(self, ws: Workspace, pool: Pool, before: dict[str, Entry]) -> None:
        """
        Args:
            before: files of the newest generation that is there, by name.
        """
        self._ws, self._pool, self._before = ws, pool, before
        self._files: dict[str, tuple[tuple[int, int, int], Entry]] = {}
        self._artifacts: dict[str, dict[str, Entry]] = {}
        self._coming: dict[str, dict[str, Entry]] = {}
        """The artifact that is being copied, whole or not."""
        self._wanted: list[str] = []
        self._copying: Future[None] | None = None
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="headrace-artifacts")
        self._lock = threading.Lock()
        self._listing: tuple[dict[str, Entry], Entry] | None = None
        self.n_erased = _n_erased(ws)

    def close(self) -> None:
        self._beside.shutdown(cancel_futures=True)

    @property
    def missing(self) -> list[str]:
        return [digest for digest in self._wanted if digest not in self._artifacts]

    def renew_files(self, is_known: bool) -> None:
        """Copy those that changed.

        Args:
            is_known: nothing was committed since, so that a look can wait.
        """
        n_erased = _n_erased(self._ws)  # before the files: an erasure is done when they are as it leaves them
        if is_known and self._files and n_erased == self.n_erased:
            return
        found = {}
        for name, path in kept_files(self._ws).items():
            try:
                stat = path.stat()
                state = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
                known = self._files.get(name)
                found[name] = known if known is not None and known[0] == state else (state, self._pool.add(path))
            except FileNotFoundError:  # it moved meanwhile; the next look finds it where it is
                continue
        self._files, self.n_erased = found, n_erased

    def renew_artifacts(self, is_new: bool) -> None:
        """See which there should be, and have one copied that is not."""
        if is_new or not self._wanted:
            with self._ws.store.read() as conn:
                raw: Any = conn.connection.driver_connection
                self._wanted = rows.artifacts_in(raw)
        with self._lock:
            found = {digest: self._artifacts.get(digest) or self._of_before(digest) for digest in self._wanted}
            self._artifacts = {digest: entries for digest, entries in found.items() if entries}
        if self.missing and (self._copying is None or self._copying.done()):
            self._copying = self._beside.submit(self._copy_artifacts, self.missing)

    def _of_before(self, digest: str) -> dict[str, Entry]:
        """An artifact that a run before put into the pool: a generation would be without it until it is copied."""
        place = f"{place_of(digest)}/"
        found = {name: entry for name, entry in self._before.items() if name.startswith(place)}
        return found if all(self._pool.place(entry).exists() for entry in found.values()) else {}

    def wait(self) -> None:
        if self._copying is not None:
            self._copying.result()

    def forget_all_but(self, entries: list[Entry]) -> None:
        """Delete files of the pool that nobody needs, also those of an artifact that was erased while it was copied."""
        with self._lock:
            self._coming = {digest: files for digest, files in self._coming.items() if digest in self._wanted}
            mine = [entry for _, entry in self._files.values()]
            artifacts = [*self._artifacts.values(), *self._coming.values()]
            mine += [entry for files in artifacts for entry in files.values()]
            self._pool.keep_only([*entries, *mine], with_drafts=bool(self._coming))

    def _copy_artifacts(self, digests: list[str]) -> None:
        for digest in digests:
            try:
                folder = self._ws.artifacts.get(digest)
                files = listed(folder)
                with self._lock:
                    self._coming = {digest: {f"{place_of(digest)}/{name}": entry for name, entry in files.items()}}
                for name in files:  # without the lock, which whoever copies commits takes
                    self._pool.add(folder / name)
                with self._lock:
                    self._artifacts |= self._coming
            except NotFound:  # of versions whose files were removed
                continue
            except (OSError, HeadraceError) as error:
                _log.warning("an artifact is not in the backup: %s", error)
            finally:
                with self._lock:
                    self._coming = {}

    def said(self) -> tuple[Entry, list[str]]:
        """All files by their names, as a file of the pool, and the artifacts that are not among them."""
        with self._lock:  # an artifact that comes in between would be in neither, and the backup not be whole
            found = {name: entry for name, (_, entry) in self._files.items()}
            found |= {name: entry for files in self._artifacts.values() for name, entry in files.items()}
            missing = self.missing
        if self._listing is None or self._listing[0] != found:
            self._listing = (found, self._pool.add_json(found))
        return self._listing[1], missing


def _claim(to: Path, workspace: str) -> Pool:
    """The folder, made or found."""
    mark = to / FOLLOWED
    if mark.exists():
        facts = sealed.read(mark)
        if facts["workspace"] != workspace:
            raise AlreadyExists(
                "another workspace is followed into this folder", value=str(to), next_step="Choose another folder"
            )
    else:
        begun = f"{FOLLOWED}.draft"  # of a run that was killed
        if to.exists() and any(path.name != begun for path in to.iterdir()):
            raise AlreadyExists("something is there already", value=str(to), next_step="Choose another folder")
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
        sealed.write(mark, {"form": FORM, "workspace": workspace, "newest": None})
    return Pool(to / "files")


def _check_there(ws: Workspace, log: Log) -> None:
    """
    Raises:
        WrongState: the database of the workspace is not the one any more that is followed.
    """
    if log.is_lost():
        raise WrongState(
            "the workspace was moved or replaced while a backup followed it",
            value=str(ws.root),
            next_step="Start again, to follow what is there now: headrace backup --follow FOLDER",
        )


def _n_erased(ws: Workspace) -> int:
    """Erasures that are done."""
    return sum(one.state == tombstones.DONE for one in tombstones.read(ws.state_folder / tombstones.FILE))


def _say_newest(to: Path, number: int) -> None:
    sync(to)
    sealed.write(to / FOLLOWED, {**sealed.read(to / FOLLOWED), "newest": number})
