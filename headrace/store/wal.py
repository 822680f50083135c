"""The write-ahead log of SQLite as bytes, for who copies it elsewhere while others write.

Formats: https://sqlite.org/fileformat2.html#the_write_ahead_log and https://sqlite.org/walformat.html. The index (the
file `-shm`) says which frames of the log are committed; frames after those may still be taken back. A log that was
taken into the database begins anew in the same file, under new salts.
"""

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.errors import Unusable, WrongState

LOCK = "follow.lock"
"""In the state folder; of who is inside `following`."""
HEAD_BYTES = 32
_FRAME_HEAD_BYTES = 24
_INDEX_HEAD = struct.Struct("=III BBH II 2I 8s 2I")
_INDEX_VERSION = 3007000
_PATIENCE_S = 2


class LogLost(Exception):
    """Frames that were still to be copied are gone: somebody else took the log into the database."""


@dataclass(frozen=True)
class Mark:
    """How far a log has got."""

    salts: bytes
    """Tell a log from the next one in the same file."""
    n_frames: int
    n_commits: int
    """Since the index was made, by all logs together; wraps at 2**32."""
    checksum: tuple[int, int]
    """Of the newest frame."""


@dataclass(frozen=True)
class Frames:
    """Bytes of a log: whole transactions, the log's head before the first."""

    content: bytes
    n_commits: int


class Log:
    """The log of a database that this process has open.

    The index stays open until the process ends: closing one of its handles would let go of every lock that SQLite holds
    on it in this process (https://sqlite.org/howtocorrupt.html, section 2.2).
    """

    def __init__(self, database: Path) -> None:
        self._wal, self._database = Path(f"{database}-wal"), database
        try:
            self._index = os.open(f"{database}-shm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise Unusable(
                f"the database's log cannot be read: {error.strerror}",
                value=f"{database}-shm",
                next_step="Check its rights",
            ) from None
        self._file = _identity(database)

    def is_lost(self) -> bool:
        """Whether another database, or none, is where this one was when it was opened."""
        return _identity(self._database) != self._file

    def mark(self) -> Mark:
        """What is committed now.

        Raises:
            LogLost: the index is of a kind that is not known, or stays in between.
        """
        until = time.monotonic() + _PATIENCE_S
        size = _INDEX_HEAD.size
        while True:
            both = os.pread(self._index, 2 * size, 0)
            if len(both) == 2 * size and both[:size] == both[size:]:
                break
            if time.monotonic() > until:
                raise LogLost("the index of the log does not come to rest")
            time.sleep(0.0005)
        version, _, n_commits, is_made, _, _, n_frames, _, one, two, salts, *_ = _INDEX_HEAD.unpack(both[:size])
        if version != _INDEX_VERSION or not is_made:
            raise LogLost(f"the index of the log is of version {version}")
        return Mark(salts, n_frames, n_commits, (one, two))

    def frames(self, mark: Mark, after: int) -> Frames:
        """The frames of a log from number `after` (0: from its head) up to a mark.

        Raises:
            LogLost: they are not there any more.
        """
        with self._wal.open("rb") as file:
            head = file.read(HEAD_BYTES)
            if len(head) < HEAD_BYTES or head[16:24] != mark.salts:
                raise LogLost("the log has begun anew")
            frame_bytes = _FRAME_HEAD_BYTES + int.from_bytes(head[8:12], "big")
            file.seek(HEAD_BYTES + after * frame_bytes)
            content = file.read((mark.n_frames - after) * frame_bytes)
        if len(content) < (mark.n_frames - after) * frame_bytes:
            raise LogLost("the log is shorter than its index says")
        n_commits, checksum = 0, (0, 0)
        for at in range(0, len(content), frame_bytes):
            _, n_pages, salts, one, two = struct.unpack_from(">II8sII", content, at)
            if salts != mark.salts:
                raise LogLost("the log has begun anew")
            n_commits, checksum = n_commits + (n_pages > 0), (one, two)
        if checksum != mark.checksum:
            raise LogLost("the log was written anew")
        return Frames(content if after else head + content, n_commits)


def _identity(path: Path) -> tuple[int, int] | None:
    """Of a file, for as long as anybody has it open; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def n_frames_of(log: Path) -> int:
    """Frames in a copy of a log.

    Raises:
        ValueError: it is no log.
    """
    with log.open("rb") as file:
        head = file.read(HEAD_BYTES)
    n_bytes, frame_bytes = log.stat().st_size - HEAD_BYTES, _FRAME_HEAD_BYTES + int.from_bytes(head[8:12], "big")
    if len(head) < HEAD_BYTES or n_bytes % frame_bytes:
        raise ValueError("it ends within a frame")
    return n_bytes // frame_bytes


@contextmanager
def following(lock: Path) -> Iterator[None]:
    """While inside, writers leave taking the log into the database to this process.

    Raises:
        WrongState: another process is inside.
    """
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + _PATIENCE_S
        while not _locked(handle, fcntl.LOCK_EX):
            if time.monotonic() > until:
                raise WrongState(
                    "another process follows this workspace",
                    value=str(lock),
                    next_step="Stop it first; one backup follows at a time",
                )
            time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def is_followed(lock: Path) -> bool:
    """Whether a process is inside `following`."""
    try:
        handle = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _locked(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


def _locked(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
