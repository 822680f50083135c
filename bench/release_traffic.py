"""What do canary, ab and bandit catch, at which number of labels? Policies that meet traffic, simulated side by side.

Five even channels, a control that is right in 85 %, a candidate that is as good, worse, better, or better but for one
channel. Requests meet one of two arms; with a bandit one of three, as a second candidate is as good as the control. Of
40,000 requests 5 %, or of 10,000 half get a label at once, and after every 20 labels the policy is asked. Its rules are
those of headrace.release.policies on arrays; tests/test_bench_traffic.py holds them against the policies themselves.

Run: python -m bench.release_traffic [--runs 1000] [--seed 1]
"""

import argparse
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.reporting import Measured, write
from headrace.config import ReleaseTable
from headrace.release.policies import canary
from headrace.release.policies.bandit import _LEAST_CHANGE, _STAGE_REQUESTS
from headrace.release.policies.guardrails import SUSPICION_E
from headrace.release.policies.labelled import N_LABELS_A_CHANNEL
from headrace.stats import best_arm, confidence_sequences
from headrace.stats.intervals import wilson

SETTINGS = ReleaseTable()
CENTRE = 0.8  # as the policies take it
N_LABELS_LOOK = 20  # on average, between two looks
HOLD, PROMOTE, REJECT = 0, 1, -1
SEPARATOR = " · "  # a line of a table of docs/benchmarks.md
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class World:
    """How often control and candidate are right, in each of five channels."""

    name: str
    candidate: tuple[float, ...]
    control: tuple[float, ...] = (0.85,) * 5


@dataclass(frozen=True)
class Rule:
    """A policy and what it is asked with."""

    policy: str
    min_labels: int = SETTINGS.min_labels
    margin: float = 0.0

    @property
    def n_arms(self) -> int:
        """A bandit tries another candidate too, one that is as good as the control."""
        return 3 if self.policy == "bandit" else 2

    @property
    def n_labels(self) -> int:
        """Of the candidate before a promotion, where there are five channels; in a canary of either arm."""
        least = canary.N_LABELS if self.policy == "canary" else 0
        return self.min_labels or max(least, 5 * N_LABELS_A_CHANNEL)

    @property
    def n_least(self) -> int:
        """Requests of both arms that the stages of a canary take."""
        return 2 * SETTINGS.dwell_requests * len(SETTINGS.ramp) if self.policy == "canary" else 0


@dataclass(frozen=True)
class Judged:
    """Of each release (R) at one look."""

    verdicts: Ints
    promoted: Ints
    """The arm; 0 where none is."""
    is_dropped: Bools
    is_out: Bools
    """Arms (R, K) that were found to be worse than the control, and those that are told not to be the best."""
    is_told: Bools


@dataclass(frozen=True)
class Runs:
    """Of each release: the verdict on the candidate, and the labels until then or to the end."""

    verdicts: Ints
    n_labels: Ints


WORLDS = (
    World("equal", (0.85,) * 5),
    World("10 points better", (0.95,) * 5),
    World("10 points worse", (0.75,) * 5),
    World("one channel -40, others +12", (0.97,) * 4 + (0.45,)),
    World("one channel -20, others +12", (0.97,) * 4 + (0.65,)),
    World("one channel -20, others +7", (0.92,) * 4 + (0.65,)),
)
RULES = (Rule("canary"), Rule("canary", min_labels=50), Rule("ab"), Rule("bandit"))
N_REQUESTS = {0.05: 40_000, 0.5: 10_000}
"""Share of the answers that get a label, to the requests after which a release is given up."""


def capitals_of(cells: Ints, shares: Floats) -> Floats:
    """Logarithms of the capitals (R, C, K, K, S) of `best_arm.duels` on cells (R, C, K, 2), with shares (R, K)."""
    return best_arm.duels(cells.sum(axis=-1), cells[..., 1], shares[:, None], centre=CENTRE)


def judged(rule: Rule, cells: Ints, capitals: Floats, *, alpha: float = SETTINGS.alpha) -> Judged:
    """What the policy says of R releases.

    Args:
        cells: labelled answers (R, C, K, 2): of the control and the candidates, wrong and right.
        capitals: see `capitals_of`; of all stages.
    """
    whole, needed, suspicious = capitals.sum(axis=1), math.log(1 / alpha), math.log(SUSPICION_E)
    harm, harms = confidence_sequences.log_e(whole[:, 0]), confidence_sequences.log_e(capitals[:, :, 0])
    is_dropped = (harm >= needed) | (holm_of_strongest(harms) >= needed)
    is_dropped[:, 0] = False
    is_out = is_dropped | (best_arm.log_e_not_best(whole, is_dropped=is_dropped) >= needed)
    is_told = (~is_out).sum(axis=1) == 1
    told, rows = np.where(is_told, (~is_out).argmax(axis=1), 0), np.arange(len(cells))
    best = told if rule.policy == "bandit" else np.ones_like(told)
    n = cells.sum(axis=-1)
    both = np.stack([n[:, :, 0], n[rows, :, best]])
    total = both.sum(axis=2)
    is_heard = (both > 0).all(axis=(0, 2)) & (total[1] >= rule.n_labels)
    if rule.policy == "canary":
        is_heard &= total[0] >= rule.n_labels
    is_suspected = (harm[rows, best] >= suspicious) | (harms[rows, :, best] >= suspicious).any(axis=1)
    is_promoted = speaks_for(rule, cells, (best > 0) & (told == best), needed) & is_heard & ~is_suspected
    is_rejected = is_dropped[:, 1:].all(axis=1) | (is_told & (told == 0) & (rule.policy == "bandit"))
    verdicts = np.where(is_rejected, REJECT, np.where(is_promoted, PROMOTE, HOLD))
    return Judged(verdicts, np.where(verdicts == PROMOTE, best, 0), is_dropped, is_out, is_told)


def speaks_for(rule: Rule, cells: Ints, is_better: Bools, needed: float) -> Bools:
    """Whether anything (R) speaks for a promotion: in a canary, that nothing speaks against it."""
    if not rule.margin:
        return is_better | (rule.policy == "canary")
    is_no_worse = excluded(cells, rule.margin) >= needed
    return is_no_worse if rule.policy == "canary" else is_better | is_no_worse


def holm_of_strongest(log_es: Floats) -> Floats:
    """Log E (R, K) of the strongest of log_es (R, C, K), adjusted as `multiplicity.e_holm` does."""
    values = np.sort(np.exp(np.minimum(log_es, 690.0)), axis=1)
    smaller = np.concatenate([np.zeros_like(values[:, :1]), values[:, :-1].cumsum(axis=1)], axis=1)
    sizes = np.arange(1, values.shape[1] + 1)[:, None]
    found: Floats = np.log(((values[:, -1:] + smaller) / sizes).min(axis=1))
    return found


def excluded(cells: Ints, margin: float) -> Floats:
    """Log E (R) against a drop by the margin or more, of two arms of even shares."""
    bets = confidence_sequences.bets(0.5, CENTRE, (-margin,))
    values, counts = confidence_sequences.estimates(0.5, CENTRE), cells.sum(axis=1).reshape(len(cells), 4)
    found: Floats = confidence_sequences.log_e(bets.log_capitals(values, counts))[:, 0, 0]
    return found


def simulate(rule: Rule, world: World, *, label_share: float, n_runs: int, seed: int) -> Runs:
    """Releases side by side, those not decided yet in arrays."""
    rng = np.random.default_rng(seed)
    right = np.array([world.control, world.candidate, *([world.control] * (rule.n_arms - 2))]).T  # (C, K)
    n_channels, n_arms = right.shape
    each = label_share / n_channels * np.stack([1 - right, right], axis=-1)  # (C, K, 2)
    verdicts, n_labels, running = np.zeros(n_runs, dtype=int), np.zeros(n_runs, dtype=int), np.arange(n_runs)
    cells = np.zeros((n_runs, n_channels, n_arms, 2), dtype=int)
    capitals, shares, met = np.zeros(1), np.full((n_runs, n_arms), 1 / n_arms), np.zeros((n_runs, n_arms))
    n_look = round(N_LABELS_LOOK / label_share)
    for n_requests in range(n_look, N_REQUESTS[label_share] + 1, n_look):
        chances = (each * shares[:, None, :, None]).reshape(len(running), -1)
        drawn = rng.multinomial(n_look, np.column_stack([chances, 1 - chances.sum(axis=1)]))
        fresh = drawn[:, :-1].reshape(len(running), n_channels, n_arms, 2)
        cells, met = cells + fresh, met + n_look * shares
        capitals = capitals + capitals_of(fresh, shares if rule.policy == "bandit" else shares[:1])
        found = judged(rule, cells, capitals)
        verdict = found.verdicts
        if n_requests < rule.n_least:
            verdict = np.where(verdict == PROMOTE, HOLD, verdict)
        ended = (verdict != HOLD) | found.is_dropped[:, 1]
        is_lost = found.is_dropped[:, 1] | (ended & (found.promoted != 1))
        verdicts[running] = np.where(is_lost, REJECT, np.where(ended, PROMOTE, HOLD))
        n_labels[running] = cells.sum(axis=(1, 2, 3))
        going = ~ended
        if not going.any():
            break
        if rule.policy == "bandit":
            shares, met = moved(found, cells, shares, met)
        running, cells, shares, met, capitals = (part[going] for part in (running, cells, shares, met, capitals))
    return Runs(verdicts, n_labels)


def moved(found: Judged, cells: Ints, shares: Floats, met: Floats) -> tuple[Floats, Floats]:
    """A bandit's shares from now on, and the requests of their stage so far."""
    n, n_right, floor = cells.sum(axis=(1, 3)), cells[..., 1].sum(axis=1), SETTINGS.floor_share
    left = ~found.is_dropped
    target = shares.copy()
    for kept in np.unique(left, axis=0):  # releases whose arms that are left are the same
        rows = (left == kept).all(axis=1)
        if kept.sum() > 1:
            part = np.ix_(rows, kept)
            to = np.zeros((int(rows.sum()), len(kept)))
            to[:, kept] = best_arm.allocation(n[part], n_right[part], floor=floor, is_out=found.is_out[part])
            target[rows] = to
    change, n_fewest = np.abs(target - shares).max(axis=1), np.where(shares > 0, met, np.inf).min(axis=1)
    is_dropped_now = (found.is_dropped & (shares > 0)).any(axis=1)
    is_due = (n_fewest >= _STAGE_REQUESTS) & (n > 0).all(axis=1) & (change >= _LEAST_CHANGE)
    is_moved = (is_dropped_now | is_due) & ~found.is_told
    return np.where(is_moved[:, None], target, shares), np.where(is_moved[:, None], 0.0, met)


def measured(rule: Rule, world: World, *, label_share: float, n_runs: int, seed: int) -> list[Measured]:
    runs = simulate(rule, world, label_share=label_share, n_runs=n_runs, seed=seed)
    own = f", min_labels {rule.min_labels}" if rule.min_labels != SETTINGS.min_labels else ""
    own += f", margin {rule.margin:g}" if rule.margin else ""
    what = f"{world.name}{SEPARATOR}{rule.policy}{own}, {label_share:.0%} labelled{SEPARATOR}"
    rows = []
    for name, verdict in (("promoted", PROMOTE), ("rejected", REJECT), ("held", HOLD)):
        share = wilson(int((runs.verdicts == verdict).sum()), n_runs)
        assert share is not None
        rows.append(Measured(f"{what}{name}", 100 * share.estimate, "%", low=100 * share.low, high=100 * share.high))
    rows.append(Measured(f"{what}labels, median", float(np.median(runs.n_labels)), ""))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rows = []
    for world in WORLDS:
        for label_share in N_REQUESTS:
            for rule in RULES:
                rows += measured(rule, world, label_share=label_share, n_runs=given.runs, seed=given.seed)
                print(*(f"{row.value:g}" for row in rows[-4:]), rows[-4].what, flush=True)
    write("release_traffic", rows, [given.seed])


if __name__ == "__main__":
    main()
