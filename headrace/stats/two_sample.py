"""Do rows of now come from where rows of the reference came from? Of single numbers, and of vectors. numpy only.

Dimensions: N and M rows, D width, K classes.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.stats import linear_probe

Floats = NDArray[np.float64]
STAKES = np.array([0.1, 0.3, 0.6, 0.9])
"""Of the capital that is bet on each pair: small ones for a classifier that is hardly better than chance."""
PENALTY = 10.0
"""On the classifier's weights: a few hundred rows of some hundred numbers would else be told apart by heart."""
_N_TERMS = 100


def kolmogorov_smirnov(reference: NDArray[Any], now: NDArray[Any]) -> tuple[float, float]:
    """Largest distance of the distributions of two sets of numbers (N and M), and its p-value for one look.

    Source: Kolmogorov's law with the correction of Stephens 1970, "Use of the Kolmogorov-Smirnov, Cramer-von Mises and
    related statistics without extensive tables". Ties make it conservative.
    """
    a, b = np.sort(reference), np.sort(now)
    if not len(a) or not len(b):
        return 0.0, 1.0
    values = np.concatenate([a, b])
    shares = [np.searchsorted(side, values, side="right") / len(side) for side in (a, b)]
    distance = float(np.abs(shares[0] - shares[1]).max())
    n = math.sqrt(len(a) * len(b) / (len(a) + len(b)))
    x = (n + 0.12 + 0.11 / n) * distance
    if x < 0.2:  # the series would need many terms to say 1
        return distance, 1.0
    j = np.arange(1, _N_TERMS)
    return distance, float(np.clip(2 * ((-1.0) ** (j - 1) * np.exp(-2 * (j * x) ** 2)).sum(), 0.0, 1.0))


def shifted_classes(reference: NDArray[Any], now: NDArray[Any]) -> tuple[float, list[tuple[int, float, float]]]:
    """One p-value for "the probabilities of all classes are as before", and each class's distance and p-value, by p.

    Source: Rabanser, Gunnemann and Lipton 2019, "Failing Loudly", section 3 (BBSDs: a test for each class with
    Bonferroni's correction).

    Args:
        reference: probabilities (N, K).
        now: probabilities (M, K).
    """
    found = [(k, *kolmogorov_smirnov(reference[:, k], now[:, k])) for k in range(reference.shape[1])]
    return min(1.0, len(found) * min(p for _, _, p in found)), sorted(found, key=lambda one: (one[2], -one[1]))


def log_e(reference: NDArray[Any], now: NDArray[Any], *, seed: int) -> float:
    """Logarithm of an e-value against "vectors of now are like those of the reference".

    A classifier learns, from half of the rows of each kind, which is which. Each row of now in the other half is paired
    with a row of the reference; were they alike, the classifier would favour the right one as often as the wrong one:

        E = mean over stakes s of  product over pairs of (1 + s (2 sigmoid(g(now) - g(reference)) - 1))

    Source: Pandeva, Bakker, Naesseth and Forre 2024, "E-valuating classifier two-sample tests"; pairs in place of
    labels make each factor fair without a model of the shares.

    Args:
        reference: (N, D), drawn from at random.
        now: (M, D); M at most N.

    Raises:
        ValueError: more rows of now than of the reference, or fewer than 4.
    """
    n = len(now)
    if not 4 <= n <= len(reference):
        raise ValueError(f"{n} rows of now; at least 4, at most the {len(reference)} of the reference are compared")
    rng = np.random.default_rng(seed)
    before, mine = rng.permutation(len(reference))[:n], rng.permutation(n)
    half = n // 2
    rows = np.concatenate([reference[before[:half]], now[mine[:half]]])
    sides = np.repeat([0, 1], half)
    centre, scale = rows.mean(axis=0), rows.std(axis=0) + 1e-9
    weights = linear_probe.fit((rows - centre) / scale, sides, 2, penalty=PENALTY)
    slope = (weights[:-1, 1] - weights[:-1, 0]) / scale
    favour = (np.asarray(now)[mine[half:]] - np.asarray(reference)[before[half:]]) @ slope
    logs = np.log1p(STAKES * np.tanh(favour / 2)[:, None]).sum(axis=0)  # 2 sigmoid(x) - 1 = tanh(x / 2)
    top = logs.max()
    return float(top + np.log(np.exp(logs - top).mean()))
