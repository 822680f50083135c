"""Which interval belongs to which figure, for each kind of problem."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.records import Interval
from headrace.stats import intervals
from headrace.tasks import FloatArray, TaskType
from headrace.tasks.text_classification import confusion_of, macro_f1

Found = dict[str, dict[str, Any]]


def intervals_of(task_type: TaskType, targets: Sequence[Any], logits: FloatArray, *, seed: int) -> Found:
    """95 % intervals of the metrics of N rows, by the metric's name."""
    return _BY_PROBLEM[task_type.problem](task_type, targets, logits, seed)


def as_json(interval: Interval | None, reason: str) -> dict[str, Any]:
    """An interval as JSON; without one, nulls with the reason."""
    if interval is None:
        return {"estimate": None, "low": None, "high": None, "level": intervals.LEVEL, "reason": reason}
    return asdict(interval)


def _of_classes(task_type: TaskType, targets: Sequence[Any], logits: FloatArray, seed: int) -> Found:
    truth = task_type.encode_targets(targets)
    confusion = confusion_of(truth, logits.argmax(axis=1), task_type.n_outputs)
    n_right, n = float(np.trace(confusion)), float(confusion.sum())
    found = {
        "accuracy": as_json(intervals.wilson(n_right, n), "no rows"),
        "macro_f1": as_json(intervals.of_confusion(confusion, macro_f1, seed=seed), "no rows"),
        "micro_f1": as_json(intervals.wilson(n_right, n), "no rows"),  # of single labels, it is the accuracy
    }
    for k, name in enumerate(task_type.output_names):
        found |= _of_class(name, *_counts(confusion, k))
    return found


def _counts(confusion: NDArray[Any], k: int) -> tuple[float, float, float]:
    return float(confusion[k, k]), float(confusion[k].sum()), float(confusion[:, k].sum())


def _of_class(name: str, n_hits: float, n_asked: float, n_answered: float) -> Found:
    return {
        f"precision:{name}": as_json(intervals.wilson(n_hits, n_answered), "never answered"),
        f"recall:{name}": as_json(intervals.wilson(n_hits, n_asked), "no row of this class"),
        f"f1:{name}": as_json(intervals.f1(n_hits, n_asked, n_answered), "no row of this class and never answered"),
    }


def _of_numbers(_: TaskType, targets: Sequence[Any], logits: FloatArray, seed: int) -> Found:
    truth, guess = np.asarray(targets, dtype=np.float64), logits[:, 0].astype(np.float64)
    constant = "all targets or all answers are equal, or too few rows"
    figures = {
        "pearson": (intervals.pearson(truth, guess), constant),
        "spearman": (intervals.spearman(truth, guess), constant),
        "mae": (intervals.mean(np.abs(truth - guess)), "no rows"),
    }
    return {
        name: as_json(intervals.bootstrap(statistic, np.ones(len(truth)), seed=seed), reason)
        for name, (statistic, reason) in figures.items()
    }


_BY_PROBLEM: dict[str, Callable[[TaskType, Sequence[Any], FloatArray, int], Found]] = {
    "single_label_classification": _of_classes,
    "regression": _of_numbers,
}
