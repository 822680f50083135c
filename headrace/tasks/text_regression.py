"""Text regression: a number for a text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.config import TaskTable
from headrace.errors import BadInput
from headrace.records import Input
from headrace.stats.calibration import conformal_half_width
from headrace.tasks import UNCALIBRATED, Calibration, FloatArray

_LEVEL = 0.9  # of the interval around an answer: it asks for 9 validation rows, .95 would for 19
_STEPS = 8  # of a float32, at least, in a deviation of the targets
_ROUNDING = 1e-13  # of float64 sums, relative
_LARGEST = float(np.finfo(np.float32).max)


class TextRegression:
    """A number for a text, judged by correlation and by distance.

    Targets are floats. Outputs (N, 1) are in the targets' own unit.
    """

    name = "text-regression"
    problem = "regression"
    auto_class = "AutoModelForSequenceClassification"
    fields: tuple[str, ...] = ("text",)
    main_metric = "pearson"
    n_outputs = 1

    def __init__(self, settings: TaskTable) -> None:
        if settings.labels:
            raise BadInput("a regression task has no labels", value=list(settings.labels), next_step="Remove `labels`")
        self.output_names = ["value"]
        self._tolerance = settings.tolerance

    def parse_label(self, raw: object, given: Input | None = None) -> float:
        try:
            value = float(raw)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise BadInput("not a number", value=raw, next_step="A label of this task is a number") from None
        except OverflowError:  # an int that no float can hold
            value = math.inf
        if isinstance(raw, bool) or (isinstance(raw, str) and "_" in raw):  # 1_000 is Python's way to write
            raise BadInput("not a number", value=raw, next_step="A label of this task is a number")
        if not math.isfinite(value) or abs(value) > _LARGEST:
            raise BadInput("not a finite number that a model can hold", value=raw, next_step="Choose another unit")
        return value

    def combine(self, targets: Sequence[float]) -> float:
        return math.fsum(targets) / len(targets)

    def encode_targets(self, targets: Sequence[float]) -> NDArray[Any]:
        return np.asarray(targets, dtype=np.float32)

    def scale(self, targets: Sequence[float]) -> tuple[float, float]:
        """Mean and standard deviation (divisor N) of targets in their unit, to train on (target - mean) / deviation.

        The deviation is 1 where the targets do not differ; (0, 1) without any.
        """
        if not len(targets):
            return 0.0, 1.0
        truth = np.asarray(targets, dtype=np.float64)
        mean, deviation = float(truth.mean()), float(truth.std())
        return mean, deviation if deviation > _ROUNDING * max(1.0, abs(mean)) else 1.0

    def check_spread(self, targets: Sequence[float]) -> None:
        """Check that a float32, in which models answer, can tell the targets apart.

        Its steps near the largest target may be an eighth of their deviation: answers are then rounded by an error of
        1 / (8 sqrt(12)) = 4 % of the deviation (a uniform one's), which takes less than 0.1 % of Pearson's r.

        Raises:
            BadInput: the targets lie too far from 0 for how little they differ.
        """
        largest = max(map(abs, targets), default=0.0)
        mean, deviation = float(np.mean(targets)) if targets else 0.0, float(np.std(targets)) if targets else 0.0
        step = float(np.spacing(np.float32(largest)))
        if deviation > _ROUNDING * max(1.0, abs(mean)) and step > deviation / _STEPS:
            raise BadInput(
                f"the numbers differ by {deviation:.3g} or so and lie around {mean:.6g}, where a model can only answer "
                f"in steps of {step:.3g}",
                value=targets[0],
                next_step=f"Subtract {mean:.6g} from every label, and add it to the answers",
            )

    def calibrate(self, targets: Sequence[float], outputs: FloatArray) -> dict[str, Any]:
        """Half the width of the interval around each answer, and its level; none of fewer than 9 rows."""
        half_width = conformal_half_width(np.asarray(targets, dtype=np.float64) - outputs[:, 0], _LEVEL)
        return {} if half_width is None else {"half_width": half_width, "level": _LEVEL}

    def decode(self, outputs: FloatArray, calibration: Calibration = UNCALIBRATED) -> list[dict[str, Any]]:
        """`value`, and where calibrated `low` and `high`, between which the truth lies in `level` of cases."""
        values = [float(value) for value in outputs[:, 0]]
        if "half_width" not in calibration:
            return [{"value": _shown(value)} for value in values]
        half, level = calibration["half_width"], calibration["level"]
        return [{"value": _shown(v), "low": _shown(v - half), "high": _shown(v + half), "level": level} for v in values]

    def answer_of(self, output: Mapping[str, Any]) -> float:
        return float(output["value"])

    def answers_match(self, output: Mapping[str, Any], correction: Any) -> bool:
        return bool(abs(output["value"] - correction) <= self._tolerance)

    def metrics(
        self, targets: Sequence[float], outputs: FloatArray, calibration: Calibration = UNCALIBRATED
    ) -> dict[str, Any]:
        truth = np.asarray(targets, dtype=np.float64)
        guess = outputs[:, 0].astype(np.float64)
        distance = np.abs(truth - guess)
        found = {
            "n": len(truth),
            "pearson": correlation(truth, guess),
            "spearman": correlation(ranks(truth), ranks(guess)),
            "mae": float(distance.mean()) if len(truth) else None,
        }
        if "half_width" in calibration:
            inside = distance <= calibration["half_width"]
            found["coverage"] = float(inside.mean()) if len(truth) else None
        return found


def _shown(value: float) -> float:
    """To as many digits as a float32 has, in which models answer."""
    return float(f"{value:.7g}")


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
