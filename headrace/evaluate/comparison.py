"""Two predictors on the same rows: the difference of the main metric, overall and per channel. Pure.

Rows are redrawn in pairs, so what both find hard does not widen the interval.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.evaluate.evaluating import places_by_channel
from headrace.evaluate.uncertainty import as_json
from headrace.records import SnapshotRow
from headrace.stats import intervals
from headrace.tasks import UNCALIBRATED, Additive, Calibration, FloatArray, Outputs, TaskType

_Redrawable = tuple[intervals.Statistic, NDArray[Any]]
"""A figure of N different rows, and how often each occurs (N)."""


@dataclass(frozen=True, eq=False)
class _Side:
    """What one of the two predictors said, and how it is read."""

    outputs: Outputs
    calibration: Calibration


def compare(
    task_type: TaskType,
    rows: Sequence[SnapshotRow],
    outputs_a: Outputs,
    outputs_b: Outputs,
    *,
    calibration_a: Calibration = UNCALIBRATED,
    calibration_b: Calibration = UNCALIBRATED,
    seed: int = 0,
) -> dict[str, Any]:
    """What is gained by answering with b instead of a, as JSON.

    Returns:
        `{"main_metric", "overall": part, "channels": {name: part}}`; a part is `n`, `difference` (b - a of the main
        metric: estimate, low, high, level; nulls with a reason where it cannot be had), `n_disagreements` (rows with
        different answers), `wins` and `losses` (rows that only b, or only a, answers right), `n_right_a`.

    Args:
        outputs_a: (N, K), or (N,) of tasks on tokens, in the order of `rows`.
        outputs_b: the same.
    """
    sides = _Side(outputs_a, calibration_a), _Side(outputs_b, calibration_b)
    return {
        "main_metric": task_type.main_metric,
        "overall": _part(task_type, rows, sides, seed),
        "channels": {
            name: _part(task_type, [rows[i] for i in places], _those(sides, places), seed)
            for name, places in places_by_channel(rows).items()
        },
    }


def _those(sides: tuple[_Side, _Side], places: Sequence[int]) -> tuple[_Side, _Side]:
    a, b = sides
    return _Side(a.outputs[places], a.calibration), _Side(b.outputs[places], b.calibration)


def _part(task_type: TaskType, rows: Sequence[SnapshotRow], sides: tuple[_Side, _Side], seed: int) -> dict[str, Any]:
    targets = [row.target for row in rows]
    answers_a, answers_b = (task_type.decode(side.outputs, side.calibration) for side in sides)
    right_a, right_b = (
        np.array([task_type.answers_match(answer, target) for answer, target in zip(side, targets, strict=True)], bool)
        for side in (answers_a, answers_b)
    )
    difference, counts = _difference(task_type, targets, *sides)
    found = intervals.bootstrap(difference, counts, seed=seed)
    return {
        "n": len(rows),
        "difference": as_json(found, "the metric has no value for one of the two on these rows"),
        "n_disagreements": sum(not same(task_type, a, b) for a, b in zip(answers_a, answers_b, strict=True)),
        "wins": int((right_b & ~right_a).sum()),
        "losses": int((right_a & ~right_b).sum()),
        "n_right_a": int(right_a.sum()),
    }


def same(task_type: TaskType, a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two answers as served count as equal."""
    return task_type.answers_match(a, task_type.answer_of(b))


def _difference(task_type: TaskType, targets: Sequence[Any], a: _Side, b: _Side) -> _Redrawable:
    if isinstance(task_type, Additive):
        return _of_sums(task_type, task_type.main_metric, targets, a, b)
    return _BY_PROBLEM[task_type.problem](task_type, targets, a.outputs, b.outputs)


def _of_sums(task_type: Additive, metric: str, targets: Sequence[Any], a: _Side, b: _Side) -> _Redrawable:
    """Rows that add the same to both sides are one row that occurs often."""
    both = np.hstack([task_type.row_counts(targets, side.outputs, side.calibration) for side in (a, b)])
    different, counts = np.unique(both, axis=0, return_counts=True)
    counts_a, counts_b = np.hsplit(different, 2)

    def difference(weights: FloatArray) -> NDArray[Any]:
        scores_a, scores_b = (task_type.figures(weights @ side)[metric] for side in (counts_a, counts_b))
        return np.asarray(scores_b - scores_a)

    return difference, counts


def _macro_f1(task_type: TaskType, targets: Sequence[Any], a: FloatArray, b: FloatArray) -> _Redrawable:
    """Rows with the same truth and the same two answers are one row that occurs often: far fewer to redraw."""
    triples = np.stack([task_type.encode_targets(targets), a.argmax(axis=1), b.argmax(axis=1)], axis=1)
    different, counts = np.unique(triples, axis=0, return_counts=True)
    truth, answers_a, answers_b = (np.eye(task_type.n_outputs)[column] for column in different.T)
    counts_a, counts_b = (np.hstack([truth * side, truth, side]) for side in (answers_a, answers_b))
    return lambda weights: _macro_f1_of(weights @ counts_b) - _macro_f1_of(weights @ counts_a), counts


def _macro_f1_of(counts: NDArray[Any]) -> NDArray[Any]:
    """Macro-F1 (R) over the classes in the truth, from hits, truths and answers of each class (R, 3 K)."""
    hits, asked, answered = np.split(counts, 3, axis=1)
    total = asked + answered
    scores = np.divide(2 * hits, total, out=np.zeros_like(hits), where=asked > 0)
    means: NDArray[Any] = scores.sum(axis=1) / np.maximum((asked > 0).sum(axis=1), 1)
    return means


def _pearson(_: TaskType, targets: Sequence[Any], a: FloatArray, b: FloatArray) -> _Redrawable:
    truth = np.asarray(targets, dtype=np.float64)
    r_a, r_b = intervals.pearson(truth, a[:, 0]), intervals.pearson(truth, b[:, 0])
    return lambda weights: r_b(weights) - r_a(weights), np.ones(len(truth))


_BY_PROBLEM: dict[str, Callable[[TaskType, Sequence[Any], FloatArray, FloatArray], _Redrawable]] = {
    "single_label_classification": _macro_f1,
    "regression": _pearson,
}
