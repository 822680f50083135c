"""Text regression: a number for a text."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.config import TaskTable
from headrace.errors import BadInput
from headrace.tasks import FloatArray

_ROUNDING = 1e-13  # of float64 sums, relative


class TextRegression:
    """A number for a text, judged by correlation and by distance.

    Targets are floats. Outputs (N, 1) are in the targets' own unit.
    """

    name = "text-regression"
    problem = "regression"
    main_metric = "pearson"
    n_outputs = 1
    _MATCH = 0.5  # a correction nearer than this counts as agreement

    def __init__(self, settings: TaskTable) -> None:
        if settings.labels:
            raise BadInput("a regression task has no labels", value=list(settings.labels), next_step="Remove `labels`")
        self.output_names = ["value"]

    def parse_label(self, raw: object) -> float:
        try:
            value = float(raw)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise BadInput("not a number", value=raw, next_step="A label of this task is a number") from None
        if not math.isfinite(value) or isinstance(raw, bool):
            raise BadInput("not a finite number", value=raw, next_step="A label of this task is a number")
        return value

    def combine(self, targets: Sequence[float]) -> float:
        return math.fsum(targets) / len(targets)

    def encode_targets(self, targets: Sequence[float]) -> NDArray[Any]:
        return np.asarray(targets, dtype=np.float32)

    def decode(self, logits: FloatArray, *, temperature: float = 1.0) -> list[dict[str, Any]]:
        return [{"value": round(float(value), 6)} for value in logits[:, 0]]

    def answers_match(self, output: dict[str, Any], correction: float) -> bool:
        return bool(abs(output["value"] - correction) <= self._MATCH)

    def metrics(self, targets: Sequence[float], logits: FloatArray, *, temperature: float = 1.0) -> dict[str, Any]:
        truth = np.asarray(targets, dtype=np.float64)
        guess = logits[:, 0].astype(np.float64)
        return {
            "n": len(truth),
            "pearson": correlation(truth, guess),
            "spearman": correlation(ranks(truth), ranks(guess)),
            "mae": float(np.abs(truth - guess).mean()) if len(truth) else None,
        }


def correlation(a: FloatArray, b: FloatArray) -> float | None:
    """Pearson's r; None where it has no value: fewer than two rows, or a side that is constant but for rounding."""
    if len(a) < 2:
        return None
    da, db = a - a.mean(), b - b.mean()
    spread_a, spread_b = float(np.linalg.norm(da)), float(np.linalg.norm(db))
    if spread_a <= _ROUNDING * np.linalg.norm(a) or spread_b <= _ROUNDING * np.linalg.norm(b):
        return None
    return float(np.clip(da / spread_a @ (db / spread_b), -1, 1))


def ranks(values: FloatArray) -> FloatArray:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: FloatArray = last - (counts - 1) / 2
    return means[inverse]
