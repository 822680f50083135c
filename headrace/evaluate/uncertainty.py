"""Which interval belongs to which figure, for each kind of problem."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from headrace.records import Interval
from headrace.stats import intervals
from headrace.tasks import UNCALIBRATED, Additive, Calibration, Outputs, TaskType
from headrace.tasks.text_classification import macro_f1

Found = dict[str, dict[str, Any]]


def intervals_of(
    task_type: TaskType,
    targets: Sequence[Any],
    outputs: Outputs,
    measured: Mapping[str, Any],
    *,
    calibration: Calibration = UNCALIBRATED,
    seed: int,
) -> Found:
    """95 % intervals of the metrics of N rows, by the metric's name; `f1:CLASS` for one of a class.

    Args:
        measured: what `task_type.metrics` gave.
    """
    if isinstance(task_type, Additive):
        counts = task_type.row_counts(targets, outputs, calibration)
        found = intervals.of_sums(task_type.figures, counts, seed=seed)
        whole = {name: as_json(interval, "nothing to divide by on these rows") for name, interval in found.items()}
        return whole | _of_each_class(measured)
    return _BY_PROBLEM[task_type.problem](targets, outputs, measured, seed)


def as_json(interval: Interval | None, reason: str) -> dict[str, Any]:
    """An interval as JSON; without one, nulls with the reason."""
    if interval is None:
        return {"estimate": None, "low": None, "high": None, "level": intervals.LEVEL, "reason": reason}
    return asdict(interval)


def _of_classes(_: Sequence[Any], __: Outputs, measured: Mapping[str, Any], seed: int) -> Found:
    confusion = np.asarray(measured["confusion"])
    n_right, n = float(np.trace(confusion)), float(confusion.sum())
    return {
        "accuracy": as_json(intervals.wilson(n_right, n), "no rows"),
        "macro_f1": as_json(intervals.of_confusion(confusion, macro_f1, seed=seed), "no rows"),
        "micro_f1": as_json(intervals.wilson(n_right, n), "no rows"),  # of single labels, it is the accuracy
    } | _of_each_class(measured)


def _of_each_class(measured: Mapping[str, Any]) -> Found:
    """Of classes that are counted in rows; others, such as entities, have come from redraws of rows."""
    found: Found = {}
    for name, one in measured.get("per_class", {}).items():
        if "n_right" in one:
            found |= _of_class(name, one["n_right"], one["n"], one["n_answered"])
    return found


def _of_class(name: str, n_hits: float, n_asked: float, n_answered: float) -> Found:
    return {
        f"precision:{name}": as_json(intervals.wilson(n_hits, n_answered), "never answered"),
        f"recall:{name}": as_json(intervals.wilson(n_hits, n_asked), "no row of this class"),
        f"f1:{name}": as_json(intervals.f1(n_hits, n_asked, n_answered), "no row of this class and never answered"),
    }


def _of_numbers(targets: Sequence[Any], outputs: Outputs, measured: Mapping[str, Any], seed: int) -> Found:
    truth, guess = np.asarray(targets, dtype=np.float64), outputs[:, 0].astype(np.float64)
    constant = "all targets or all answers are equal, or too few rows"
    figures = {
        "pearson": (intervals.pearson(truth, guess), constant),
        "spearman": (intervals.spearman(truth, guess), constant),
        "mae": (intervals.mean(np.abs(truth - guess)), "no rows"),
    }
    found = {
        name: as_json(intervals.bootstrap(statistic, np.ones(len(truth)), seed=seed), reason)
        for name, (statistic, reason) in figures.items()
    }
    if measured.get("coverage") is not None:
        found["coverage"] = as_json(intervals.wilson(measured["coverage"] * len(truth), len(truth)), "no rows")
    return found


_BY_PROBLEM: dict[str, Callable[[Sequence[Any], Outputs, Mapping[str, Any], int], Found]] = {
    "single_label_classification": _of_classes,
    "regression": _of_numbers,
}
