"""How often answers are right, from the few that were audited at random with known probability. numpy only.

Volunteered feedback takes no part: who answers hangs on what the answer was, and no formula mends that unless it knows
how. An audit is asked for with a probability that is chosen before and kept; one over it is how many requests the
audited one stands for. A *proxy* that every request has, such as the calibrated confidence, takes the part of the
spread that it explains, and none if it explains nothing.

Of n requests, A marks the audited ones, p is the probability, y is right (0..1), f the proxy, a = A / p:

    estimate = Y + s (F - G),   Y = sum(a y) / sum(a),   G = sum(a f) / sum(a),   F = sum(f) / n
    error^2  = (var(U) - cov(U, V)^2 / var(V)) / n,      s = cov(U, V) / var(V),   n = sum(a), but for chance
    U = a (y - Y),   V = a (f - G) - (f - F)

Y alone is the Horvitz-Thompson estimate in Hajek's form (Horvitz and Thompson 1952; Hajek 1971); without a proxy, the
audited requests are all it takes. With f it is augmented (AIPW: Robins, Rotnitzky and Zhao 1994), the slope s that of
PPI++ (Angelopoulos, Duchi and Zrnic 2023, "PPI++: Efficient Prediction-Powered Inference", section 6), for
probabilities that may differ. The variance is that of the linear form of the estimate over requests that are drawn
independently.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.records import Interval
from headrace.stats import confidence_sequences
from headrace.stats.intervals import LEVEL, wilson

FLOOR = 0.002
"""Least probability of an audit: a request stands for at most 500."""
MIN_FOR_PROXY = 30
"""Audits below which the proxy is not used: its slope would be a guess."""
MIN_ALWAYS = 50
"""Audits below which there is no interval that holds at all times: its law is one of large numbers."""
_ROUNDING = 1e-12
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Tally:
    """All that estimates rest on; those of parts of the traffic may be added."""

    n_audited: int
    requests: Floats
    """Sums over all requests of (1, f) x (1, f): (2, 2)."""
    once: Floats
    """Sums over audits of a times (1, y, f) x (1, y, f): (3, 3)."""
    twice: Floats
    """The same with a squared: (3, 3)."""

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.n_audited + other.n_audited,
            self.requests + other.requests,
            self.once + other.once,
            self.twice + other.twice,
        )

    def of_requests(self, n: int, proxy: float, proxy_squares: float) -> "Tally":
        """The same audits among so many requests, with these sums of their proxies, where those were made elsewhere."""
        return replace(self, requests=np.array([[n, proxy], [proxy, proxy_squares]], dtype=np.float64))

    @property
    def n(self) -> int:
        """Requests, audited or not."""
        return round(float(self.requests[0, 0]))

    @property
    def n_effective(self) -> float:
        """Audits of equal probability that would say as much (Kish 1965, "Survey Sampling", section 11.7)."""
        return float(self.once[0, 0] ** 2 / self.twice[0, 0]) if self.n_audited else 0.0


def tally(
    probability: NDArray[Any], is_audited: NDArray[np.bool_], right: NDArray[Any], proxy: NDArray[Any] | None = None
) -> Tally:
    """Sums of N requests.

    Args:
        probability: of an audit, as it was when the request came (N).
        right: 0..1 (N); read where `is_audited`, which leaves out those not yet answered (see `matured`, `bounds`).
        proxy: for `right`, known of every request (N).

    Raises:
        ValueError: a probability that is not above 0, or an audit without an answer.
    """
    f = np.zeros(len(probability)) if proxy is None else np.asarray(proxy, dtype=np.float64)
    p, y = (np.asarray(side, dtype=np.float64)[is_audited] for side in (probability, right))
    if len(p) and not 0 < p.min() <= p.max() <= 1:
        raise ValueError(f"probabilities of audits lie in (0, 1], not in {p.min():g} to {p.max():g}")
    if np.isnan(y).any():
        raise ValueError(f"{int(np.isnan(y).sum())} audits have no answer: leave them out, or use bounds")
    everyone = np.stack([np.ones_like(f), f])
    audited = np.stack([np.ones_like(y), y, f[is_audited]])
    return Tally(len(y), everyone @ everyone.T, (audited / p) @ audited.T, (audited / p**2) @ audited.T)


@dataclass(frozen=True)
class Estimated:
    """An accuracy before it has an interval: where it is, its standard error, and how much the proxy was used."""

    accuracy: float
    error: float
    slope: float


def estimated(sums: Tally) -> Estimated | None:
    """Accuracy with its standard error by the formulas above; None without audits."""
    if not sums.n_audited:
        return None
    n, once, twice = sums.requests[0, 0], sums.once, sums.twice
    f_all, y, g = sums.requests[0, 1] / n, once[0, 1] / once[0, 0], once[0, 2] / once[0, 0]
    uu = twice[1, 1] - 2 * y * twice[0, 1] + y * y * twice[0, 0]
    n_fitted, slope, explained = 1, 0.0, 0.0
    if sums.n_audited >= MIN_FOR_PROXY:
        apart = twice[1, 2] - y * twice[0, 2] - g * twice[0, 1] + y * g * twice[0, 0]
        uv = apart - (once[1, 2] - y * once[0, 2])
        vv = twice[2, 2] - 2 * g * twice[0, 2] + g * g * twice[0, 0]
        vv += sums.requests[1, 1] - n * f_all**2 - 2 * (once[2, 2] - g * once[0, 2])
        if vv > _ROUNDING * max(1.0, twice[2, 2]):
            n_fitted, slope, explained = 2, uv / vv, uv * uv / vv
    free = sums.n_audited / max(1, sums.n_audited - n_fitted)
    variance = max(0.0, uu - explained) * free / once[0, 0] ** 2
    return Estimated(float(y + slope * (f_all - g)), math.sqrt(variance), float(slope))


def estimate(sums: Tally, *, level: float = LEVEL) -> Interval | None:
    """Accuracy with an interval for one look; None without audits.

    The interval is Wilson's for as many plain rows as would have the same standard error (Korn and Graubard 1998,
    "Confidence intervals for proportions with small expected number of positive counts", for designs with weights), so
    that few audits that are all right are no certainty.
    """
    found = estimated(sums)
    if found is None:
        return None
    accuracy = min(1.0, max(0.0, found.accuracy))
    spread = accuracy * (1 - accuracy)
    n = spread / found.error**2 if spread > 0 and found.error > 0 else sums.n_effective
    return wilson(accuracy * n, n, level=level)


def estimate_always(sums: Tally, *, n_sharpest: int = 100_000, level: float = LEVEL) -> Interval | None:
    """Accuracy with an interval that may be looked at after every request; None below `MIN_ALWAYS` audits.

    All intervals together hold the truth with probability near `level`, in the limit of many audits.
    The formula and its source are those of `confidence_sequences.margin`; it is sharpest at `n_sharpest` requests.
    """
    found = estimated(sums)
    if found is None or sums.n_audited < MIN_ALWAYS:
        return None
    alpha = (1 - level) / 2  # of each side
    spread = confidence_sequences.rho(n_sharpest, alpha)
    half = found.error * math.sqrt(sums.n) * float(confidence_sequences.margin(sums.n, alpha=alpha, rho=spread))
    accuracy = min(1.0, max(0.0, found.accuracy))
    return Interval(accuracy, max(0.0, accuracy - half), min(1.0, accuracy + half), level)


def by_strata(strata: Sequence[Tally], *, level: float = LEVEL) -> Interval | None:
    """Accuracy over strata, such as channels, each with a slope of its own; None if one of them has no audit.

    Narrower than that of the sum where the proxy is worth more in some strata (Fisch et al. 2024, "Stratified
    Prediction-Powered Inference").
    """
    parts = [estimated(sums) for sums in strata if sums.n]
    shares = [sums.n for sums in strata if sums.n]
    if not parts or any(part is None for part in parts):
        return None
    known = [(share / sum(shares), part) for share, part in zip(shares, parts, strict=True) if part]
    accuracy = min(1.0, max(0.0, sum(share * part.accuracy for share, part in known)))
    error = math.sqrt(sum((share * part.error) ** 2 for share, part in known))
    spread = accuracy * (1 - accuracy)
    n = spread / error**2 if spread > 0 and error > 0 else sum(sums.n_effective for sums in strata)
    return wilson(accuracy * n, n, level=level)


def difference(one: Interval, other: Interval) -> Interval:
    """How much higher `other` is, for accuracies of independent audits such as those of two arms.

    Source: Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10.
    """
    apart = other.estimate - one.estimate
    down = math.hypot(other.estimate - other.low, one.high - one.estimate)
    up = math.hypot(other.high - other.estimate, one.estimate - one.low)
    return Interval(apart, apart - down, apart + up, one.level)


def bounds(
    probability: NDArray[Any],
    is_audited: NDArray[np.bool_],
    right: NDArray[Any],
    proxy: NDArray[Any] | None = None,
    *,
    level: float = LEVEL,
) -> Interval | None:
    """Accuracy where some audits were never answered (NaN in `right`), whatever those would have said.

    The estimate is of the answered ones; the ends take all others to be wrong, or right (Manski 1989, "Anatomy of the
    selection problem"). None where no audit was answered.
    """
    missing = is_audited & np.isnan(right)
    answered = estimate(tally(probability, is_audited & ~missing, right, proxy), level=level)
    ends = [estimate(tally(probability, is_audited, np.where(missing, y, right), proxy), level=level) for y in (0, 1)]
    return between(answered, *ends)


def between(answered: Interval | None, *ends: Interval | None) -> Interval | None:
    """The estimate of the answered audits with the outermost ends of all; None where no audit was answered."""
    if answered is None:
        return None
    low = min(answered.estimate, *(end.low for end in ends if end is not None))
    high = max(answered.estimate, *(end.high for end in ends if end is not None))
    return Interval(answered.estimate, low, high, answered.level)


def matured(asked_at_s: NDArray[Any], answered_at_s: NDArray[Any], *, now_s: float, window_s: float) -> tuple[Any, Any]:
    """Which requests have had `window_s` to be answered, and which of those were answered within it (N each).

    Only they may be compared: of younger ones, the answers that come quickest are there alone, and quick answers are
    not like slow ones. (Chapelle 2014, "Modeling delayed feedback in display advertising", on what goes wrong.)

    Args:
        answered_at_s: NaN while there is no answer (N).
    """
    ripe = np.asarray(asked_at_s) + window_s <= now_s
    return ripe, ripe & (np.asarray(answered_at_s) <= np.asarray(asked_at_s) + window_s)


def scale_of(doubt: NDArray[Any], share: float, *, floor: float = FLOOR) -> float:
    """The factor with which `probabilities` audits `share` of requests with such doubts (N).

    Raises:
        ValueError: the floor alone asks for more.
    """
    if not floor <= share <= 1:
        raise ValueError(f"a share of audits lies between the floor, {floor}, and 1, not at {share}")
    low, high = 0.0, 1 / max(_ROUNDING, float(np.min(doubt)))
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if probabilities(doubt, middle, floor=floor).mean() < share else (low, middle)
    return high


def probabilities(doubt: NDArray[Any], scale: float, *, floor: float = FLOOR) -> Floats:
    """Probability of an audit (N) in proportion to doubt, such as sqrt(f (1 - f)) of a confidence f, never below floor.

    In proportion to the spread of what the proxy leaves open is best (Neyman 1934, for strata).
    """
    found: Floats = np.clip(np.asarray(doubt, dtype=np.float64) * scale, floor, 1.0)
    return found


def n_needed(half_width: float, accuracy: float, *, correlation: float = 0.0, level: float = LEVEL) -> int:
    """Audits of equal probability after which an interval is about `half_width` to each side.

    Args:
        correlation: of the proxy with being right.
    """
    z = NormalDist().inv_cdf((1 + level) / 2)
    return math.ceil(z * z * accuracy * (1 - accuracy) * (1 - correlation**2) / half_width**2)
