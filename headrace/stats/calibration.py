"""What is fitted on validation rows besides the weights: a temperature, thresholds, the half-width of an interval.

numpy only. Dimensions: N rows, K classes.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 0.05, 20.0
"""Bounds. Rows that are all answered rightly would push the temperature to 0: any confidence would still be too low."""
DEFAULT_THRESHOLD = 0.5
_GOLDEN = (math.sqrt(5) - 1) / 2
_N_STEPS = 60  # each step keeps .618 of the interval: log(400) * .618 ** 60 is below 1e-11
_ROUNDING = 1e-9  # 30 * .9 is 27, not what floats make of it


def fit_temperature(logits: NDArray[Any], truth: NDArray[Any]) -> float:
    """The number, within the bounds, that divides logits so that the negative log-likelihood is least; 1 without rows.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.

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


def fit_thresholds(probs: NDArray[Any], truth: NDArray[Any]) -> list[float]:
    """For each label the probability from which it is answered, so that its F1 is highest (K).

    Of thresholds that are equally good, the one nearest to .5 counts; a label without a row keeps .5. Each label alone
    is enough, since macro-F1 is the mean over labels: Koyejo et al. 2015, "Consistent Multilabel Classification",
    section 3.

    Args:
        probs: (N, K) in [0, 1].
        truth: (N, K) of zeros and ones.
    """
    return [_threshold(column.astype(np.float64), hits > 0) for column, hits in zip(probs.T, truth.T, strict=True)]


def _threshold(probs: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    if not truth.any():
        return DEFAULT_THRESHOLD
    values = np.unique(probs)
    middles = (values + np.r_[0.0, values[:-1]]) / 2
    middles = np.where(middles > np.r_[-1.0, values[:-1]], middles, values)  # neighbours may have nothing between
    tried = np.r_[middles, DEFAULT_THRESHOLD]
    # rows at or above each threshold, counted from the end of the sorted rows
    order = np.argsort(probs, kind="stable")
    first = np.searchsorted(probs[order], tried, side="left")
    hits = np.r_[np.cumsum(truth[order][::-1])[::-1], 0][first]
    scores = 2 * hits / (truth.sum() + len(probs) - first)
    best = tried[scores >= scores.max() - _ROUNDING]
    return float(best[np.abs(best - DEFAULT_THRESHOLD).argmin()])


def conformal_half_width(residuals: NDArray[Any], level: float) -> float | None:
    """Half the width of an interval around an answer that holds at least `level` of new truths; None: too few rows.

    The ceil((N + 1) level)-th smallest distance; rows must be exchangeable with new ones, and not trained on.
    Source: Lei et al. 2018, "Distribution-Free Predictive Inference for Regression", section 2.2 (split conformal;
    Vovk, Gammerman and Shafer 2005, "Algorithmic Learning in a Random World", section 4.1).

    Args:
        residuals: (N,) truth minus answer.
        level: share in (0, 1).
    """
    place = math.ceil((len(residuals) + 1) * level - _ROUNDING)
    if place > len(residuals):
        return None
    return float(np.sort(np.abs(np.asarray(residuals, dtype=np.float64)))[place - 1])
