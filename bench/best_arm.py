"""How many labels does it take to find the best of five versions, and how often is the wrong one found?

Simulated releases with labels for every answer: `top-two` shares requests out by headrace.stats.best_arm, with a floor
of 5 %, and `uniform` gives every version a fifth. Both decide by the same e-process at alpha .05, looking after every
batch. In `late`, labels come so many requests after their answer; in `drift`, all versions get worse together; in
`equal`, there is no best, and whatever is named is wrong.

Run: python -m bench.best_arm [--runs 2000] [--seed 1]
"""

import argparse
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.reporting import Measured, write
from headrace.stats import best_arm
from headrace.stats.intervals import wilson

ALPHA = 0.05
CENTRE = 0.85  # what one would expect of them; not the truth of any
N_BATCH = 250  # requests between two looks
N_MOST = 120_000  # requests, after which a release is given up
SEPARATOR = " · "  # a line of a table of docs/benchmarks.md


@dataclass(frozen=True)
class Scenario:
    """Accuracies at the start; `drop` is what all have lost after 50,000 requests, and lose no more then."""

    name: str
    accuracies: Sequence[float]
    n_late: int = 0
    drop: float = 0.0
    n_most: int = N_MOST

    def at(self, n: int) -> NDArray[np.float64]:
        return np.asarray(self.accuracies) - self.drop * min(1.0, n / 50_000)


SCENARIOS = (
    Scenario("best by 2 points", (0.90, 0.88, 0.88, 0.88, 0.88)),
    Scenario("2 points apart each", (0.90, 0.88, 0.86, 0.84, 0.82)),
    Scenario("best by 2 points, late", (0.90, 0.88, 0.88, 0.88, 0.88), n_late=5000),
    Scenario("best by 2 points, drift", (0.90, 0.88, 0.88, 0.88, 0.88), drop=0.1),
    Scenario("equal", (0.90,) * 5, n_most=40_000),
)


@dataclass(frozen=True)
class Runs:
    """Of each run: the version named (-1: none), and the labels until then."""

    named: NDArray[np.int64]
    n_labels: NDArray[np.int64]


def simulate(scenario: Scenario, *, is_uniform: bool, n_runs: int, seed: int) -> Runs:
    """Releases side by side, those not decided yet in arrays."""
    rng = np.random.default_rng(seed)
    n_arms = len(scenario.accuracies)
    named, n_labels = np.full(n_runs, -1), np.zeros(n_runs, dtype=int)
    running, is_out = np.arange(n_runs), np.zeros((n_runs, n_arms), dtype=bool)
    n, n_right = np.zeros((n_runs, n_arms), dtype=int), np.zeros((n_runs, n_arms), dtype=int)
    capitals = np.zeros(1)
    shares = np.full((n_runs, n_arms), 1 / n_arms)
    waiting: deque[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = deque()
    for n_requests in range(0, scenario.n_most, N_BATCH):
        met = rng.multinomial(N_BATCH, shares)
        waiting.append((met, rng.binomial(met, scenario.at(n_requests)), shares))
        if n_requests < scenario.n_late:
            continue
        answered, right, weights = waiting.popleft()
        n, n_right = n + answered, n_right + right
        capitals = capitals + best_arm.duels(answered, right, weights, centre=CENTRE)
        is_out = is_out | (best_arm.log_e_not_best(capitals) >= math.log(1 / ALPHA))
        n_left = (~is_out).sum(axis=1)
        n_labels[running] += N_BATCH
        named[running[n_left == 1]] = (~is_out).argmax(axis=1)[n_left == 1]
        going = n_left > 1
        if not going.any():
            break
        running, is_out, n, n_right, capitals = (part[going] for part in (running, is_out, n, n_right, capitals))
        waiting = deque((a[going], b[going], c[going]) for a, b, c in waiting)
        if is_uniform:
            shares = shares[going]
        else:
            shares = best_arm.allocation(n, n_right, floor=best_arm.FLOOR, is_out=is_out)
    return Runs(named, n_labels)


def measured(scenario: Scenario, *, n_runs: int, seed: int) -> list[Measured]:
    rows = []
    uniform = simulate(scenario, is_uniform=True, n_runs=n_runs, seed=seed)
    top_two = simulate(scenario, is_uniform=False, n_runs=n_runs, seed=seed + 1)
    for name, runs in (("uniform", uniform), ("top-two", top_two)):
        what = f"{scenario.name}{SEPARATOR}{name}{SEPARATOR}"
        if len(set(scenario.accuracies)) == 1:
            rows.append(_share(f"{what}one named", int((runs.named >= 0).sum()), n_runs))
            continue
        rows.append(_share(f"{what}the best named", int((runs.named == 0).sum()), n_runs))
        rows.append(_share(f"{what}another named", int((runs.named > 0).sum()), n_runs))
        for figure, of in (("labels, mean", np.mean), ("labels, median", np.median)):
            ratio = (
                {} if runs is uniform else {"vs": "uniform", "ratio": float(of(runs.n_labels) / of(uniform.n_labels))}
            )
            rows.append(Measured(f"{what}{figure}", float(of(runs.n_labels)), "", **ratio))
        rows.append(Measured(f"{what}labels, p90", float(np.quantile(runs.n_labels, 0.9)), ""))
    return rows


def _share(what: str, n_hits: int, n: int) -> Measured:
    share = wilson(n_hits, n)
    assert share is not None
    return Measured(what, 100 * share.estimate, "%", low=100 * share.low, high=100 * share.high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rows = []
    for scenario in SCENARIOS:
        rows += measured(scenario, n_runs=given.runs, seed=given.seed)
        print(f"{scenario.name}: done", flush=True)
    write("best_arm", rows, [given.seed])


if __name__ == "__main__":
    main()
