"""How often two predictors answer alike, such as an exported artifact and its checkpoint. Pure."""

from typing import Any

import numpy as np

from headrace.evaluate.comparison import same
from headrace.stats import intervals
from headrace.tasks import FloatArray, TaskType


def agreement(task_type: TaskType, logits_a: FloatArray, logits_b: FloatArray) -> dict[str, Any]:
    """Share of equal answers of two predictors to the same N texts, with its 95 % interval, as JSON.

    Args:
        logits_a: (N, K).
        logits_b: (N, K).

    Returns:
        `n`, `share` (None without rows), `low`, `high`, `max_logit_difference`.
    """
    pairs = zip(task_type.decode(logits_a), task_type.decode(logits_b), strict=True)
    found = intervals.wilson(sum(same(task_type, a, b) for a, b in pairs), len(logits_a))
    if found is None:
        return {"n": 0, "share": None, "low": None, "high": None, "max_logit_difference": None}
    largest = float(np.abs(logits_a.astype(np.float64) - logits_b).max())
    return {
        "n": len(logits_a),
        "share": found.estimate,
        "low": found.low,
        "high": found.high,
        "max_logit_difference": largest,
    }
