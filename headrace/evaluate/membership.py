"""Can a row be told to have been trained on, by how small the model's loss on it is? Pure.

The loss attack (Yeom et al. 2018, "Privacy Risk in Machine Learning"), judged as Carlini et al. 2022 ("Membership
Inference Attacks From First Principles") judge attacks: by the share of training rows that are found at the threshold
which takes 0.1 % of held-out rows for such. A model that remembers nobody finds about as many as it is wrong about.
"""

from collections.abc import Sequence
from math import comb
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from headrace.records import SnapshotRow
from headrace.stats.intervals import wilson
from headrace.tasks import Outputs, TaskType

N_ROWS = 1000
"""Of each kind, at most."""
FALSE_SHARE = 0.001
"""Held-out rows that may be taken for training rows."""
Floats = NDArray[np.float64]
T = TypeVar("T")


def applies(task_type: TaskType) -> bool:
    """Whether an answer has one loss."""
    return task_type.problem in ("single_label_classification", "multi_label_classification", "regression")


def sample(rows: Sequence[T]) -> list[T]:
    """At most `N_ROWS` rows, spread over all."""
    return list(rows[:: -(-len(rows) // N_ROWS)]) if rows else []


def measure(
    task_type: TaskType,
    members: Sequence[SnapshotRow],
    of_members: Outputs,
    others: Sequence[SnapshotRow],
    of_others: Outputs,
) -> dict[str, Any] | None:
    """The attack on all rows and in each channel; None for tasks whose outputs have no one loss.

    Args:
        members, others: rows that were trained on, and rows that were not.

    Returns:
        `{"overall": part, "channels": {name: part}}`; a part has "share" of members found with "low" and "high",
        "false_share", "n_members", "n_others", and "chance": of as many being found if nothing were remembered.
    """
    if not applies(task_type):
        return None
    mine, theirs = _losses(task_type, members, of_members), _losses(task_type, others, of_others)
    channels = sorted({row.channel for row in members} & {row.channel for row in others})
    return {
        "overall": found(mine, theirs),
        "channels": {name: found(mine[_of(members, name)], theirs[_of(others, name)]) for name in channels},
    }


def found(members: Floats, others: Floats) -> dict[str, Any]:
    """How many of N members have a smaller loss than the threshold that M others set."""
    n_false = int(FALSE_SHARE * len(others))
    threshold = np.sort(others)[n_false] if len(others) else np.inf
    n_found = int((members < threshold).sum()) if len(others) else 0
    share = wilson(n_found, len(members))
    return {
        "share": None if share is None else share.estimate,
        "low": None if share is None else share.low,
        "high": None if share is None else share.high,
        "false_share": n_false / len(others) if len(others) else None,
        "n_members": len(members),
        "n_others": len(others),
        "chance": chance(n_found, n_false, len(members), len(others)),
    }


def chance(n_found: int, n_false: int, n_members: int, n_others: int) -> float:
    """Of so many members or more before the others' number `n_false` + 1, were all in random order: of the first
    `n_found` + `n_false` at most `n_false` are others (hypergeometric)."""
    n_first = n_found + n_false
    ways = sum(comb(n_others, k) * comb(n_members, n_first - k) for k in range(min(n_false, n_others) + 1))
    return ways / comb(n_members + n_others, n_first)


def _of(rows: Sequence[SnapshotRow], channel: str) -> list[int]:
    return [i for i, row in enumerate(rows) if row.channel == channel]


def _losses(task_type: TaskType, rows: Sequence[SnapshotRow], outputs: Outputs) -> Floats:
    """The loss (N,) that training made small."""
    if not rows:
        return np.zeros(0)
    targets, logits = task_type.encode_targets([row.target for row in rows]), np.asarray(outputs, dtype=np.float64)
    if task_type.problem == "single_label_classification":
        shifted = logits - logits.max(axis=1, keepdims=True)
        right = shifted[np.arange(len(rows)), targets.astype(np.int64)]
        return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - right)
    if task_type.problem == "multi_label_classification":
        return np.asarray(np.logaddexp(0, np.where(targets > 0, -logits, logits)).sum(axis=1))
    return np.asarray(np.abs(logits[:, 0] - np.ravel(targets)))
