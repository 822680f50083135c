"""What more labels would bring: error as a power law of the number of rows, with how unsure its continuation is.

    error(n) = floor + scale * (n + shift)^-power                                                              (1)

`shift` is what the rows of others are worth to a channel, in rows of its own. The interval comes from all curves that
fit the points about as well as the best one, each in proportion to its likelihood, and from how far curves of this kind
stray from such a law. Source of the law: Hestness et al. 2017, "Deep learning scaling is predictable, empirically"; of
the need for the floor and of fits to the large end: Viering and Loog 2021, "The shape of learning curves: a review",
sections 3 and 6. numpy only. Dimensions: P points, C curves tried, R draws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.records import Interval

LEVEL = 0.9
MIN_SIZES = 4
"""Different numbers of rows below which a law with four numbers is anybody's guess."""
STRAY = 0.06
"""How far the error strays from the law (standard deviation, as a share of it) for each e-fold beyond the points."""
_POWERS = np.linspace(0.05, 1.5, 30)
_FLOORS = np.linspace(0.0, 1.0, 41)  # of the lowest error seen
_SHIFTS = np.array([0.0, 0.25, 1.0, 4.0])  # of the smallest number of rows
_LEAST_NOISE = 0.002  # 0.2 points: what is left when a fit is repeated on the very same rows
_N_DRAWS = 4000
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """The law as far as the points tell it."""

    sizes: Floats
    """(P,) rows."""
    errors: Floats
    """(P,) seen."""
    noise: float
    """Standard deviation around the law of one of the largest; its square grows as rows become fewer."""
    laws: Floats
    """(C, 4): floor, scale, power, shift of each curve that counts."""
    weights: Floats
    """(C,), of sum 1."""


def fit(sizes: Sequence[float], errors: Sequence[float]) -> Curve | None:
    """The law of P points; None below `MIN_SIZES` different sizes.

    Args:
        sizes: rows trained on, above 0; the same number may come again, from other rows.
        errors: share of wrong answers on the same held-out rows, or another figure that falls towards a floor.
    """
    x, y = np.asarray(sizes, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    if len(np.unique(x)) < MIN_SIZES:
        return None
    floors, powers, shifts = (
        part.ravel() for part in np.meshgrid(_FLOORS * y.min(), _POWERS, _SHIFTS * x.min(), indexing="ij")
    )
    counts = x / x.max()  # the variance between trainings falls as rows grow
    basis = (x + shifts[:, None]) ** -powers[:, None]
    above = y - floors[:, None]
    scales = np.maximum(0.0, (counts * basis * above).sum(axis=1) / (counts * basis**2).sum(axis=1))
    squares = (counts * np.square(above - scales[:, None] * basis)).sum(axis=1)
    free = max(1, len(x) - 3)
    noise = max(_LEAST_NOISE, math.sqrt(float(squares.min()) / free), _between_repeats(x, y))
    logs = -squares / (2 * noise**2)
    weights = np.exp(logs - logs.max())
    kept = weights > 1e-6
    laws = np.stack([floors, scales, powers, shifts], axis=1)[kept]
    return Curve(x, y, noise, laws, weights[kept] / weights[kept].sum())


def forecast(curve: Curve, n_rows: float, *, seed: int, level: float = LEVEL, n_repeats: int | None = None) -> Interval:
    """The error at so many rows: middle and ends of what the curves say.

    Args:
        n_repeats: the interval is for the mean of so many trainings; for the law itself where None.
    """
    drawn = draws(curve, np.array([n_rows]), seed=seed, n_repeats=n_repeats)[:, 0]
    low, middle, high = (float(v) for v in np.quantile(drawn, [(1 - level) / 2, 0.5, (1 + level) / 2]))
    return Interval(middle, low, high, level)


def gain(curve: Curve, n_now: float, n_rows: float, *, seed: int, level: float = LEVEL) -> Interval:
    """By how much the error at `n_rows` is below that at `n_now`, both by the law."""
    drawn = draws(curve, np.array([n_now, n_rows]), seed=seed)
    low, middle, high = (
        float(v) for v in np.quantile(drawn[:, 0] - drawn[:, 1], [(1 - level) / 2, 0.5, (1 + level) / 2])
    )
    return Interval(middle, low, high, level)


def draws(curve: Curve, sizes: Floats, *, seed: int, n_repeats: int | None = None) -> Floats:
    """Errors (R, sizes) by the law, with its strays: what intervals are quantiles of."""
    rng = np.random.default_rng(seed)
    floors, scales, powers, shifts = curve.laws[rng.choice(len(curve.weights), size=_N_DRAWS, p=curve.weights)].T[
        ..., None
    ]
    by_law = floors + scales * (sizes + shifts) ** -powers
    beyond = np.maximum(0.0, np.log(sizes / curve.sizes.max()))
    drawn = by_law * np.exp(STRAY * beyond * rng.normal(size=(_N_DRAWS, 1)))
    if n_repeats:
        noise = curve.noise * np.sqrt(curve.sizes.max() / (sizes * n_repeats))
        drawn = drawn + noise * rng.normal(size=drawn.shape)
    found: Floats = np.clip(drawn, 0.0, None)
    return found


def _between_repeats(x: Floats, y: Floats) -> float:
    """Standard deviation between repeats, as of the largest size; 0 without repeats."""
    _, places, counts = np.unique(x, return_inverse=True, return_counts=True)
    free = len(x) - len(counts)
    if free <= 0:
        return 0.0
    means = np.bincount(places, y) / counts
    return math.sqrt(float((x / x.max() * np.square(y - means[places])).sum()) / free)
