"""Freeze what is labelled into an immutable, hashed snapshot: one target and one side for each example."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import Any

from headrace.config import SplitTable
from headrace.data import split
from headrace.errors import BadInput, NotFound, WrongState
from headrace.ids import new_id
from headrace.records import SIDES, Artifact, Settled, Side, Snapshot, SnapshotRow
from headrace.registry import resolve
from headrace.store import erasures, examples, runs, snapshots
from headrace.store.examples import LabelledRow
from headrace.store.votes import OWNER
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

_PURPOSE = "a snapshot"
_CHANCE = 0.01
_UNSETTLED = Settled(held_back="came too late")


def freeze(
    ws: Workspace,
    *,
    task: str | None = None,
    settled: Mapping[str, Settled] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Snapshot:
    """Freeze the labelled examples of a task. What was frozen before comes back as the same snapshot.

    The target of an example is what reviews say, else its own label from an import, else what its labellers say
    together. Labels that came back as feedback never touch the test side: an example with no other labels is left out
    when its side is test.

    Args:
        settled: example id to what the feedback on it amounts to (headrace/trusting.py). With it, feedback changes no
            example that has other labels, and nor do reviews of who does not count fully. None: every label counts
            alike.
        facts: kept beside the number of rows, if these rows were not frozen before.

    Raises:
        WrongState: nothing is labelled, or a side would be empty.
        MissingExtra: pyarrow is not installed.
    """
    task = ws.task_name(task)
    write_rows = resolve("headrace.data.parquet:write_rows", purpose=_PURPOSE)
    with ws.store.read() as conn:
        erased = erasures.newest(conn)
    rows, left_out = current(ws, task, settled)
    _refuse_empty(rows, task, left_out, ws.settings.split)
    content_hash = hash_of(rows)
    with ws.store.read() as conn:
        found = snapshots.with_hash(conn, task, content_hash)
    if found is not None and found.erased_at is None:
        return found
    folder = ws.artifacts.new_folder()
    write_rows(folder, rows)
    digest, n_bytes = ws.artifacts.put(folder)
    known = {**(facts or {}), "n_rows": len(rows), "content_hash": content_hash, "n_left_out": dict(left_out)}
    artifact = Artifact(digest=digest, kind="snapshot", n_bytes=n_bytes, facts=known)
    return _recorded(ws, _snapshot_of(ws, task, rows, content_hash, digest), artifact, erased)


def current(
    ws: Workspace, task: str, settled: Mapping[str, Settled] | None = None
) -> tuple[list[SnapshotRow], Counter[str]]:
    """The rows that would be frozen now, and how many examples are left out for which reason. Assigns sides."""
    task_type: TaskType = TASK_TYPES.get(ws.task(task).type)(ws.task(task))
    side_of = split.assign(ws)
    left_out: Counter[str] = Counter()
    with ws.store.read() as conn:
        found = list(resolved(examples.labelled_rows(conn, task), side_of, task_type, left_out, settled))
    return found, left_out


def rows(ws: Workspace, snapshot: Snapshot, side: str | None = None) -> list[SnapshotRow]:
    """The rows of a snapshot, or of one side, by channel and key.

    Raises:
        Damaged: the files do not match the snapshot's hash.
        WrongState: they are gone, since some of the rows were erased.
    """
    if snapshot.erased_at is not None:
        raise WrongState(
            "the rows of this snapshot are gone: some of them were erased",
            value=snapshot.id,
            next_step="Freeze what is left (headrace snapshot), or train on it (headrace train)",
        )
    read_rows = resolve("headrace.data.parquet:read_rows", purpose=_PURPOSE)
    found: list[SnapshotRow] = read_rows(ws.artifacts.get(snapshot.artifact), side)
    return found


def latest(ws: Workspace, task: str | None = None) -> Snapshot | None:
    """The newest snapshot of a task."""
    with ws.store.read() as conn:
        found = snapshots.listing(conn, ws.task_name(task))
    return found[-1] if found else None


def find(ws: Workspace, snapshot_id: str) -> Snapshot:
    """A snapshot by its id.

    Raises:
        NotFound: there is none.
    """
    with ws.store.read() as conn:
        found = snapshots.find(conn, snapshot_id)
    if found is None:
        raise NotFound("no such snapshot", value=snapshot_id, next_step="Run: headrace snapshot")
    return found


def resolved(
    lines: Iterable[LabelledRow],
    side_of: Mapping[str, str],
    task_type: TaskType,
    left_out: Counter[str],
    settled: Mapping[str, Settled] | None = None,
) -> Iterator[SnapshotRow]:
    """One row per labelled example, in the order of `lines`, which has the labels of an example side by side.

    Args:
        side_of: group key to side. A group without one came in after the split and waits for the next snapshot.
        left_out: counts examples that do not become rows, by reason.
        settled: as of `freeze`.
    """
    known: dict[Any, bool] = {}
    for _, group in groupby(lines, key=attrgetter("example_id")):
        labels = [label for label in group if _is_of(task_type, label, known)]
        if not labels:
            left_out["labels that the task has no more"] += 1
            continue
        one = labels[0]
        side = side_of.get(one.group_key)
        found = None if settled is None else settled.get(one.example_id, _UNSETTLED)
        checked = [label for label in labels if is_checked(label, found)]
        if side is None or side == split.EXCLUDED:
            left_out["resembles both sides" if side else "not split yet"] += 1
        elif side == "test" and not checked:
            left_out["feedback on the test side"] += 1
        elif settled is None or checked:
            target = target_of(checked if side == "test" or settled is not None else labels, task_type)
            yield _row(one, _side(side), target, 1.0, "import" if checked else "feedback")
        else:
            assert found is not None
            if found.held_back is None:
                yield _row(one, _side(side), found.target, found.weight, "feedback")
            else:
                left_out[f"held back: {found.held_back}"] += 1


def _row(one: LabelledRow, side: Side, target: Any, weight: float, origin: str) -> SnapshotRow:
    return SnapshotRow(one.example_id, one.channel, one.key, one.text, target, side, weight, origin, one.text_pair)


def is_checked(label: LabelledRow, found: Settled | None) -> bool:
    """Whether a label is the example's own: any but feedback, and of reviews those of who counts fully.

    Args:
        found: what is settled about the example; None: every label counts alike.
    """
    if label.origin == "review" and found is not None:
        return (label.labeller_id, label.key_id) in found.reviewers
    return label.origin != "feedback"


def _is_of(task_type: TaskType, label: LabelledRow, known: dict[Any, bool]) -> bool:
    """Whether the task still has a label that it had at import; answers for plain values are kept in `known`."""
    is_plain = isinstance(label.value, str | float)
    if is_plain and label.value in known:
        return known[label.value]
    try:
        task_type.parse_label(label.value, label.text if label.text_pair is None else (label.text, label.text_pair))
        found = True
    except BadInput:
        found = False
    if is_plain:
        known[label.value] = found
    return found


def target_of(labels: Sequence[LabelledRow], task_type: TaskType) -> Any:
    """One target from the labels of an example, oldest first: what reviews said, else its own latest, else its
    labellers' latest together."""
    reviewed = {label.labeller_id: label.value for label in labels if label.origin in ("review", OWNER)}
    if reviewed:
        return task_type.combine(list(reviewed.values()))
    own = [label.value for label in labels if label.origin == "import"]
    if own:
        return own[-1]
    return task_type.combine(list({label.labeller_id: label.value for label in labels}.values()))


def hash_of(rows: Sequence[SnapshotRow]) -> str:
    """SHA-256 of the rows by channel and key. Ids are left out, so any workspace gives the same rows the same hash."""
    digest = hashlib.sha256()
    for row in sorted(rows, key=lambda row: (row.channel, row.key)):
        line = [row.channel, row.key, row.text, row.target, row.side, row.weight, row.origin]
        if row.text_pair is not None:  # rows of one part keep the hash they had before there were two
            line.append(row.text_pair)
        digest.update(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    return f"sha256:{digest.hexdigest()}"


def _side(name: str) -> Side:
    return next(side for side in SIDES if side == name)


def _refuse_empty(rows: Sequence[SnapshotRow], task: str, left_out: Mapping[str, int], settings: SplitTable) -> None:
    if not rows and not left_out:
        raise WrongState(
            "no example is labelled for this task", value=task, next_step="Run: headrace import, with a label column"
        )
    n_by_side = Counter(row.side for row in rows)
    empty = [side for side in SIDES if not n_by_side[side]]
    if empty:
        raise WrongState(
            f"no labelled rows on the side {' and '.join(empty)}",
            value=f"{len(rows)} rows in all, {sum(left_out.values())} left out",
            next_step=_how_to_fill(empty, settings),
        )


def _how_to_fill(empty: Sequence[str], settings: SplitTable) -> str:
    """So many rows more that no empty side stays so but with a chance of 1 %, each row taking its side by itself."""
    shares = {"validation": settings.validation_share, "test": settings.test_share}
    shares["train"] = 1 - sum(shares.values())
    if none := [side for side in empty if not shares[side]]:
        return (
            f"Set split.{none[0]}_share above 0, then import more labelled rows: those that are there keep their side"
        )
    n = max(math.ceil(math.log(_CHANCE / len(empty)) / math.log1p(-min(shares[side], 0.99))) for side in empty)
    return f"Import some {n} more labelled rows: each takes its side by the hash of its text, by chance"


def _snapshot_of(ws: Workspace, task: str, rows: Sequence[SnapshotRow], content_hash: str, digest: str) -> Snapshot:
    n_by_side = Counter(row.side for row in rows)
    return Snapshot(
        id=new_id("snapshot"),
        task=task,
        content_hash=content_hash,
        artifact=digest,
        n_rows=len(rows),
        n_by_side={side: n_by_side[side] for side in SIDES},
        n_by_channel=dict(sorted(Counter(row.channel for row in rows).items())),
        n_from_feedback=sum(row.origin == "feedback" for row in rows),
        created_at=ws.clock(),
    )


def _recorded(ws: Workspace, snapshot: Snapshot, artifact: Artifact, erased: str | None) -> Snapshot:
    """Write the snapshot down, unless another process was faster; either way the one that is there.

    Args:
        erased: the newest erasure when the rows were read.
    """
    with ws.store.write() as conn:
        if erasures.newest(conn) != erased:
            if not snapshots.need(conn, artifact.digest):
                ws.artifacts.remove(artifact.digest)
            raise WrongState(
                "rows were erased while they were frozen", value=snapshot.task, next_step="Run the same command again"
            )
        there = snapshots.with_hash(conn, snapshot.task, snapshot.content_hash)
        if there is not None and there.erased_at is None:
            return there
        runs.add_artifact(conn, artifact, snapshot.created_at)
        if there is None:
            snapshots.add(conn, snapshot, config_hash=ws.config_hash)
            return snapshot
        snapshots.revive(conn, there.id, snapshot)
    return replace(snapshot, id=there.id)
