"""How often two predictors answer alike, such as an exported artifact and its checkpoint. Pure."""

from typing import Any

import numpy as np

from headrace.evaluate.comparison import same
from headrace.stats import intervals
from headrace.tasks import UNCALIBRATED, Calibration, Outputs, TaskType


def agreement(
    task_type: TaskType, outputs_a: Outputs, outputs_b: Outputs, calibration: Calibration = UNCALIBRATED
) -> dict[str, Any]:
    """Share of equal answers of two predictors to the same N inputs, with its 95 % interval, as JSON.

    Args:
        outputs_a: (N, K), or (N,) of tasks on tokens.
        outputs_b: the same.

    Returns:
        `n`, `share` (None without rows), `low`, `high`, `max_logit_difference` (None where the tokens differ, too).
    """
    pairs = zip(task_type.decode(outputs_a, calibration), task_type.decode(outputs_b, calibration), strict=True)
    found = intervals.wilson(sum(same(task_type, a, b) for a, b in pairs), len(outputs_a))
    if found is None:
        return {"n": 0, "share": None, "low": None, "high": None, "max_logit_difference": None}
    return {
        "n": len(outputs_a),
        "share": found.estimate,
        "low": found.low,
        "high": found.high,
        "max_logit_difference": _largest_difference(outputs_a, outputs_b),
    }


def _largest_difference(a: Outputs, b: Outputs) -> float | None:
    if a.dtype != object:
        return float(np.abs(a.astype(np.float64) - b).max())
    if any(one.logits.shape != other.logits.shape for one, other in zip(a, b, strict=True)):
        return None
    sides = (np.concatenate([one.logits.ravel() for one in side]).astype(np.float64) for side in (a, b))
    return float(np.abs(np.subtract(*sides)).max(initial=0))
