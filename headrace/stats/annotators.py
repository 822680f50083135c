"""Who may count among many annotators: known answers, the gate they open or shut, and caps on any one's share.

An *annotator* is whoever is judged as one: a labeller, a channel, a key. Some of what an annotator is asked has an
answer that is known and that does not show. numpy only. Dimensions: V votes, I items, A annotators, K classes.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.stats import beta_mixture

UNKNOWN = -1
"""In an array of known answers: an item whose answer is not known. In an answer: nobody who counts has spoken."""
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Votes:
    """Labels as three arrays of whole numbers (V): of `items[v]`, `annotators[v]` said `classes[v]`.

    Parts of a stream of votes may be added, where all parts number items, annotators and classes alike.

    Raises:
        ValueError: arrays of different lengths, or a number out of its range.
    """

    items: Ints
    annotators: Ints
    classes: Ints
    n_items: int
    n_annotators: int
    n_classes: int

    def __post_init__(self) -> None:
        parts = ((self.items, self.n_items), (self.annotators, self.n_annotators), (self.classes, self.n_classes))
        if len({len(part) for part, _ in parts}) > 1:
            raise ValueError(f"of different lengths: {[len(part) for part, _ in parts]}")
        for part, n in parts:
            if len(part) and not 0 <= part.min() <= part.max() < n:
                raise ValueError(f"numbers from {part.min()} to {part.max()}, not within 0 to {n - 1}")

    def __len__(self) -> int:
        return len(self.items)

    def __add__(self, other: "Votes") -> "Votes":
        return Votes(
            np.concatenate([self.items, other.items]),
            np.concatenate([self.annotators, other.annotators]),
            np.concatenate([self.classes, other.classes]),
            max(self.n_items, other.n_items),
            max(self.n_annotators, other.n_annotators),
            max(self.n_classes, other.n_classes),
        )


def score(votes: Votes, known: Ints) -> tuple[Ints, Ints]:
    """Per annotator, how many known answers were asked for and how many were right (A each); both may be summed.

    Args:
        known: the answer of each item (I), or UNKNOWN.
    """
    truth = known[votes.items]
    asked = truth != UNKNOWN
    right = asked & (truth == votes.classes)
    n_asked, n_right = (np.bincount(votes.annotators[kind], minlength=votes.n_annotators) for kind in (asked, right))
    return n_asked, n_right


@dataclass(frozen=True)
class Gate:
    """Who counts, by known answers. The accuracy of each annotator has a Beta(1, 1) prior.

    An annotator is barred once the posterior says with probability `level` that the accuracy is below `bar`, from
    `min_known` known answers on; the numbers are those of the last of them. (To bar wherever the posterior *mean* is
    below the bar, looking after every answer, would bar 18 % of those whose accuracy is .85, and 31 % of .80; this rule
    bars .5 % and 1.4 %: tests/stats/test_annotators.py.) A newcomer counts `newcomer_weight` at most until
    `newcomer_until` known answers.
    """

    bar: float = 0.6
    min_known: int = 3
    level: float = 0.95
    newcomer_until: int = 5
    newcomer_weight: float = 0.5


def chance_below(bar: float, n_asked: Ints, n_right: Ints) -> Floats:
    """Posterior probability of each annotator's accuracy being below `bar`, from a Beta(1, 1) prior (A).

    Of a Beta(1 + r, 1 + w) law, the part below; the part above is U(1 + r, 1 + w) / B(1 + r, 1 + w) in the words of
    `beta_mixture`.
    """
    wrong = n_asked - n_right
    log_u = beta_mixture.log_es(n_right, n_asked, bar) + (wrong + 1) * math.log1p(-bar) + n_right * math.log(bar)
    log_gamma = beta_mixture.log_gamma
    log_b = log_gamma(1.0 + n_right) + log_gamma(1.0 + wrong) - log_gamma(2.0 + n_asked)
    found: Floats = np.clip(-np.expm1(log_u - log_b), 0.0, 1.0)
    return found


def is_barred(n_asked: Ints, n_right: Ints, gate: Gate | None = None) -> NDArray[np.bool_]:
    """Which annotators do not count (A)."""
    gate = gate or Gate()
    below = chance_below(gate.bar, n_asked, n_right) >= gate.level
    barred: NDArray[np.bool_] = below & (n_asked >= gate.min_known)
    return barred


def weights(n_asked: Ints, n_right: Ints, gate: Gate | None = None) -> Floats:
    """What a vote of each annotator counts (A): 0 when barred, less than 1 for newcomers, else 1."""
    gate = gate or Gate()
    trusted = np.where(n_asked < gate.newcomer_until, gate.newcomer_weight, 1.0)
    found: Floats = np.where(is_barred(n_asked, n_right, gate), 0.0, trusted)
    return found


def log_e_of_burst(
    n_now: Ints, n_before: Ints, *, now_share: float, times: float = 5.0, typical: float = 1.0
) -> Floats:
    """Logarithm of an e-value against "the annotator is at most `times` as busy as before", for each (A).

    Given all votes of both spans of time, those of now are a coin of known bias, however busy the annotator is
    (Przyborowski and Wilenski 1940); `beta_mixture` is the evidence, valid at all looks within the span.

    Args:
        now_share: of the span of now in both spans together.
        typical: votes that annotators cast before, on average: newcomers are compared with it, others hardly moved.
    """
    share = times * now_share / (times * now_share + 1 - now_share)
    before = n_before + math.ceil(typical)
    return beta_mixture.log_es(n_now, n_now + before, share)


def capped(n_rows: NDArray[Any], max_share: float, *, n_other: float = 0) -> Floats:
    """Weights (A) for the rows of each annotator, so that none is more than `max_share` of the weighted batch.

    The largest such weights: with the level t, annotator a keeps min(n_a, t) and t = max_share * (n_other + sum of what
    is kept). Annotators below the level keep all their rows.

    Args:
        n_rows: rows, or the sums of their weights, of each annotator (A).
        n_other: rows of the batch that are under no cap, such as imported ones.

    Raises:
        ValueError: too few annotators for any weights to hold the cap.
    """
    sizes = np.asarray(n_rows, dtype=np.float64)
    ordered = np.sort(sizes)[::-1]
    below = ordered.sum() - np.cumsum(np.r_[0.0, ordered])  # rows of all but the j largest
    for j in range(len(ordered) + 1):
        if j * max_share >= 1:
            break
        level = max_share * (n_other + below[j]) / (1 - j * max_share)
        if j == len(ordered) or ordered[j] <= level:
            if level <= 0 < sizes.sum():
                break
            found: Floats = np.minimum(1.0, np.divide(level, sizes, out=np.ones_like(sizes), where=sizes > 0))
            return found
    raise ValueError(f"{np.count_nonzero(sizes)} annotators and no other rows: a share of {max_share} cannot hold")
