"""Evidence that one of two paired answerers is better, valid however often and whenever one looks.

Only disagreements inform: a *win* is a pair where the candidate is right and the control wrong, a *loss* the reverse.
Under "the candidate is no better" a disagreement is a win with probability p <= 1/2, whatever came before: the coin of
headrace.stats.beta_mixture with p0 = 1/2 and p spread evenly over (1/2, 1],

    E(W, L) = 2 * integral from 1/2 to 1 of (2p)^W (2(1-p))^L dp

Two one-sided tests use it: E(W, L) speaks for benefit and E(L, W) for harm. By Ville's inequality P(E ever reaches
1/alpha) <= alpha. (Ramdas et al. 2023, "Game-theoretic statistics and safe anytime-valid inference", sections 2 and 3.)
Decisions take the value of now: it hangs on the counts alone, while the largest one so far, which the inequality covers
too, hangs on the order in which labels come. Whether a pair gets its label may hang on the two answers, never on which
of them is right.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from headrace.stats import beta_mixture
from headrace.stats.beta_mixture import Floats

_MOST_PAIRS = 10**7  # further than anyone will label


@dataclass(frozen=True)
class Pairs:
    """All that the evidence of paired answers rests on; parts of a stream may be added."""

    wins: int = 0
    losses: int = 0
    agreements: int = 0

    def __add__(self, other: "Pairs") -> "Pairs":
        return Pairs(self.wins + other.wins, self.losses + other.losses, self.agreements + other.agreements)

    @property
    def n_disagreements(self) -> int:
        return self.wins + self.losses

    @property
    def n(self) -> int:
        return self.n_disagreements + self.agreements


@dataclass(frozen=True)
class Forecast:
    """Labelled disagreements that are still to come before a decision, by what was seen so far.

    About half of such releases need no more than `middle`, nine in ten no more than `high`, one or two in ten no more
    than `low`. None is more than anyone will label: with a `high` of None there may never be a decision.
    """

    low: int | None
    middle: int | None
    high: int | None


def log_es(wins: ArrayLike, losses: ArrayLike) -> Floats:
    """Natural logarithm of E(wins, losses) of many counts at once; swap the arguments for the evidence of harm."""
    return beta_mixture.log_es(wins, np.add(wins, losses), 0.5)


def log_e(wins: int, losses: int) -> float:
    """`log_es` of one pair of counts, a hundred times faster than through arrays.

    With n = W + L the integral is a binomial sum: E = sum(k <= W, C(n+1, k)) / ((n+1) C(n, W)). Its terms fall from
    k = W down while W <= L. Above, E(W, L) + E(L, W) = 2^(n+1) W! L! / (n+1)! gives it from the smaller one.
    """
    if wins < 0 or losses < 0:
        raise ValueError(f"counts cannot be negative: {wins}, {losses}")
    if wins <= losses:
        return math.log(_smaller_e(wins, losses))
    n = wins + losses
    log_sum = (n + 1) * math.log(2) + math.lgamma(wins + 1) + math.lgamma(losses + 1) - math.lgamma(n + 2)
    return log_sum + math.log1p(-math.exp(math.log(_smaller_e(losses, wins)) - log_sum))


def _smaller_e(wins: int, losses: int) -> float:
    """E for wins <= losses, never above 1: (1 + r1 + r1 r2 + ...) / (L+1) with rj = (W-j+1) / (L+1+j)."""
    term = total = 1.0
    for j in range(1, wins + 1):
        term *= (wins - j + 1) / (losses + 1 + j)
        total += term
        if term < total * 1e-17:
            break
    return total / (losses + 1)


def n_more_wins_and_losses(pairs: Pairs, *, alpha: float) -> int | None:
    """Further disagreements after which E (of benefit or harm, whichever leads) reaches 1/alpha at the seen rate.

    None when the seen rate favours neither side, or no reachable number would do.
    """
    if pairs.wins == pairs.losses:
        return None
    return _n_more(pairs, pairs.wins / pairs.n_disagreements, math.log(1 / alpha))


def forecast(pairs: Pairs, *, alpha: float, n_hypotheses: int = 1) -> Forecast:
    """How many more labelled disagreements until E of benefit or harm reaches n_hypotheses / alpha.

    The rate of winning is not known, so the answer is not one number: for each of 19 equally likely rates of the
    posterior Beta(wins + 1, losses + 1), counts go on at that rate.
    """
    threshold = math.log(n_hypotheses / alpha)
    needed = [_n_more(pairs, rate, threshold) for rate in _likely_rates(pairs)]
    by_size = sorted(needed, key=lambda n: math.inf if n is None else n)
    return Forecast(by_size[1], by_size[9], by_size[17])


def _n_more(pairs: Pairs, rate: float, threshold: float) -> int | None:
    def decides(more: int) -> bool:
        gained = round(more * rate)
        wins, losses = pairs.wins + gained, pairs.losses + more - gained
        return log_e(max(wins, losses), min(wins, losses)) >= threshold

    if decides(0):
        return 0
    low, high = 0, 1
    while not decides(high):
        low, high = high, 2 * high
        if high > _MOST_PAIRS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def _likely_rates(pairs: Pairs) -> list[float]:
    """The 5th, 10th, ... and 95th percentile of Beta(wins + 1, losses + 1)."""
    a, b = pairs.wins + 1, pairs.losses + 1
    mean, spread = a / (a + b), math.sqrt(a * b / (a + b + 1)) / (a + b)
    rates = np.linspace(max(0.0, mean - 10 * spread), min(1.0, mean + 10 * spread), 4003)[1:-1]
    density = pairs.wins * np.log(rates) + pairs.losses * np.log1p(-rates)
    heap = np.exp(density - density.max()).cumsum()
    found: list[float] = np.interp(np.arange(1, 20) / 20, heap / heap[-1], rates).tolist()
    return found
