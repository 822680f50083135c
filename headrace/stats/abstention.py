"""From which confidence on may be answered, so that no more than a wanted share of the answers is wrong? numpy only.

A threshold that is picked because it looks good on some rows is too good on others. Here each of a few thresholds is
tested on the very rows, at a level divided among them, so that with probability 1 - alpha the one that is named keeps
the promise on new rows like these. Source: Angelopoulos, Bates, Candes, Jordan and Lei 2021, "Learn then test:
calibrating predictive algorithms to achieve risk control", section 2 (Bonferroni). Dimensions: N rows.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.records import Interval
from headrace.stats.intervals import wilson

ALPHA = 0.05
_SHARES = tuple(i / 10 for i in range(10, 0, -1))
"""Of the rows that would be answered, at the thresholds that are tried."""


@dataclass(frozen=True)
class Threshold:
    """Answers below it are held back."""

    confidence: float
    """0: all are given."""
    answered: Interval
    """Share of the rows that are still answered."""
    wrong: Interval
    """Share of those that are wrong."""


def threshold(
    confidences: NDArray[Any], is_right: NDArray[Any], *, max_wrong_share: float, alpha: float = ALPHA
) -> Threshold | None:
    """The lowest threshold of those tried that keeps the promise; None where none is known to.

    Args:
        confidences: of answers to rows that neither training nor calibration saw (N).
    """
    order = np.argsort(-np.asarray(confidences, dtype=np.float64), kind="stable")
    sure, wrong = np.asarray(confidences, dtype=np.float64)[order], ~np.asarray(is_right, dtype=bool)[order]
    total = len(sure)
    for share in _SHARES:
        n = round(share * total)
        if n == 0:
            return None
        n = int(np.searchsorted(-sure, -sure[n - 1], side="right"))  # rows as sure as the last are answered too
        n_wrong = int(wrong[:n].sum())
        if chance_of_at_most(n_wrong, n, max_wrong_share) <= alpha / len(_SHARES):
            answered, of_those = wilson(n, total), wilson(n_wrong, n)
            assert answered is not None
            assert of_those is not None
            return Threshold(0.0 if n == total else float(sure[n - 1]), answered, of_those)
    return None


def chance_of_at_most(k: int, n: int, p: float) -> float:
    """P(Binomial(n, p) <= k)."""
    if p <= 0 or p >= 1:
        return float(p <= 0 or k >= n)
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(k + 1)
    ]
    return min(1.0, math.exp(float(np.logaddexp.reduce(logs))))
