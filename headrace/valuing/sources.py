"""Whose rows are valued, as vectors: a source is a channel's examples, or a channel's feedback."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from headrace import trusting, vectors
from headrace.data import snapshot
from headrace.records import SIDES, Snapshot, SnapshotRow
from headrace.stats.valuation import Rows
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

Report = Callable[..., None]
Kind = Literal["examples", "feedback"]
_N_TRAIN, _N_HELD_OUT = 10_000, 3_000  # rows that are embedded at most
_N_LEAST = 200  # of a source, where fewer would be its share
_MOST_CLASSES = 500
_THIRDS = (1 / 3, 2 / 3)
Ints = NDArray[np.int64]


@dataclass(frozen=True, order=True)
class Source:
    """What is valued as one."""

    channel: str
    kind: Kind

    @property
    def name(self) -> str:
        return self.channel if self.kind == "examples" else f"{self.channel} (feedback)"


def source_of(row: SnapshotRow) -> Source:
    return Source(row.channel, "feedback" if row.origin == "feedback" else "examples")


@dataclass(frozen=True, eq=False)
class Sides:
    """Rows of a task by side, and the snapshot of those that count. Labels of test rows are never feedback alone."""

    task: str
    frozen: Snapshot
    train: Sequence[SnapshotRow]
    validation: Sequence[SnapshotRow]
    test: Sequence[SnapshotRow]

    @cached_property
    def n_rows(self) -> dict[Source, int]:
        """Training rows of each source, sources in order."""
        return dict(sorted(Counter(source_of(row) for row in self.train).items()))

    @property
    def channels(self) -> list[str]:
        return sorted({row.channel for row in (*self.train, *self.test)})

    @cached_property
    def rows(self) -> list[SnapshotRow]:
        return [*self.train, *self.validation, *self.test]

    @cached_property
    def hash(self) -> str:
        return snapshot.hash_of(self.rows)


def sides_of(ws: Workspace, task: str) -> Sides:
    """The newest labelled rows as they would be trained on: feedback by what it amounts to.

    Raises:
        WrongState: nothing is labelled, or a side would be empty.
    """
    return sides_at(ws, task, trusting.freeze(ws, task=task))


def sides_at(ws: Workspace, task: str, frozen: Snapshot) -> Sides:
    """The rows of a snapshot; those that count nothing are left out."""
    return _by_side(task, frozen, snapshot.rows(ws, frozen))


def as_given(ws: Workspace, counted: Sides) -> Sides:
    """The same rows, and for training all labels as they were given, whatever they amount to."""
    given = _by_side(counted.task, counted.frozen, snapshot.current(ws, counted.task)[0])
    return replace(given, validation=counted.validation, test=counted.test)


def _by_side(task: str, frozen: Snapshot, rows: Sequence[SnapshotRow]) -> Sides:
    kept = [row for row in rows if row.weight > 0]
    train, validation, test = ([row for row in kept if row.side == side] for side in SIDES)
    return Sides(task, frozen, train, validation, test)


@dataclass(frozen=True, eq=False)
class Material:
    """Rows as vectors and classes; `owners` are places in `sources` (training) and in `channels` (held out)."""

    sources: Sequence[Source]
    channels: Sequence[str]
    n_rows: dict[Source, int]
    train: Rows
    train_channels: Ints
    """Of each training row, its place in `channels`."""
    held_out: Rows
    n_classes: int


def reason_against(ws: Workspace, task: str) -> str | None:
    """Why rows of a task cannot be valued by their vectors; None where they can."""
    task_type: TaskType = TASK_TYPES.get(ws.task(task).type)(ws.task(task))
    if task_type.problem in ("token_classification", "question_answering"):
        return "the answers of this task type are places in a text, which one vector of the whole text does not tell"
    return None


def material(ws: Workspace, sides: Sides, report: Report) -> Material:
    """The vectors and classes of a task's rows; of many rows, a part of each source."""
    task_type: TaskType = TASK_TYPES.get(ws.task(sides.task).type)(ws.task(sides.task))
    train, held_out = _spread_by_source(sides.train, _N_TRAIN), _spread(sides.test, _N_HELD_OUT)
    found = vectors.of_inputs(ws, [row.input for row in (*train, *held_out)], task=sides.task, report=report)
    targets, n_classes = _classes(task_type, [row.target for row in (*train, *held_out)], len(train))
    sources, channels = list(sides.n_rows), sides.channels
    place = {source: i for i, source in enumerate(sources)}
    own = np.array([channels.index(row.channel) for row in (*train, *held_out)], dtype=np.int64)
    owners = np.array([place[source_of(row)] for row in train], dtype=np.int64)
    n = len(train)
    return Material(
        sources=sources,
        channels=channels,
        n_rows=sides.n_rows,
        train=Rows(found[:n], targets[:n], owners),
        train_channels=own[:n],
        held_out=Rows(found[n:], targets[n:], own[n:]),
        n_classes=n_classes,
    )


def _classes(task_type: TaskType, targets: Sequence[object], n_train: int) -> tuple[Ints, int]:
    """Classes (N) of targets, numbered without gaps, and how many there are.

    Numbers have thirds for classes, and several labels are one class, their set; what is rare beyond count is one too.
    """
    encoded = task_type.encode_targets(targets)
    if task_type.problem == "regression":
        encoded = np.searchsorted(np.quantile(encoded[:n_train], _THIRDS), encoded)
    elif encoded.ndim == 2:
        encoded = np.unique(encoded, axis=0, return_inverse=True)[1].reshape(-1)
    most = Counter(encoded[:n_train].tolist()).most_common()
    if len(most) > _MOST_CLASSES:
        frequent = {k for k, _ in most[: _MOST_CLASSES - 1]}
        encoded = np.array([k if k in frequent else -1 for k in encoded.tolist()])
    known, places = np.unique(encoded, return_inverse=True)
    return places.reshape(-1).astype(np.int64), len(known)


def _spread_by_source(rows: Sequence[SnapshotRow], n: int) -> list[SnapshotRow]:
    """About `n` rows in all: of each source its share, but no fewer than `_N_LEAST` where it has them."""
    if len(rows) <= n:
        return list(rows)
    mine: dict[Source, list[SnapshotRow]] = {}
    for row in rows:
        mine.setdefault(source_of(row), []).append(row)
    return [row for part in mine.values() for row in _spread(part, max(_N_LEAST, round(n * len(part) / len(rows))))]


def _spread(rows: Sequence[SnapshotRow], n: int) -> list[SnapshotRow]:
    """At most `n` rows, evenly over all, which are in the order of channel and key."""
    places = np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(int)
    return [rows[i] for i in places]
