"""Which rows a training that goes on from a version has: all that are new to it, and a share of what it has learnt.

Rows come from the newest snapshot alone, so what was erased or is held back by now is not rehearsed.
Source: Robins 1995, "Catastrophic Forgetting, Rehearsal and Pseudorehearsal", section 2.
"""

import hashlib
from collections.abc import Sequence

from headrace.records import SnapshotRow


def new_rows(rows: Sequence[SnapshotRow], learnt: Sequence[SnapshotRow]) -> list[SnapshotRow]:
    """Training rows that were not learnt, or with another target or input then.

    Args:
        learnt: training rows of the version that is the start.
    """
    known = {row.example_id: (row.input, row.target) for row in learnt}
    return [row for row in rows if row.side == "train" and known.get(row.example_id) != (row.input, row.target)]


def rehearsed(
    rows: Sequence[SnapshotRow], learnt: Sequence[SnapshotRow], *, share: float, seed: int
) -> list[SnapshotRow]:
    """The rows in their order, without those of the training side that were learnt already but for a share of them.

    Args:
        learnt: as `new_rows` takes them.
        share: of the training rows that were learnt already, how many train again; drawn by hash.
    """
    new = {row.example_id for row in new_rows(rows, learnt)}
    old = [row.example_id for row in rows if row.side == "train" and row.example_id not in new]
    old.sort(key=lambda example_id: hashlib.sha256(f"{seed} {example_id}".encode()).digest())
    left_out = set(old[round(share * len(old)) :])
    return [row for row in rows if row.example_id not in left_out]


def held_out(rows: Sequence[SnapshotRow], learnt: Sequence[SnapshotRow]) -> list[SnapshotRow]:
    """Rows of the test and validation sides that were learnt, by the same example or the same input."""
    ids, inputs = {row.example_id for row in learnt}, {row.input for row in learnt}
    return [row for row in rows if row.side != "train" and (row.example_id in ids or row.input in inputs)]
