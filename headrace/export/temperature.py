"""Temperature scaling: one number that divides the logits so that confidence means what it says.

Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.tasks import FloatArray

LOWEST, HIGHEST = 0.05, 20.0
"""Bounds. Rows that are all answered rightly would push the temperature to 0: any confidence would still be too low."""
_GOLDEN = (math.sqrt(5) - 1) / 2
_N_STEPS = 60  # each step keeps .618 of the interval: log(400) * .618 ** 60 is below 1e-11


def fit_temperature(logits: FloatArray, truth: NDArray[Any]) -> float:
    """The temperature within the bounds with the least negative log-likelihood; 1 without rows.

    Args:
        logits: (N, K).
        truth: (N,) int64 in [0, K).
    """
    if len(truth) == 0:
        return 1.0
    scores = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        scaled = scores * math.exp(-log_temperature)
        top = scaled.max(axis=1)
        spread = np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((top + spread - scaled[np.arange(len(truth)), truth]).mean())

    # convex in 1 / temperature, so with one minimum in log temperature
    low, high = math.log(LOWEST), math.log(HIGHEST)
    for _ in range(_N_STEPS):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return math.exp((low + high) / 2)
