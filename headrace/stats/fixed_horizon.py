"""Tests for when the largest number of labels is stated before the first one: the same level, more power.

What is never looked at beyond a last label need not be guarded there. Three forms, each against "the candidate is no
better" and, with wins and losses swapped, "no worse", each with level alpha:

- `paired`: wins and losses of disagreements, exact at any counts. With one look it is McNemar's exact test (see
  `stats.paired.mcnemar` for its p-value); with more it is group-sequential.
- `unpaired`: right and wrong answers of two arms, normal at large counts, with a look after every answer.
- `z_boundaries`: for any statistic that is normal at large counts, with looks at chosen fractions of all answers.

All spend the error as O'Brien and Fleming do: nearly none early, nearly all at the end. Sources: O'Brien and Fleming
1979, "A multiple testing procedure for clinical trials"; Lan and DeMets 1983, "Discrete sequential boundaries for
clinical trials"; Jennison and Turnbull 1999, "Group Sequential Methods", chapters 2, 7 and 19.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from headrace.stats.confidence_sequences import Counted, Finding

_NORMAL = NormalDist()
_N_NODES = 200  # of the quadrature between looks: boundaries are right to 1e-6
_LOWEST_SD = 8  # paths further down than that never come back in time
_N_HALVINGS = 60
Floats = NDArray[np.float64]


def spent(fraction: float, *, alpha: float) -> float:
    """How much of a one-sided alpha may be spent until a fraction of all answers is in.

    2 - 2 Phi(z / sqrt(fraction)) with Phi(z) = 1 - alpha / 2: Lan and DeMets 1983, alpha*_1.
    """
    if fraction <= 0:
        return 0.0
    z = _NORMAL.inv_cdf(1 - alpha / 2)
    return math.erfc(z / math.sqrt(min(fraction, 1.0)) / math.sqrt(2))


@dataclass(frozen=True)
class Paired:
    """When to look at disagreements, and how many of them have to be wins (or losses) then for a finding.

    `looks` are counts of disagreements, the last of them the most there will be; `needed` of them decide, or one more
    than there are where none would.
    """

    looks: tuple[int, ...]
    needed: tuple[int, ...]
    alpha: float

    @property
    def n_most(self) -> int:
        return self.looks[-1]

    def next_look(self, n: int) -> tuple[int, int]:
        """The look at `n` disagreements or the next one, and how many wins (or losses) it takes there."""
        return next(pair for pair in zip(self.looks, self.needed, strict=True) if pair[0] >= n)

    def finding(self, wins: int, losses: int) -> Finding:
        """What is told by counts at a look. Between two, what the next one can only confirm, as counts never fall.

        Raises:
            ValueError: more disagreements than were to be; the level does not hold for these.
        """
        n = wins + losses
        if n > self.n_most:
            raise ValueError(f"{n} disagreements, but at most {self.n_most} were to be looked at")
        _, needed = self.next_look(n)
        if wins >= needed:
            return "benefit"
        return "harm" if losses >= needed else "undecided"

    def first_finding(self, disagreements: Iterable[bool]) -> tuple[Finding, int]:
        """The first finding of disagreements in the order they came (True is a win), and after how many it came."""
        wins = n = 0
        for n, won in enumerate(disagreements, start=1):
            wins += won
            found = self.finding(wins, n - wins)
            if found != "undecided":
                return found, n
        return "undecided", n

    def chances(self, p_win: float) -> Floats:
        """Chance (looks,) to find a benefit first at each look, if each disagreement is won with chance `p_win`."""
        alive, chances, before = np.ones(1), [], 0
        for look, needed in zip(self.looks, self.needed, strict=True):
            alive = np.convolve(alive, _binomial(look - before, p_win))
            chances.append(float(alive[needed:].sum()))
            alive, before = alive[:needed], look
        return np.array(chances)


def paired(n_most: int, *, alpha: float, n_looks: int = 1) -> Paired:
    """The exact test of at most `n_most` disagreements with so many looks, as evenly spaced as they can be.

    At each look the fewest wins are needed whose chance, of all paths not decided before, keeps within what may be
    spent until then; what counts leave over is carried on. Where fair coins decide, that is exact.

    Raises:
        ValueError: no look, or more looks than disagreements.
    """
    if not 1 <= n_looks <= n_most:
        raise ValueError(f"{n_looks} looks at {n_most} disagreements: one look at least, and one disagreement for each")
    looks = [round(n_most * (i + 1) / n_looks) for i in range(n_looks)]
    alive, total, before, needed = np.ones(1), 0.0, 0, []
    for look in looks:
        alive = np.convolve(alive, _binomial(look - before, 0.5))
        allowed = alpha if look == n_most else spent(look / n_most, alpha=alpha)
        tails = alive[::-1].cumsum()[::-1]  # chance of so many wins or more
        fewest = int(np.searchsorted(-tails, -(allowed - total) * (1 + 1e-12)))
        needed.append(fewest)
        total += float(tails[fewest]) if fewest < len(tails) else 0.0
        alive, before = alive[:fewest], look
    return Paired(tuple(looks), tuple(needed), alpha)


def _binomial(n: int, p: float) -> Floats:
    """Chances (n + 1,) of 0 .. n events."""
    k = np.arange(n + 1)
    ways = np.array([math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k])
    log_p, log_q = math.log(max(p, 1e-300)), math.log(max(1 - p, 1e-300))
    chances: Floats = np.exp(ways + k * log_p + (n - k) * log_q)
    return chances


@dataclass(frozen=True)
class Reading:
    """What right and wrong answers of two arms say against a largest number of them."""

    finding: Finding
    estimate: float | None
    z: float
    z_needed: float
    fraction: float
    """Of the largest number, that is in."""


def unpaired(control: Counted, candidate: Counted, *, n_most: int, alpha: float) -> Reading:
    """Two arms compared at any time until both together have `n_most` labelled answers.

    With fraction t of all answers in, |z| sqrt(t) has to reach Phi^-1(1 - alpha / 2), whatever was looked at before:
    the chance that Brownian motion on [0, 1] ever reaches c is 2 (1 - Phi(c)) (the reflection principle; `spent` is
    this chance until t). z has the variance of both arms together, as under "no difference", with one right and one
    wrong answer added.

    Raises:
        ValueError: more answers than were to be; the level does not hold for these.
    """
    n = control.n + candidate.n
    if n > n_most:
        raise ValueError(f"{n} labelled answers, but at most {n_most} were to be looked at")
    fraction, least = n / n_most, _NORMAL.inv_cdf(1 - alpha / 2)
    if not control.n or not candidate.n:
        return Reading("undecided", None, 0.0, math.inf, fraction)
    share = (control.n_right + candidate.n_right + 1) / (n + 2)
    estimate = candidate.n_right / candidate.n - control.n_right / control.n
    z = estimate / math.sqrt(share * (1 - share) * (1 / control.n + 1 / candidate.n))
    needed = least / math.sqrt(fraction)
    found: Finding = "undecided" if abs(z) < needed else "benefit" if z > 0 else "harm"
    return Reading(found, estimate, z, needed, fraction)


def z_boundaries(fractions: Sequence[float], *, alpha: float) -> Floats:
    """The z (K,) to reach at looks at increasing fractions (K,) of all answers; one-sided alpha, spent as `spent` says.

    By numerical integration over the paths not decided before: Jennison and Turnbull 1999, section 19.2.

    Raises:
        ValueError: fractions that do not rise within 0..1.
    """
    _check(fractions)
    found: list[float] = []
    before, start = 0.0, _Paths.start()
    for fraction in fractions:
        allowed = spent(fraction, alpha=alpha) - before
        low, high = -1.0, _LOWEST_SD * math.sqrt(fraction)
        for _ in range(_N_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if start.above(middle, fraction) > allowed else (low, middle)
        found.append(high / math.sqrt(fraction))
        start, before = start.on(high, fraction), before + allowed
    return np.array(found)


def crossing_chances(z_needed: Sequence[float], fractions: Sequence[float], *, drift: float = 0.0) -> Floats:
    """Chance (K,) that z first reaches its boundary at each look, where its mean at the last one is `drift`.

    Raises:
        ValueError: fractions that do not rise within 0..1.
    """
    _check(fractions)
    chances, paths = [], _Paths.start(drift)
    for z, fraction in zip(z_needed, fractions, strict=True):
        boundary = z * math.sqrt(fraction)
        chances.append(paths.above(boundary, fraction))
        paths = paths.on(boundary, fraction)
    return np.array(chances)


def _check(fractions: Sequence[float]) -> None:
    if not all(a < b for a, b in zip([0.0, *fractions], [*fractions, 1.0 + 1e-9], strict=True)):
        raise ValueError(f"fractions of all answers have to rise from above 0 to at most 1: {list(fractions)}")


@dataclass(frozen=True, eq=False)
class _Paths:
    """Brownian motion with drift at a fraction of its time, where it has met no boundary: where (N,), how likely (N,).

    `chances` hold the weights of the quadrature.
    """

    at: Floats
    chances: Floats
    fraction: float
    drift: float

    @staticmethod
    def start(drift: float = 0.0) -> "_Paths":
        return _Paths(np.zeros(1), np.ones(1), 0.0, drift)

    def above(self, boundary: float, fraction: float) -> float:
        """Chance to lie above a boundary at a later fraction."""
        z = (boundary - self.at - self.drift * (fraction - self.fraction)) / math.sqrt(fraction - self.fraction)
        return float(self.chances @ [math.erfc(value / math.sqrt(2)) / 2 for value in z])

    def on(self, boundary: float, fraction: float) -> "_Paths":
        """Those below a boundary at a later fraction."""
        nodes, weights = np.polynomial.legendre.leggauss(_N_NODES)
        low = min(0.0, self.drift) * fraction - _LOWEST_SD * math.sqrt(fraction)
        high = min(boundary, max(0.0, self.drift) * fraction + _LOWEST_SD * math.sqrt(fraction))
        at = (low + high) / 2 + (high - low) / 2 * nodes
        passed = fraction - self.fraction
        steps = at[:, None] - self.at - self.drift * passed
        density = np.exp(-(steps**2) / (2 * passed)) / math.sqrt(2 * math.pi * passed) @ self.chances
        return _Paths(at, density * weights * (high - low) / 2, fraction, self.drift)
