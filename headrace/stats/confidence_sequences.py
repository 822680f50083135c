"""Is the mean of one arm above that of another, when each request met one of them? Valid however often one looks.

Two ways to say so; both take sums that may be added in any order and parts, and give the same after a restart.

**Betting** (`compare`): holds at every sample size, for shares of requests that are known, also while accuracy drifts.
Every labelled answer becomes a fair estimate of the difference (inverse probability weighting, centred):

    x = (y - centre) * (1 / share if the candidate answered, else -1 / (1 - share))

Its mean is the difference whatever the centre; a centre near the accuracy makes it vary least. Whoever bets that the
mean of x is above m, by stakes fixed before, has after n answers the capital

    K(m) = weighted average over stakes s of  product over i of (1 + s (x_i - m)),   0 < s < 1 / (m - lowest x)

which is a supermartingale if the mean is m or below, so that P(K ever reaches 1/alpha) <= alpha (Ville). Betting on a
fixed grid of stakes at once is what makes the state a sum: with y right or wrong, x takes four values, and counts of
them are all it takes; otherwise the logarithms of the capitals are added. (Waudby-Smith and Ramdas 2024, "Estimating
means of bounded random variables by betting", Theorem 3 and, for grids of stakes, its appendix on grid Kelly;
Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro 2024, "Anytime-valid off-policy inference for contextual bandits",
for weights by inverse probability.)

**Asymptotic** (`asymptotic`): holds where counts are large, as a z-test does, but at all looks together. It needs no
shares of requests, only that answers of an arm are exchangeable. (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024,
"Time-uniform central limit theory and asymptotic confidence sequences", Annals of Statistics 52.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Finding = Literal["benefit", "harm", "undecided"]

DIFFERENCES: Floats = 0.4 * 0.6 ** np.arange(14.0)
"""Differences of means that the stakes are made for, .4 down to .0005; one between two of them is found nearly as fast.
"""
_WEIGHTS: Floats = 1 / (1 + ((np.arange(14.0) - 5.5) / 2) ** 2)
_LOG_WEIGHTS: Floats = np.log(_WEIGHTS / _WEIGHTS.sum())
"""Most for 1 to 5 points."""
_LARGEST_FRACTION = 0.9  # of what can be lost
_LEAST_VARIANCE = 0.01  # of right and wrong, expected of arms said to be always right
_LEAST_LOG = -690.0  # stands for no evidence at all: exp() of it is still above 0
_MOST = 1 - 1e-9  # difference of two accuracies; 1 itself may leave nothing to bet
_N_PARTS, _N_TURNS = 64, 5  # the ends of an interval are searched by parts of parts: known to 2e-9


class Counted(Protocol):
    """Labelled answers of an arm."""

    @property
    def n(self) -> int: ...
    @property
    def n_right(self) -> int: ...


@dataclass(frozen=True)
class Comparison:
    """The difference of the candidate's mean to the control's: how large, and is it told from 0?

    Each of the ends `low` and `high` is wrong with chance alpha at most, over all looks together; `finding` is what
    they say of 0. `p_value` is of "no difference" and holds at all looks: 1 / average of the two e-values.
    """

    finding: Finding
    estimate: float | None
    low: float
    high: float
    p_value: float
    log_e_benefit: float
    log_e_harm: float


def stakes(reach: NDArray[Any] | float, variance: NDArray[Any] | float) -> Floats:
    """Stakes (..., S): difference / variance, the best of a small difference, unless that could lose nearly all.

    Args:
        reach: how far outcomes may fall to the wrong side of the mean that is bet against (...).
        variance: of outcomes, as expected (...). A wrong one costs outcomes, not validity.
    """
    best = DIFFERENCES / np.asarray(variance, dtype=np.float64)[..., None]
    value: Floats = np.minimum(best, _LARGEST_FRACTION / np.asarray(reach, dtype=np.float64)[..., None])
    return value


@dataclass(frozen=True)
class Bets:
    """What is bet on: outcomes between `low` and `high`, and for every mean in `means` that they lie above or below it.

    Capitals are logarithms in arrays (2, M, S): above and below, M means, S stakes. Add those of parts of a stream.
    `variance` is that expected of the outcomes, before any is seen.
    """

    low: float
    high: float
    variance: float
    means: tuple[float, ...] = (0.0,)

    def stakes(self) -> Floats:
        """Stakes (2, M, S).

        Raises:
            ValueError: a mean outside the outcomes.
        """
        means = np.asarray(self.means)
        reach = np.stack([means - self.low, self.high - means])
        if not np.all(reach > 0):
            raise ValueError(f"means have to lie between {self.low} and {self.high}: {self.means}")
        return stakes(reach, np.full_like(reach, self.variance))

    def log_capitals(self, outcomes: NDArray[Any], counts: NDArray[Any] | None = None) -> Floats:
        """Logarithms of capitals (..., 2, M, S) after outcomes (N,), each seen counts (..., N) times, once if None."""
        values = np.asarray(outcomes, dtype=np.float64)
        ahead = (values[:, None] - np.asarray(self.means))[:, None, :, None] * np.array([1.0, -1.0])[:, None, None]
        logs = np.log1p(self.stakes() * ahead)
        times = np.ones(len(values)) if counts is None else np.asarray(counts, dtype=np.float64)
        total: Floats = np.tensordot(times, logs, axes=1)
        return total

    def interval(self, log_capitals: Floats, *, alpha: float) -> tuple[float, float]:
        """The lowest and the highest of `means` that is not refuted; the next one outside where there is one.

        Both ends are -inf or inf where even the outermost mean is not refuted.
        """
        above, below = log_e(log_capitals) >= math.log(1 / alpha)
        means = np.asarray(self.means)
        return (
            float(np.max(means[above], initial=-math.inf)),
            float(np.min(means[below], initial=math.inf)),
        )


def log_e(log_capitals: Floats) -> Floats:
    """Logarithm of the capital of all stakes together, each with its share of the start: (..., S) to (...)."""
    weighted = log_capitals + _LOG_WEIGHTS
    top = weighted.max(axis=-1, keepdims=True)
    value: Floats = top[..., 0] + np.log(np.exp(weighted - top).sum(axis=-1))
    return value


def estimates(candidate_share: float, centre: float) -> Floats:
    """The four values (4,) of x: control wrong, control right, candidate wrong, candidate right.

    Raises:
        ValueError: a share that leaves an arm without answers.
    """
    if not 0 < candidate_share < 1:
        raise ValueError(f"both arms need a share of the requests, so above 0 and below 1: {candidate_share}")
    of_answer = np.array([0.0 - centre, 1.0 - centre])
    return np.concatenate([-of_answer / (1 - candidate_share), of_answer / candidate_share])


def bets(candidate_share: float, centre: float, means: tuple[float, ...] = (0.0,)) -> Bets:
    """Bets on the difference of two arms whose outcomes lie between 0 and 1."""
    values = estimates(candidate_share, centre)
    variance = max(centre * (1 - centre), _LEAST_VARIANCE) / (candidate_share * (1 - candidate_share))
    return Bets(float(values.min()), float(values.max()), variance, means)


def compare(
    control: Counted, candidate: Counted, *, alpha: float, candidate_share: float = 0.5, centre: float = 0.5
) -> Comparison:
    """Right and wrong answers of two arms, compared by betting.

    Args:
        candidate_share: of the requests to these two arms, that went to the candidate; constant and known. Where it
            changed, add `capitals` of the parts and use `finding`.
        centre: an accuracy to expect, fixed before the first label, such as the control's on held-out rows. A wrong one
            costs labels, not validity.
    """
    counts = _cells(control, candidate)
    values = estimates(candidate_share, centre)
    log_e_benefit, log_e_harm = log_e(bets(candidate_share, centre).log_capitals(values, counts))[:, 0]
    low, high = _ends(candidate_share, centre, counts, alpha)
    estimate = None
    if control.n and candidate.n:
        estimate = candidate.n_right / candidate.n - control.n_right / control.n
    return Comparison(
        finding(float(log_e_benefit), float(log_e_harm), alpha=alpha),
        estimate,
        low,
        high,
        p_value(float(log_e_benefit), float(log_e_harm)),
        float(log_e_benefit),
        float(log_e_harm),
    )


def capitals(control: Counted, candidate: Counted, *, candidate_share: float, centre: float) -> Floats:
    """Logarithms of capitals (2, S) against "no difference", to be added over parts with shares of their own."""
    values = estimates(candidate_share, centre)
    logs: Floats = bets(candidate_share, centre).log_capitals(values, _cells(control, candidate))[:, 0]
    return logs


def log_es(
    parts: Sequence[tuple[float, Sequence[tuple[int, int, int, int]]]], *, n_groups: int, centre: float
) -> list[tuple[float, float]]:
    """Log e-values of benefit and harm against "no difference": of all groups together, then of each.

    Args:
        parts: of a stream, each with the candidate's share in it, and of each group the control's wrong and right
            answers and the candidate's.
    """
    total = np.zeros((n_groups, 2, len(DIFFERENCES)))
    for share, cells in parts:
        counts = np.asarray(cells, dtype=np.int64).reshape(n_groups, 4)
        total += bets(share, centre).log_capitals(estimates(share, centre), counts)[..., 0, :]
    found = log_e(np.concatenate([total.sum(axis=0, keepdims=True), total]))
    return [(float(benefit), float(harm)) for benefit, harm in found]


def _cells(control: Counted, candidate: Counted) -> NDArray[np.int64]:
    """Counts (4,) of the values of `estimates`."""
    return np.array([control.n - control.n_right, control.n_right, candidate.n - candidate.n_right, candidate.n_right])


def finding(log_e_benefit: float, log_e_harm: float, *, alpha: float) -> Finding:
    """Which side has reached 1 / alpha; the larger one, should both have."""
    if max(log_e_benefit, log_e_harm) < math.log(1 / alpha):
        return "undecided"
    return "benefit" if log_e_benefit > log_e_harm else "harm"


def p_value(log_e_benefit: float, log_e_harm: float) -> float:
    """Of "no difference": one over the average of two e-values, which is an e-value under any dependence."""
    top = max(log_e_benefit, log_e_harm)
    log_mean = top + math.log((1 + math.exp(-abs(log_e_benefit - log_e_harm))) / 2)
    return min(1.0, math.exp(-max(0.0, log_mean)))


def _ends(candidate_share: float, centre: float, counts: NDArray[Any], alpha: float) -> tuple[float, float]:
    """Largest mean refuted from below and smallest from above: K(m) falls in m for one and rises for the other."""
    values, parts = estimates(candidate_share, centre), np.linspace(0, 1, _N_PARTS + 1)
    refuted, kept = np.array([-_MOST, _MOST]), np.array([_MOST, -_MOST])
    for turn in range(_N_TURNS):
        tried = refuted[:, None] + (kept - refuted)[:, None] * parts
        capital = log_e(bets(candidate_share, centre, tuple(tried.ravel())).log_capitals(values, counts))
        n_refuted = (capital.reshape(2, 2, -1)[[0, 1], [0, 1]] >= math.log(1 / alpha)).sum(axis=1)
        if turn == 0:
            is_open = n_refuted == 0
        at = np.maximum(n_refuted - 1, 0)
        refuted, kept = tried[[0, 1], at], tried[[0, 1], np.minimum(at + 1, _N_PARTS)]
    low, high = np.where(is_open, [-1.0, 1.0], refuted)
    return float(low), float(high)


def asymptotic(control: Counted, candidate: Counted, *, alpha: float, n_tuned: float = 5000) -> Comparison:
    """Right and wrong answers of two arms, compared as normal at large counts; undecided while an arm has none.

    The difference of means has the variance s^2 / n with n all labelled answers and s^2 = n (v0 / n0 + v1 / n1), the
    mean of the squared influence function of their section 3.2. Each v is that of a share with one right and one wrong
    answer added (Agresti and Caffo 2000), and no less than that of both arms together: a small arm that was always
    right so far is no proof that it always will be. Without that, the level is 10 % for an arm of 5 % of the requests.

    Args:
        n_tuned: labelled answers of both arms together at which the interval is to be narrowest.
    """
    if not control.n or not candidate.n:
        return Comparison("undecided", None, -1.0, 1.0, 1.0, _LEAST_LOG, _LEAST_LOG)
    n, spread = control.n + candidate.n, rho(n_tuned, alpha)
    estimate = candidate.n_right / candidate.n - control.n_right / control.n
    pooled = _variance(n, control.n_right + candidate.n_right)
    variances = [max(pooled, _variance(arm.n, arm.n_right)) for arm in (control, candidate)]
    sd = math.sqrt(n * (variances[0] / control.n + variances[1] / candidate.n))
    half = sd * float(margin(n, alpha=alpha, rho=spread))
    benefit, harm = (_log_e_normal(sign * estimate * n / sd, n, spread) for sign in (1, -1))
    return Comparison(
        finding(benefit, harm, alpha=alpha),
        estimate,
        max(-1.0, estimate - half),
        min(1.0, estimate + half),
        p_value(benefit, harm),
        benefit,
        harm,
    )


def rho(n: float, alpha: float) -> float:
    """The spread of the mixture with which `margin` is narrowest at n outcomes, nearly.

    rho^2 = (-2 log a + log(-2 log a + 1)) / n, the expansion of Lambert's W in section B.2 of Waudby-Smith et al. 2024,
    with a = 2 alpha, as `margin` is one-sided.
    """
    tail = -2 * math.log(min(2 * alpha, 0.99))
    return math.sqrt((tail + math.log1p(tail)) / n)


def margin(n: NDArray[Any] | float, *, alpha: float, rho: float) -> Floats:
    """How far the mean of n outcomes of variance 1 ever lies above their expectation, but for chance alpha.

    sqrt(2 (n rho^2 + 1) / (n^2 rho^2) * log(1 + sqrt(n rho^2 + 1) / (2 alpha))): Theorem 2.2 of Waudby-Smith et al.
    2024 in the one-sided form of section B.1; the mixture is that of Robbins 1970.
    """
    t = np.asarray(n, dtype=np.float64) * rho**2 + 1
    value: Floats = np.sqrt(2 * t * np.log1p(np.sqrt(t) / (2 * alpha))) / (np.asarray(n, dtype=np.float64) * rho)
    return value


def _log_e_normal(total: float, n: int, rho: float) -> float:
    """Logarithm of 1 / alpha of the `margin` that a sum of n outcomes of variance 1 just reaches."""
    t = n * rho**2 + 1
    power = max(0.0, total) ** 2 * rho**2 / (2 * t)
    if power == 0:
        return _LEAST_LOG
    log_gain = power + math.log1p(-math.exp(-power))  # of exp(power) - 1
    return max(_LEAST_LOG, math.log(2) + log_gain - math.log(t) / 2)


def _variance(n: int, n_right: int) -> float:
    share = (n_right + 1) / (n + 2)
    return share * (1 - share)
