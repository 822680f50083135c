"""Evidence that a coin shows its event more often than p0, valid however often and whenever one looks.

Under "the chance of the event is at most p0, whatever came before", the likelihood ratio of any p > p0 against p0 is a
supermartingale, and so is its mean over p from a Beta(a, b) law cut off below p0 (Robbins 1970, "Statistical methods
related to the law of the iterated logarithm", the method of mixtures). With k events in n tries and
U(a, b) = integral from p0 to 1 of t^(a-1) (1-t)^(b-1) dt:

    E(k, n) = U(a + k, b + n - k) / (U(a, b) p0^k (1 - p0)^(n-k))                                             (1)

By Ville's inequality P(E ever reaches 1/alpha) <= alpha. (Ramdas et al. 2023, "Game-theoretic statistics and safe
anytime-valid inference", sections 2 and 3.) E rests on two whole numbers, so parts of a stream are added, and a replay
gives the same bits. numpy only; arguments are broadcast.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_PRECISION = 1e-15
_MOST_STEPS = 100_000  # of the continued fraction; about the root of the counts are taken
log_gamma = np.vectorize(math.lgamma, otypes=[np.float64])
"""Of each element."""


def log_es(n_events: ArrayLike, n: ArrayLike, p0: float, *, a: float = 1.0, b: float = 1.0) -> Floats:
    """Natural logarithm of E(n_events, n), equation (1); a = b = 1 spreads p evenly over (p0, 1].

    Raises:
        ValueError: p0 is not within (0, 1), or the counts are not 0 <= n_events <= n.
    """
    k, total = (np.asarray(counts, dtype=np.float64) for counts in (n_events, n))
    if not 0 < p0 < 1:
        raise ValueError(f"p0 must be within (0, 1): {p0}")
    if np.any(k < 0) or np.any(k > total):
        raise ValueError(f"counts cannot be negative, nor events more than tries: {n_events!r}, {n!r}")
    k, misses = np.broadcast_arrays(k, total - k)
    nothing = np.zeros(())
    return _log_ratio(k, misses, p0, a, b) - _log_ratio(nothing, nothing, p0, a, b)


def fewest_events(n_most: int, p0: float, *, e: float, a: float = 1.0, b: float = 1.0) -> NDArray[np.int64]:
    """For n = 0 .. n_most (n_most + 1) the fewest events with which E reaches `e`; n + 1 where none do.

    What a look after every try comes down to, since E grows with each event.
    """
    n = np.arange(n_most + 1)
    low, high = np.zeros_like(n), n + 1
    while np.any(low < high):
        middle = (low + high) // 2
        reached = log_es(np.minimum(middle, n), n, p0, a=a, b=b) >= math.log(e)
        low, high = np.where(reached | (low == high), low, middle + 1), np.where(reached, middle, high)
    return low


def _log_ratio(k: Floats, misses: Floats, p0: float, a: float, b: float) -> Floats:
    """log(U(a + k, b + misses) / (p0^k (1 - p0)^misses)), without rounding off what cancels."""
    above, below = a + k, b + misses
    is_small = p0 >= (above + 1) / (above + below + 2)  # the part above p0: its own fraction converges there
    edge = a * math.log(p0) + b * math.log1p(-p0)
    shape, other = np.where(is_small, below, above), np.where(is_small, above, below)
    fraction = _fraction(shape, other, np.where(is_small, 1 - p0, p0))
    tail = edge - np.log(shape) + np.log(fraction)  # of the small part, over p0^k (1 - p0)^misses
    whole = _log_beta(above, below) - k * math.log(p0) - misses * math.log1p(-p0)
    rest = whole + np.log1p(-np.exp(np.minimum(tail - whole, -_PRECISION)))
    found: Floats = np.where(is_small, tail, rest)
    return found


def _log_beta(a: Floats, b: Floats) -> Floats:
    found: Floats = log_gamma(a) + log_gamma(b) - log_gamma(a + b)
    return found


def _fraction(a: Floats, b: Floats, x: Floats) -> Floats:
    """F with integral from 0 to x of t^(a-1) (1-t)^(b-1) dt = x^a (1-x)^b F / a, for x below about a / (a + b).

    Source: the continued fraction 8.17.22 of NIST's Digital Library of Mathematical Functions, by Lentz's method. What
    has converged stays as it is, so a value does not depend on its neighbours.
    """
    c = np.ones_like(a)
    d = 1 / (1 - (a + b) * x / (a + 1))
    value, is_open = d, np.full(a.shape, True)
    for m in range(1, _MOST_STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d, c = 1 / (1 + even * d), 1 + even / c
        step = d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1 / (1 + odd * d), 1 + odd / c
        step = step * d * c
        is_open = is_open & (np.abs(step - 1) > _PRECISION)
        if not np.any(is_open):
            break
        value = np.where(is_open, value * step, value)
    return value
