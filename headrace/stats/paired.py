"""Is one of two answerers better on the same rows, and for which of many channels? Exact or seeded; numpy only.

Rows on which both score alike say nothing; the others are *differing* rows, and one is *won* where the second scores
higher. Under "the second is no better", each differing row is won or lost with equal chance, or worse.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_EXACT = 14  # differing rows whose signs are all tried: 16,384 sums
_MOST_DRAWS = 99_999
_ENOUGH = 30  # draws as high as what was seen after which a p-value is known well enough
_BLOCK = 1000
Scores = NDArray[np.floating[Any]]


def mcnemar(n_won: int, n_lost: int) -> float:
    """Chance of at least `n_won` of the differing rows, if winning and losing one are as likely; 1 without any.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions"; the exact,
    one-sided form, a binomial test of the rows that are right for one alone.
    """
    n = n_won + n_lost
    total = term = math.comb(n, n_won)
    for k in range(n_won, n):
        term = term * (n - k) // (k + 1)
        total += term
    chance: float = total / 2**n  # of integers: rounded once
    return chance


def sign_flips(differences: Scores, *, seed: int = 0) -> float:
    """Chance that the sum of differences (N,) is as high as it is, if each might as well have had the other sign.

    All signs are tried for up to 14 differing rows. Beyond, signs are drawn up to 99,999 times, and no more once 30
    draws were as high: p is then 30 over the draws made, else (draws as high + 1) / (draws + 1). Both keep the level.
    Source: Fisher 1935, "The Design of Experiments", section 21; Besag and Clifford 1991, "Sequential Monte Carlo
    p-values".
    """
    sizes = np.asarray(differences, dtype=np.float64)
    sizes = sizes[sizes != 0]
    if not len(sizes):
        return 1.0
    lowest = float(sizes.sum()) - 1e-9 * float(np.abs(sizes).sum())  # equal sums that are rounded apart stay equal
    if len(sizes) <= _MOST_EXACT:
        return float(np.mean(_all_sums(sizes) >= lowest))
    return _drawn(np.abs(sizes), lowest, np.random.default_rng(seed))


def _all_sums(sizes: Scores) -> Scores:
    """The sums (2^N,) under every choice of signs."""
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums + size, sums - size])
    return sums


def _drawn(sizes: Scores, lowest: float, rng: np.random.Generator) -> float:
    n_high = n_draws = 0
    while n_draws < _MOST_DRAWS:
        n = min(_BLOCK, _MOST_DRAWS - n_draws)
        signs = rng.integers(0, 2, size=(n, len(sizes)), dtype=np.int8) * 2.0 - 1.0
        high = np.flatnonzero(signs @ sizes >= lowest)
        if n_high + len(high) >= _ENOUGH:
            return _ENOUGH / (n_draws + int(high[_ENOUGH - n_high - 1]) + 1)
        n_high, n_draws = n_high + len(high), n_draws + n
    return (n_high + 1) / (n_draws + 1)


def n_needed(n_tests: int, *, alpha: float) -> int:
    """Differing rows from which one of `n_tests` can come out at all: so many that, all won, p <= alpha / n_tests."""
    if alpha >= 1:
        return 1
    return max(1, math.ceil(math.log2(max(1, n_tests) / alpha) - 1e-12))


def worth_testing(n_differing: Mapping[str, int], *, alpha: float) -> list[str]:
    """The names whose test could come out, given how many rows differ; testing the others would only cost power.

    As which of the rows are won is not looked at, Holm's correction over these alone keeps the level. Source: Tarone
    1990, "A modified Bonferroni method for discrete data".
    """
    n_tests = 1
    while sum(n >= n_needed(n_tests, alpha=alpha) for n in n_differing.values()) > n_tests:
        n_tests += 1
    return sorted(name for name, n in n_differing.items() if n >= n_needed(n_tests, alpha=alpha))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values: below alpha for any name at all with chance alpha at most, where none has an effect.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted, highest, n_left = {}, 0.0, len(p_values)
    for name, p in sorted(p_values.items(), key=lambda item: (item[1], item[0])):
        highest = max(highest, min(1.0, p * n_left))
        adjusted[name] = highest
        n_left -= 1
    return adjusted
