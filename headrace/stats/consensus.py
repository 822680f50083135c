"""What many annotators say together: majority, Dawid-Skene and MACE, with weights per annotator. numpy only.

Weights come from `annotators.weights`: whoever is barred counts 0, and so neither speaks nor is believed about others.
This matters more than which of the three is chosen: once liars hold most of the mass, any of them turns the truth
around. Those who count for part do so in a majority throughout, and in the other two until what they do has been
learnt: to go on with half a vote of those who are good would cost 1.5 points in the crowds of bench/crowd.

Dimensions: V votes, I items, A annotators, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headrace.stats.annotators import UNKNOWN, Floats, Ints, Votes

SMOOTHING = 1.0
"""Votes' worth of the confusions of all annotators in those of each: who said little is taken to be like the others."""
_MOST_ROUNDS = 200
_TOLERANCE = 1e-5  # largest change of a probability from which rounds go on
_TINY = 1e-12


@dataclass(frozen=True)
class Consensus:
    """Of each item, the probability of each class; of each annotator, what was learnt on the way."""

    probs: Floats
    """(I, K); NaN in the rows of items about which nobody who counts has spoken."""
    shares: Floats
    """Of each class (K)."""
    confusions: Floats
    """(A, K, K): share of each answer, given the truth; rows are the truth."""
    n_rounds: int

    def answers(self) -> Ints:
        """The likeliest class of each item (I), the first of equals; UNKNOWN where nobody spoke."""
        spoken = ~np.isnan(self.probs[:, 0])
        found: Ints = np.where(spoken, np.where(spoken[:, None], self.probs, 0.0).argmax(axis=1), UNKNOWN)
        return found

    @property
    def accuracies(self) -> Floats:
        """How often each annotator would be right if the classes came as they do (A)."""
        found: Floats = np.einsum("k,akk->a", self.shares, self.confusions)
        return found


def majority(votes: Votes, weights: Floats | None = None, known: Ints | None = None) -> Consensus:
    """Shares of the weighted votes; answers that are known are what they are.

    Args:
        weights: per annotator (A); 1 where None.
        known: the answer of each item (I), or UNKNOWN.
    """
    given = _Given(votes, weights, known)
    probs = given.settled(_sums(votes.items * votes.n_classes + votes.classes, given.weights, given.shape))
    return Consensus(probs, _shares(probs), _confusions(given, probs), 0)


def dawid_skene(votes: Votes, weights: Floats | None = None, known: Ints | None = None) -> Consensus:
    """Probabilities of the truth and confusions of the annotators, each from the other by turns, from the majority on.

    Source: Dawid and Skene 1979, "Maximum likelihood estimation of observer error-rates using the EM algorithm",
    equations 2.3 to 2.5; with smoothing, and votes that count as often as their weights say. Arguments as of
    `majority`. Takes memory for some times A * K * K numbers, of which few can be learnt where classes are many.
    """
    return _learnt(votes, weights, known, _confusions)


def mace(votes: Votes, weights: Floats | None = None, known: Ints | None = None) -> Consensus:
    """As Dawid-Skene, for annotators who either know the truth or answer by a habit that hangs on nothing.

    Two sorts of numbers for each annotator, how often one knows and the habit, instead of a whole table: better where
    votes are few and classes many. Source: Hovy et al. 2013, "Learning whom to trust with MACE", section 3.1; EM with
    smoothing. Arguments as of `majority`.
    """
    return _learnt(votes, weights, known, _knowing_or_habit)


AGGREGATIONS: dict[str, Callable[..., Consensus]] = {"dawid-skene": dawid_skene, "majority": majority, "mace": mace}


class _Given:
    """Votes that count, with what is known."""

    def __init__(self, votes: Votes, weights: Floats | None, known: Ints | None) -> None:
        by_annotator = np.ones(votes.n_annotators) if weights is None else weights
        self.votes, self.weights = votes, by_annotator[votes.annotators]
        self.shape = (votes.n_items, votes.n_classes)
        self.known = np.full(votes.n_items, UNKNOWN) if known is None else known
        self.is_silent = np.bincount(votes.items, self.weights, votes.n_items) <= 0

    def settled(self, masses: Floats) -> Floats:
        """Probabilities from masses (I, K): known answers are certain, and nothing is said of silent items."""
        probs = np.where(self.is_silent[:, None], np.nan, masses / np.maximum(masses.sum(axis=1), _TINY)[:, None])
        asked = self.known != UNKNOWN
        probs[asked] = np.eye(self.shape[1])[self.known[asked]]
        return probs


Learner = Callable[[_Given, Floats, Floats | None], Floats]
"""Confusions (A, K, K) from what is believed of the items (I, K) and the confusions before, if any."""


def _learnt(votes: Votes, weights: Floats | None, known: Ints | None, learn: Learner) -> Consensus:
    """By turns from the weighted majority; then again from there, with whoever counts at all counting fully."""
    found = _by_turns(_Given(votes, weights, known), majority(votes, weights, known).probs, learn)
    if weights is None or np.isin(weights, (0.0, 1.0)).all():
        return found
    again = _by_turns(_Given(votes, (weights > 0).astype(np.float64), known), found.probs, learn)
    return replace(again, n_rounds=found.n_rounds + again.n_rounds)


def _by_turns(given: _Given, probs: Floats, learn: Learner) -> Consensus:
    """What is believed of the items (I, K) and of the annotators, each from the other, until it stays."""
    table, n_rounds, change = learn(given, probs, None), 0, np.inf
    while n_rounds < _MOST_ROUNDS and change > _TOLERANCE:
        scores = np.log(_shares(probs)) + _evidence(given, table)
        new = given.settled(np.exp(scores - scores.max(axis=1, keepdims=True)))
        change = float(np.nan_to_num(np.abs(new - probs)).max(initial=0.0))
        probs, n_rounds = new, n_rounds + 1
        table = learn(given, probs, table)
    return Consensus(probs, _shares(probs), table, n_rounds)


def _shares(probs: Floats) -> Floats:
    n_classes = probs.shape[1]
    masses = np.nansum(probs, axis=0) + 1 / n_classes
    found: Floats = masses / masses.sum()
    return found


def _confusions(given: _Given, probs: Floats, _: Floats | None = None) -> Floats:
    """Smoothed confusions (A, K, K) of annotators, given what is believed of the items (I, K)."""
    votes, k = given.votes, given.shape[1]
    believed = np.nan_to_num(probs[votes.items]) * given.weights[:, None]
    places = votes.annotators * k + votes.classes
    counts = np.stack([_sums(places, column, (votes.n_annotators, k)) for column in believed.T], axis=1)
    everyone = counts.sum(axis=0) + np.eye(k) / k + _TINY  # of a class that nobody met, the truth is what is said
    counts += SMOOTHING * everyone / everyone.sum(axis=1, keepdims=True)
    found: Floats = counts / counts.sum(axis=2, keepdims=True)
    return found


def _knowing_or_habit(given: _Given, probs: Floats, before: Floats | None) -> Floats:
    """Confusions (A, K, K) of annotators who know the truth with some chance, and else follow a habit.

    Off its diagonal, a column of such a table is the chance of saying that class by habit; on it, of knowing as well.
    """
    votes, k = given.votes, given.shape[1]
    who, said = votes.annotators, votes.classes
    habitual = 0.2 / (0.8 * k + 0.2) if before is None else before[who, said - 1, said] / before[who, said, said]
    known = np.nan_to_num(probs[votes.items, said]) * (1 - habitual)
    n_known = np.bincount(who, given.weights * known, votes.n_annotators)
    n_said = np.bincount(who, given.weights, votes.n_annotators)
    by_habit = _sums(who * k + said, given.weights * (1 - known), (votes.n_annotators, k))
    everyone = by_habit.sum(axis=0) + 1 / k
    habits = by_habit + SMOOTHING * everyone / everyone.sum()
    habits /= habits.sum(axis=1, keepdims=True)
    mean = (n_known.sum() + 8) / (n_said.sum() + 10)  # of few votes, that people mostly know
    knows = (n_known + SMOOTHING * mean) / (n_said + SMOOTHING)
    found: Floats = knows[:, None, None] * np.eye(k) + ((1 - knows)[:, None] * habits)[:, None, :]
    return found


def _evidence(given: _Given, confusions: Floats) -> Floats:
    """Log-likelihood (I, K) of all votes on each item, for each truth."""
    votes = given.votes
    logs = np.log(confusions + _TINY)
    said = logs[votes.annotators, :, votes.classes] * given.weights[:, None]
    found: Floats = np.stack([np.bincount(votes.items, column, votes.n_items) for column in said.T], axis=1)
    return found


def _sums(places: Ints, values: NDArray[np.float64], shape: tuple[int, int]) -> Floats:
    """Values summed at flat places of a table."""
    return np.bincount(places, weights=values, minlength=shape[0] * shape[1]).reshape(shape).astype(np.float64)
