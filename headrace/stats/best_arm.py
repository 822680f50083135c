"""Which of several arms answers best? Shares of requests that go where they tell most, and a decision that may be made
at any time. Pure: the same counts give the same shares and the same decision.

**Shares** (`shares`): top-two Thompson sampling. The leader is drawn by its chance to be best, given the labels so far;
then, half of the time, the challenger is drawn likewise among the others. The shares are the chances of that, worked
out instead of drawn, and every arm keeps a floor. (Russo 2020, "Simple Bayesian algorithms for best-arm
identification", section 3.3; posteriors are Beta(1 + right, 1 + wrong).)

**Decision** (`decide`): an arm that is best is worse than none. So for each arm, bets are placed that any of the others
is better (as in `stats.confidence_sequences`); their average is an e-value against "this arm is best", however the
shares were chosen. An arm is out when it reaches 1/alpha, and the last one left is the best: the chance that a best
arm is ever out is alpha at most. No correction for the number of arms is needed, as only the bets against the best are
ever placed on what is false, and averages of e-values are e-values under any dependence (Vovk and Wang 2021,
"E-values: calibration, combination and applications", section 3).

Shares change with time, and accuracy may drift. So labels are counted by the shares that held when their request was
answered, in one `Batch` for each; a label that comes late is added to the batch of its request. Answers without a label
are in no count, and change nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headrace.stats.confidence_sequences import Counted, log_e, stakes

FLOOR = 0.05
"""The least share of an arm: enough to notice that a loser has come back."""
_N_CELLS = 512  # of the accuracies that posteriors are compared at
_REACH_SD = 7  # of a posterior, beyond which it is taken as nothing
_LEAST_VARIANCE = 0.01
_LEAST_LOG = -690.0
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """Labelled answers of requests that met the arms with these shares."""

    shares: Mapping[str, float]
    scores: Mapping[str, Counted]


@dataclass(frozen=True)
class Found:
    """`best` is None as long as more than one arm is left; `out` are those that are told not to be best."""

    best: str | None
    out: frozenset[str]
    log_e_not_best: Mapping[str, float]


def shares(
    scores: Mapping[str, Counted], *, floor: float = FLOOR, out: frozenset[str] = frozenset()
) -> dict[str, float]:
    """Shares of the requests to come, which sum to 1, given the labels of all time.

    Args:
        out: arms that get the floor only.

    Raises:
        ValueError: a floor that leaves nothing to share.
    """
    names = sorted(scores)
    if floor < 0 or floor * len(names) > 1:
        raise ValueError(f"{len(names)} arms cannot keep a floor of {floor:g} each")
    n = np.array([scores[name].n for name in names])
    n_right = np.array([scores[name].n_right for name in names])
    found = allocation(n, n_right, floor=floor, is_out=np.array([name in out for name in names]))
    return dict(zip(names, found.tolist(), strict=True))


def decide(
    batches: Sequence[Batch],
    *,
    alpha: float,
    centre: float,
    out: frozenset[str] = frozenset(),
    dropped: frozenset[str] = frozenset(),
) -> Found:
    """Which arms are out, and which one is left.

    Args:
        centre: an accuracy to expect, fixed before the first label.
        out: arms that were told not to be best by an earlier look; they stay so.
        dropped: arms that left for another reason: the question is which of the others is best. Bets on them count as
            lost. So E against an arm only ever falls by this, and stays an e-value whenever and why they were dropped.
    """
    names = sorted({name for batch in batches for name in batch.scores})
    if len(names) < 2:
        return Found(None, out, {})
    total = np.zeros(1)
    for batch in batches:
        n = np.array([batch.scores[name].n if name in batch.scores else 0 for name in names])
        n_right = np.array([batch.scores[name].n_right if name in batch.scores else 0 for name in names])
        weights = np.array([batch.shares.get(name, 0.0) for name in names])
        total = total + duels(n, n_right, weights, centre=centre)
    log_es = log_e_not_best(total, is_dropped=np.array([name in dropped for name in names]))
    evidence = dict(zip(names, log_es.tolist(), strict=True))
    out = out | dropped | {name for name, value in evidence.items() if value >= math.log(1 / alpha)}
    left = [name for name in names if name not in out]
    return Found(left[0] if len(left) == 1 else None, out, evidence)


def allocation(n: NDArray[np.int_], n_right: NDArray[np.int_], *, floor: float, is_out: NDArray[np.bool_]) -> Floats:
    """Shares (..., K) of K arms with n (..., K) labelled answers; those that are out (..., K) get the floor."""
    chances = np.where(is_out, 0.0, best_chances(n, n_right))
    found: Floats = floor + (1 - floor * n.shape[-1]) * _top_two(chances)
    return found


def best_chances(n: NDArray[np.int_], n_right: NDArray[np.int_]) -> Floats:
    """Chance (..., K) of each arm to be the best, by its posterior: integral of its density times all others' below.

    On a grid of accuracies about those that matter; right to about .002.
    """
    a, b = n_right[..., None] + 1.0, n[..., None] - n_right[..., None] + 1.0
    mean = a / (a + b)
    sd = np.sqrt(mean * (1 - mean) / (a + b + 1))
    low = np.maximum(0.0, (mean - _REACH_SD * sd).min(axis=-2, keepdims=True))
    high = np.minimum(1.0, (mean + _REACH_SD * sd).max(axis=-2, keepdims=True))
    at = low + (high - low) * (np.arange(_N_CELLS) + 0.5) / _N_CELLS
    logs = (a - 1) * np.log(at) + (b - 1) * np.log1p(-at)
    density = np.exp(logs - logs.max(axis=-1, keepdims=True))
    density /= density.sum(axis=-1, keepdims=True)
    below = density.cumsum(axis=-1) - density / 2
    n_arms = n.shape[-1]
    others = np.stack([np.delete(below, i, axis=-2).prod(axis=-2) for i in range(n_arms)], axis=-2)
    chances = (density * others).sum(axis=-1)
    found: Floats = chances / chances.sum(axis=-1, keepdims=True)
    return found


def _top_two(chances: Floats) -> Floats:
    """Chance (..., K) of each arm to be drawn as leader or as challenger, half of the time each.

    c_i (1 + sum over j != i of c_j / (1 - c_j)) / 2.
    """
    n_arms = chances.shape[-1]
    rest = chances @ (1 - np.eye(n_arms))  # 1 - c, exactly where c is nearly 1
    odds = chances / np.maximum(rest, 1e-300)
    challenged = chances * (odds @ (1 - np.eye(n_arms)))
    value: Floats = chances + challenged
    drawn: Floats = value / value.sum(axis=-1, keepdims=True)
    return drawn


def duels(n: NDArray[np.int_], n_right: NDArray[np.int_], weights: Floats, *, centre: float) -> Floats:
    """Logarithms of capitals (..., K, K, S): in [i, j], bets that arm i is better than arm j. Weights are broadcast.

    Of the requests that met one of the two, i had the share w_i / (w_i + w_j); see `stats.confidence_sequences`.
    """
    first, second = weights[..., :, None], weights[..., None, :]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where((first > 0) & (second > 0), first / (first + second), 0.5)
    reach = np.maximum(centre / share, (1 - centre) / (1 - share))
    stake = stakes(reach, max(centre * (1 - centre), _LEAST_VARIANCE) / (share * (1 - share)))
    n_wrong = n - n_right
    total = np.zeros(1)
    for counts, value in (
        (n_right[..., :, None], (1 - centre) / share),
        (n_wrong[..., :, None], -centre / share),
        (n_right[..., None, :], -(1 - centre) / (1 - share)),
        (n_wrong[..., None, :], centre / (1 - share)),
    ):
        total = total + counts[..., None] * np.log1p(stake * value[..., None])
    has_both = (first > 0) & (second > 0)
    return np.where(has_both[..., None], total, 0.0)


def log_e_not_best(capitals: Floats, *, is_dropped: NDArray[np.bool_] | None = None) -> Floats:
    """Logarithm (..., K) of the e-value against "arm j is best": the average over the others of their bets on j.

    Args:
        is_dropped: arms (..., K) whose bets count as lost.
    """
    evidence = log_e(capitals)
    n_arms = evidence.shape[-1]
    is_no_bet = np.eye(n_arms, dtype=bool)
    if is_dropped is not None:
        is_no_bet = is_no_bet | is_dropped[..., :, None]
    evidence = np.where(is_no_bet, -np.inf, evidence)
    top = np.maximum(evidence.max(axis=-2, keepdims=True), _LEAST_LOG)
    with np.errstate(divide="ignore"):  # none is left to bet on
        value: Floats = top[..., 0, :] + np.log(np.exp(evidence - top).sum(axis=-2) / (n_arms - 1))
    return value
