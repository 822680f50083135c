"""Two arms that each answer part of the requests: how often is a difference found that is not there, and how soon one
that is?

Simulated A/B releases in which every answer has a label, looked at after every one. `betting` and `asymptotic` are
those of headrace.stats.confidence_sequences at alpha .05 on either side, `naive` is z > 1.645 from 20 answers of each
arm on. What is found once stays found, so these are also the shares that somebody gets who chooses when to stop.

Then the same of few units (`Units`) that stay in their arm and answer many times, each with an accuracy of its own:
with every label counted, and with the first of each unit, as headrace.feedback.outcomes counts.

Run: python -m bench.release_ab [--releases 10000] [--seed 1]
"""

import argparse
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.reporting import Measured, write
from headrace.stats import confidence_sequences
from headrace.stats.intervals import wilson

ALPHA = 0.05
Z = 1.645
CENTRE = 0.8  # as the policy has it
N_TUNED = 5000
WAYS = ("betting", "asymptotic", "naive")
SEPARATOR = " · "  # a line of a table of docs/benchmarks.md
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_LEAST = 20  # answers of each arm before anybody looks at z


@dataclass(frozen=True)
class World:
    """Accuracies at the start and at the end of the answers, in between on a line."""

    name: str
    control: tuple[float, float]
    candidate: tuple[float, float]
    share: float = 0.5
    n_answers: int = 20_000

    @property
    def is_even(self) -> bool:
        return self.control == self.candidate

    def at(self, n: int) -> Floats:
        """Of control and candidate (2,)."""
        start, end = np.array([self.control, self.candidate]).T
        accuracies: Floats = start + n / self.n_answers * (end - start)
        return accuracies


def _even(name: str, accuracy: float, end: float | None = None, share: float = 0.5) -> World:
    both = (accuracy, accuracy if end is None else end)
    return World(name, both, both, share)


WORLDS = (
    _even("A/A .5", 0.5),
    _even("A/A .9", 0.9),
    _even("A/A .99", 0.99),
    _even("A/A .9, candidate 5 %", 0.9, share=0.05),
    _even("A/A .95 to .6, candidate 20 %", 0.95, 0.6, share=0.2),
    World(".90 to .88", (0.9, 0.9), (0.88, 0.88), n_answers=40_000),
    World(".90 to .92", (0.9, 0.9), (0.92, 0.92), n_answers=40_000),
    World(".90 to .80", (0.9, 0.9), (0.8, 0.8)),
    World(".90 to .80, candidate 5 %", (0.9, 0.9), (0.8, 0.8), share=0.05, n_answers=40_000),
)


@dataclass(frozen=True)
class Units:
    """Equal arms. The units' accuracies are drawn from BETA, and the k-th of them answers in proportion to k^-zipf."""

    n_units: int
    zipf: float
    n_answers: int = 5_000

    @property
    def name(self) -> str:
        return f"A/A of {self.n_units:,} units, Zipf {self.zipf:g}"


UNITS = tuple(Units(n_units, zipf) for n_units in (20, 200, 1000) for zipf in (0.0, 0.7, 1.0))
BETA = (5.1, 0.9)  # mean .85, standard deviation .13


class _Looks:
    """Releases that are looked at after every answer, and when each way first found something in them."""

    def __init__(self, share: float, n_releases: int) -> None:
        stakes = confidence_sequences.bets(share, CENTRE).stakes()[:, 0]
        values = np.append(confidence_sequences.estimates(share, CENTRE), 0.0)  # the last: of what does not count
        self._logs = np.log1p(values[:, None, None] * np.array([1.0, -1.0])[:, None] * stakes)
        self._capitals = np.zeros((n_releases, *stakes.shape))
        self._spread, self._rows = confidence_sequences.rho(N_TUNED, ALPHA), np.arange(n_releases)
        self.counts = np.zeros((4, n_releases))
        """Labelled and right answers of the control, then of the candidate."""
        self.found = {way: np.full((2, n_releases), np.inf) for way in WAYS}
        """Way to the answers after which benefit and harm (2, R) are first found; infinite where they are not."""

    def add(self, n: int, is_candidate: Bools, is_right: Bools, is_counted: Bools | None = None) -> None:
        """The n-th answer of each release (R,)."""
        counted = np.ones(len(is_right), dtype=bool) if is_counted is None else is_counted
        self._capitals += self._logs[np.where(counted, 2 * is_candidate + is_right, 4)]
        self.counts[2 * is_candidate, self._rows] += counted
        self.counts[2 * is_candidate + 1, self._rows] += is_right & counted
        n_counted = np.maximum(self.counts[0] + self.counts[2], 1)
        reached = {"betting": _bets(self._capitals).T} | _normal(self.counts, n_counted, self._spread)
        for way, now in reached.items():
            self.found[way][now & np.isinf(self.found[way])] = n


def first_findings(world: World, *, n_releases: int, seed: int) -> dict[str, tuple[Floats, Floats]]:
    """For each way the answers (R,) after which benefit and harm are first found; infinite where they are not."""
    rng, looks = np.random.default_rng(seed), _Looks(world.share, n_releases)
    for n in range(1, world.n_answers + 1):
        is_candidate = rng.random(n_releases) < world.share
        looks.add(n, is_candidate, rng.random(n_releases) < world.at(n)[is_candidate.astype(int)])
        if (
            not world.is_even
            and n % 500 == 0
            and all(np.isfinite(now).any(axis=0).all() for now in looks.found.values())
        ):
            break
    return {way: (benefit, harm) for way, (benefit, harm) in looks.found.items()}


def of_units(units: Units, *, n_releases: int, seed: int) -> dict[str, _Looks]:
    """What is found where each label counts, and where the first of each unit does."""
    rng, rows = np.random.default_rng(seed), np.arange(n_releases)
    weights = np.arange(1, units.n_units + 1) ** -units.zipf
    upto = np.cumsum(weights) / weights.sum()
    arms, accuracies = rng.random((n_releases, units.n_units)) < 0.5, rng.beta(*BETA, (n_releases, units.n_units))
    is_known = np.zeros_like(arms)
    each, first = _Looks(0.5, n_releases), _Looks(0.5, n_releases)
    for n in range(1, units.n_answers + 1):
        unit = np.minimum(np.searchsorted(upto, rng.random(n_releases), side="right"), units.n_units - 1)
        is_candidate, is_right = arms[rows, unit], rng.random(n_releases) < accuracies[rows, unit]
        is_new = ~is_known[rows, unit]
        is_known[rows, unit] = True
        each.add(n, is_candidate, is_right)
        if is_new.any():
            first.add(n, is_candidate, is_right, is_new)
    return {"each label": each, "first of a unit": first}


def _bets(capitals: Floats) -> Bools:
    """Which capitals (R, 2, S) reach 1 / alpha together (R, 2); only those are summed up that can."""
    least = math.log(1 / ALPHA)
    reached: Bools = capitals.max(axis=-1) >= least - math.log(capitals.shape[-1])
    reached[reached] = confidence_sequences.log_e(capitals[reached]) >= least
    return reached


def _normal(counts: Floats, n: Floats | int, rho: float) -> dict[str, Bools]:
    """Which releases reach the asymptotic and the naive boundary, up and down (2, R)."""
    n_control, right_control, n_candidate, right_candidate = counts
    has_both = (n_control > 0) & (n_candidate > 0)
    n_control, n_candidate = np.maximum(n_control, 1), np.maximum(n_candidate, 1)
    gain = right_candidate / n_candidate - right_control / n_control
    arms = ((n_control, right_control), (n_candidate, right_candidate))
    pooled = _variance(n, right_control + right_candidate)
    sd = np.sqrt(sum(np.maximum(pooled, _variance(m, right)) / m for m, right in arms))
    plain_sd = np.sqrt(sum(_variance(m, right) / m for m, right in arms))
    z = np.where(has_both, gain / sd, 0.0)
    margin = confidence_sequences.margin(n, alpha=ALPHA, rho=rho) * np.sqrt(n)
    naive = np.where(np.minimum(n_control, n_candidate) >= _LEAST, gain / plain_sd, 0.0)
    return {"asymptotic": np.stack([z > margin, z < -margin]), "naive": np.stack([naive > Z, naive < -Z])}


def _variance(n: Floats | int, n_right: Floats) -> Floats:
    share = (n_right + 1) / (n + 2)
    value: Floats = share * (1 - share)
    return value


def measured(world: World, *, n_releases: int, seed: int) -> list[Measured]:
    rows = []
    for way, (benefit, harm) in first_findings(world, n_releases=n_releases, seed=seed).items():
        what = f"{world.name}{SEPARATOR}{way}{SEPARATOR}"
        if world.is_even:
            rows.append(_share(f"{what}benefit found", np.isfinite(benefit)))
            rows.append(_share(f"{what}harm found", np.isfinite(harm)))
            continue
        is_better = world.candidate[0] > world.control[0]
        right, wrong = (benefit, harm) if is_better else (harm, benefit)
        rows.append(_share(f"{what}right finding first", right < wrong))
        rows.append(_share(f"{what}wrong finding first", wrong < right))
        for name, level in (("median", 0.5), ("p90", 0.9)):
            n = min(float(np.quantile(right, level, method="higher")), float(world.n_answers))
            rows.append(Measured(f"{what}labels, {name}", n, ""))
    return rows


def measured_of_units(units: Units, *, n_releases: int, seed: int) -> list[Measured]:
    rows = []
    for counted, looks in of_units(units, n_releases=n_releases, seed=seed).items():
        for way in WAYS[:2]:
            what = f"{units.name}{SEPARATOR}{counted}, {way}{SEPARATOR}"
            benefit, harm = looks.found[way]
            rows.append(_share(f"{what}benefit found", np.isfinite(benefit)))
            rows.append(_share(f"{what}harm found", np.isfinite(harm)))
            rows.append(Measured(f"{what}labels counted, mean", float(looks.counts[[0, 2]].sum(axis=0).mean()), ""))
    return rows


def _share(what: str, is_so: Bools) -> Measured:
    share = wilson(int(is_so.sum()), len(is_so))
    assert share is not None
    return Measured(what, 100 * share.estimate, "%", low=100 * share.low, high=100 * share.high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--releases", type=int, default=10_000, help="of each even world; a fifth of that of the others and of units"
    )
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rows = []
    for world in WORLDS:
        n_releases = given.releases if world.is_even else given.releases // 5
        rows += measured(world, n_releases=n_releases, seed=given.seed)
        print(f"{world.name}: done", flush=True)
    for units in UNITS:
        rows += measured_of_units(units, n_releases=given.releases // 5, seed=given.seed)
        print(f"{units.name}: done", flush=True)
    write("release_ab", rows, [given.seed])


if __name__ == "__main__":
    main()
