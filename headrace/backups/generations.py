"""What a backup that follows writes, and what its restore reads.

    FOLDER/headrace-follow.json      of which workspace, and its newest generation
    FOLDER/files/ab/ab12...          artifacts, old predictions, settings: by SHA-256, shared by generations
    FOLDER/generation-000001/
        base.db                      the database at one moment, whole
        log-000001, log-000002 ...   SQLite's write-ahead logs since, as they were
        steps.jsonl                  how far the last log had got, and which files there were, at which instant
        head.json                    size and hash of all of these as far as they count

A step is: files, then the end of a log, then a line of steps.jsonl, then head.json, each on disk before the next. A
kill in between leaves bytes behind what head.json counts, which nobody looks at. So a generation is whole at all times.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.artifacts import sync
from headrace.backups import sealed
from headrace.backups.copying import FORM, entry_of
from headrace.errors import Damaged, NotFound
from headrace.store.wal import Log, LogLost, Mark
from headrace.version import VERSION

FOLLOWED = "headrace-follow.json"
BASE, HEAD, STEPS = "base.db", "head.json", "steps.jsonl"
_PREFIX = "generation-"
_DRAFT = "draft-"
_READ_BYTES = 1 << 20
_COMMITS = 2**32  # at which their number begins anew

Entry = dict[str, Any]
"""n_bytes and sha256 of a file."""


class Pool:
    """Files by their hash. What is there is whole and on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def add(self, path: Path) -> Entry:
        """Copy a file.

        Raises:
            FileNotFoundError: it is not there any more.
        """
        with path.open("rb") as source:
            return self._add(iter(lambda: source.read(_READ_BYTES), b""))

    def add_json(self, value: Any) -> Entry:
        return self._add(iter([json.dumps(value, sort_keys=True).encode()]))

    def place(self, entry: Entry) -> Path:
        name = str(entry["sha256"])
        return self._folder / name[:2] / name

    def read_json(self, entry: Entry) -> Any:
        """
        Raises:
            Damaged: it is not as it was written.
        """
        check(self.place(entry), entry)
        return json.loads(self.place(entry).read_text("utf-8"))

    def keep_only(self, entries: Iterable[Entry], *, with_drafts: bool) -> None:
        """Delete all others.

        Args:
            with_drafts: keep what is being added beside, too. Without it that addition fails.
        """
        kept = {entry["sha256"] for entry in entries}
        for path in self._folder.rglob("*"):
            is_kept = path.name in kept or (with_drafts and path.name.startswith(_DRAFT))
            if path.is_file() and not is_kept:
                path.unlink(missing_ok=True)

    def _add(self, parts: Iterator[bytes]) -> Entry:
        draft, digest, n_bytes = self._folder / f"{_DRAFT}{os.getpid()}-{id(parts)}", hashlib.sha256(), 0
        try:
            with draft.open("wb") as file:
                for part in parts:
                    file.write(part)
                    digest.update(part)
                    n_bytes += len(part)
            entry = {"n_bytes": n_bytes, "sha256": digest.hexdigest()}
            place = self.place(entry)
            if not place.exists():
                sync(draft)
                place.parent.mkdir(mode=0o700, exist_ok=True)
                os.replace(draft, place)
                sync(place.parent)
        finally:
            draft.unlink(missing_ok=True)
        return entry


@dataclass
class _Growing:
    """A file that is only added to. What a failed addition leaves is written over by the next one."""

    path: Path
    n_bytes: int = 0
    _digest: Any = field(default_factory=hashlib.sha256)

    def add(self, content: bytes) -> None:
        with open(self.path, "r+b" if self.path.exists() else "xb") as file:
            file.seek(self.n_bytes)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if self.n_bytes == 0:
            sync(self.path.parent)
        self._digest.update(content)
        self.n_bytes += len(content)

    @property
    def entry(self) -> Entry:
        return {"n_bytes": self.n_bytes, "sha256": self._digest.hexdigest()}


class Generation:
    """The one that is being written: a base, and every log since."""

    def __init__(self, folder: Path, mark: Mark, *, chains: Mapping[str, int | None], n_erased: int) -> None:
        """
        Args:
            mark: from before the base was copied.
            chains: what is wrong with the chains of the workspace, by their names.
            n_erased: erasures that were done before the base was copied.
        """
        self.folder, self.n_erased = folder, n_erased
        self._base: Entry = {}
        self._chains = dict(chains)
        self._salts, self._n_frames, self._n_commits = mark.salts, 0, mark.n_commits
        self._logs: list[_Growing] = []
        self._steps = _Growing(folder / STEPS)

    @property
    def n_bytes(self) -> int:
        """Of its logs."""
        return sum(log.n_bytes for log in self._logs)

    @property
    def n_base_bytes(self) -> int:
        return int(self._base["n_bytes"])

    @property
    def number(self) -> int:
        return int(self.folder.name.removeprefix(_PREFIX))

    def has_all(self, mark: Mark) -> bool:
        """Whether nothing was committed since."""
        return mark.n_commits == self._n_commits

    def begin(self, log: Log, mark: Mark) -> None:
        """Keep the log as it is before the base is copied: its frames are in the base, and those after hang on them.

        Raises:
            LogLost: it began anew meanwhile.
        """
        if mark.n_frames:
            self._append(log.frames(mark, 0).content, mark)

    def set_base(self) -> None:
        path = self.folder / BASE
        sync(path)
        self._base = entry_of(path)

    def add_log(self, log: Log, mark: Mark) -> bool:
        """Add what was committed up to a mark; whether that was anything.

        Raises:
            LogLost: some of it is gone, and a new generation is due.
        """
        if mark.salts != self._salts:
            self._salts, self._n_frames = mark.salts, 0
        n_commits = 0
        if mark.n_frames > self._n_frames:
            frames = log.frames(mark, self._n_frames)
            n_commits = frames.n_commits
        if (self._n_commits + n_commits) % _COMMITS != mark.n_commits or mark.n_frames < self._n_frames:
            raise LogLost("some of the log was taken into the database by others before it was copied")
        if n_commits == 0:
            return False
        self._append(frames.content, mark)
        self._n_commits = mark.n_commits
        return True

    def _append(self, content: bytes, mark: Mark) -> None:
        if self._n_frames == 0:
            self._logs.append(_Growing(self.folder / log_name(len(self._logs) + 1)))
        self._logs[-1].add(content)
        self._n_frames = mark.n_frames

    def note(self, at: str, listing: Entry, missing: list[str]) -> None:
        """Say that all of it up to an instant is here.

        Args:
            listing: of the files, in the pool.
            missing: digests of artifacts that are not among them.
        """
        n_bytes = self._logs[-1].n_bytes if self._logs else 0
        step = {"at": at, "n_logs": len(self._logs), "n_bytes": n_bytes, "listing": listing, "missing": missing}
        self._steps.add(json.dumps(step, sort_keys=True).encode() + b"\n")
        facts = {"form": FORM, "headrace": VERSION, "at": at, "base": self._base, "steps": self._steps.entry}
        facts |= {"chains": self._chains, "n_erased": self.n_erased, "logs": [one.entry for one in self._logs]}
        sealed.write(self.folder / HEAD, facts)


@dataclass(frozen=True)
class Kept:
    """A generation that can be restored; every byte of the folder's own files was checked."""

    folder: Path
    facts: dict[str, Any]
    steps: list[dict[str, Any]]


def all_numbers(folder: Path) -> list[int]:
    """Of the generations in a folder, the unfinished ones included, in no order."""
    found = [path.name.removeprefix(_PREFIX) for path in folder.glob(f"{_PREFIX}*")]
    return [int(name) for name in found if name.isdecimal()]


def sound(folder: Path, number: int) -> Kept | None:
    """A generation, unless it is unfinished or damaged."""
    try:
        return read(folder_of(folder, number))
    except (NotFound, Damaged):
        return None


def folder_of(folder: Path, number: int) -> Path:
    return folder / f"{_PREFIX}{number:06d}"


def log_name(number: int) -> str:
    return f"log-{number:06d}"


def read(folder: Path) -> Kept:
    """A generation.

    Raises:
        NotFound, Damaged: a file of it is missing or changed.
    """
    facts = sealed.read(folder / HEAD)
    check(folder / BASE, facts["base"])
    for number, entry in enumerate(facts["logs"], start=1):
        check(folder / log_name(number), entry)
    check(folder / STEPS, facts["steps"])
    lines = (folder / STEPS).read_bytes()[: facts["steps"]["n_bytes"]]
    return Kept(folder, facts, [json.loads(line) for line in lines.splitlines()])


def entries_of(kept: Kept, pool: Pool) -> Iterator[Entry]:
    """What a generation needs of the pool."""
    found = {step["listing"]["sha256"]: step["listing"] for step in kept.steps}
    for listing in list(found.values()):
        found |= {entry["sha256"]: entry for entry in pool.read_json(listing).values()}
    yield from found.values()


def check(path: Path, entry: Entry) -> None:
    """Check as much of a file as counts.

    Raises:
        Damaged: it is missing, shorter or changed.
    """
    digest, n_left = hashlib.sha256(), entry["n_bytes"]
    try:
        with path.open("rb") as file:
            while n_left > 0 and (part := file.read(min(n_left, _READ_BYTES))):
                digest.update(part)
                n_left -= len(part)
    except OSError as error:
        raise sealed.damaged(f"a file of the backup cannot be read: {error.strerror}", path) from None
    if n_left or digest.hexdigest() != entry["sha256"]:
        raise sealed.damaged("a file of the backup is not as it was written", path)


def newest(folder: Path) -> int:
    """Number of the newest generation.

    Raises:
        NotFound: there is none yet.
        Damaged: the file that says so is.
    """
    number: int | None = sealed.read(folder / FOLLOWED)["newest"]
    if number is None:
        raise NotFound("this backup was never whole", value=str(folder), next_step="Use another backup")
    return number


def newest_files(folder: Path, pool: Pool) -> dict[str, Entry]:
    """Files of the newest generation as it was last, by name; none where there is no sound one."""
    try:
        steps = read(folder_of(folder, newest(folder))).steps
        found: dict[str, Entry] = pool.read_json(steps[-1]["listing"]) if steps else {}
    except (NotFound, Damaged):
        return {}
    return found


def remove(folder: Path, number: int) -> None:
    """Delete a generation, its head first, so that a kill leaves none that looks whole."""
    (folder_of(folder, number) / HEAD).unlink(missing_ok=True)
    shutil.rmtree(folder_of(folder, number))
