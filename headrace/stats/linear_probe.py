"""Logistic regression on frozen vectors: the yardstick of sources, label errors and drift. numpy only.

Dimensions: N rows, D width of the vectors, K classes.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
PENALTY = 0.1
"""Of half the squared weights beside the summed loss: 1 / C in scikit-learn. Unit vectors need little."""
_MEMORY = 10  # pairs of steps and gradients from which L-BFGS knows the curvature
_MOST_STEPS = 300
_TOLERANCE = 1e-4  # largest entry of the gradient, over the number of rows, at which it is done
_ENOUGH_DECREASE = 1e-4


def fit(
    vectors: NDArray[Any],
    targets: NDArray[np.int64],
    n_classes: int,
    *,
    row_weights: Floats | None = None,
    penalty: float = PENALTY,
    start: Floats | None = None,
    tolerance: float = _TOLERANCE,
) -> Floats:
    """Weights (D + 1, K), the last row without penalty, of multinomial logistic regression; the one minimum.

    Args:
        vectors: (N, D).
        targets: (N,) in [0, K).
        row_weights: how much each row counts (N); 1 where None.
        start: weights to begin from, such as those of nearly the same rows.
    """
    x = np.asarray(vectors, dtype=np.float64)
    counts = np.ones(len(x)) if row_weights is None else np.asarray(row_weights, dtype=np.float64)
    truth = np.eye(n_classes)[targets]
    total = max(counts.sum(), 1e-12)

    def loss(flat: Floats) -> tuple[float, Floats]:
        w = flat.reshape(-1, n_classes)
        logs = _log_softmax(x @ w[:-1] + w[-1])
        value = -(counts * (logs * truth).sum(axis=1)).sum() + penalty / 2 * np.square(w[:-1]).sum()
        residuals = (np.exp(logs) - truth) * counts[:, None]
        gradient = np.concatenate([x.T @ residuals + penalty * w[:-1], residuals.sum(axis=0, keepdims=True)])
        return float(value / total), gradient.ravel() / total

    first = np.zeros((x.shape[1] + 1, n_classes)) if start is None else start
    return _minimum(loss, first.ravel(), tolerance).reshape(-1, n_classes)


def log_probs(weights: Floats, vectors: NDArray[Any]) -> Floats:
    """Log-probabilities (N, K) of vectors (N, D)."""
    return _log_softmax(np.asarray(vectors, dtype=np.float64) @ weights[:-1] + weights[-1])


def out_of_fold(
    vectors: NDArray[Any],
    targets: NDArray[np.int64],
    n_classes: int,
    *,
    seed: int,
    n_folds: int = 5,
    groups: NDArray[Any] | None = None,
    penalty: float = PENALTY,
) -> Floats:
    """Probabilities (N, K) of each row by a fit on the other folds.

    Args:
        groups: rows of one group (N) share a fold, such as one text under several labels.
    """
    rng = np.random.default_rng(seed)
    places = np.arange(len(targets)) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    n_groups = int(places.max(initial=-1)) + 1
    if n_groups < n_folds:
        raise ValueError(f"{n_groups} rows or groups are fewer than {n_folds} folds")
    folds = rng.permutation(np.arange(n_groups) % n_folds)[places]
    found = np.zeros((len(targets), n_classes))
    for fold in range(n_folds):
        mine = folds == fold
        weights = fit(vectors[~mine], targets[~mine], n_classes, penalty=penalty)  # another's start has seen these rows
        found[mine] = np.exp(log_probs(weights, vectors[mine]))
    return found


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def _minimum(loss: Callable[[Floats], tuple[float, Floats]], place: Floats, tolerance: float) -> Floats:
    """Where a smooth convex function is least: L-BFGS (Nocedal and Wright 2006, "Numerical Optimization", 7.4, 7.5)."""
    history: deque[tuple[Floats, Floats]] = deque(maxlen=_MEMORY)
    value, gradient = loss(place)
    for _ in range(_MOST_STEPS):
        if np.abs(gradient).max() <= tolerance:
            break
        direction = -_inverse_times(history, gradient)
        slope, size = float(gradient @ direction), 1.0
        while True:
            new_value, new_gradient = loss(place + size * direction)
            if new_value <= value + _ENOUGH_DECREASE * size * slope:
                break
            size /= 2
            if size < 1e-10:  # rounding is all that is left
                return place
        step, change = size * direction, new_gradient - gradient
        if step @ change > 1e-14 * (change @ change):
            history.append((step, change))
        place, value, gradient = place + step, new_value, new_gradient
    return place


def _inverse_times(history: deque[tuple[Floats, Floats]], gradient: Floats) -> Floats:
    """The inverse Hessian, as far as the history tells, times the gradient (algorithm 7.4)."""
    q, alphas = gradient.copy(), []
    for step, change in reversed(history):
        alpha = (step @ q) / (step @ change)
        alphas.append(alpha)
        q -= alpha * change
    if history:
        step, change = history[-1]
        q *= (step @ change) / (change @ change)
    else:
        q /= max(1.0, float(np.abs(gradient).max()))
    for (step, change), alpha in zip(history, reversed(alphas), strict=True):
        q += step * (alpha - (change @ q) / (step @ change))
    return q
