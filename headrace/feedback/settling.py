"""From the labels of many sources to one target and one weight for each example, or the reason why there is none yet.

Pure. Dimensions: V votes, I items (examples), A annotators (sources), K classes.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from headrace.config import FeedbackTable
from headrace.feedback.sources import Said, Source, covered, source_of
from headrace.records import Settled
from headrace.stats import annotators
from headrace.stats.annotators import UNKNOWN, Floats, Ints, Votes
from headrace.stats.consensus import AGGREGATIONS
from headrace.store.votes import CastVote
from headrace.tasks import TaskType

OWN_LABEL = "the example has a label of its own"  # or a review by a source that counts fully
NOT_TRAINED_ON = "no row of training or validation"
SUSPENDED = "suspended"
NOT_RIGHT = "fails known answers"
HARMFUL = "harms held-out rows"
DISPUTED = "disputed"
SUSPECTED = "suspected label error"
_CLASSES = ("single_label_classification", "retrieval")
_MOST_CELLS = 20_000_000  # of all sources' tables of confusions: some 500 MB; above it, the majority
_N_DIGITS = 4  # of weights, so that rounding cannot make another snapshot
_LEAST = 10**-_N_DIGITS
_SURE = 0.5 + 1e-9


@dataclass(frozen=True)
class Doubts:
    """What vectors say against labels (headrace/feedback/influence.py)."""

    suspects: frozenset[str] = frozenset()
    """Examples whose label is likely wrong."""
    harmful: Mapping[Source, str] = field(default_factory=dict)
    """Sources that held-out rows are surely better off without, and how sure."""
    left_out: str | None = None
    """Why nobody looked; None: it was looked at."""


@dataclass(frozen=True)
class Settlement:
    """What the labels that came back amount to."""

    settled: Mapping[str, Settled]
    """By example."""
    counted: Sequence[CastVote]
    """The labels that count."""
    gated: Mapping[Source, float]
    """What a label of each source counts by what is known of the source."""
    facts: dict[str, Any]
    """How many labels came, from how many sources, how many are held back and why."""


def settle(
    said: Said,
    weights: Mapping[Source, float],
    task_type: TaskType,
    settings: FeedbackTable,
    doubts: Doubts | None = None,
) -> Settlement:
    """One target and weight for each example with feedback alone, or why it is held back.

    The weight of an example is the sum of the weights of those who say what its target says, 1 at most; that of a known
    answer is 1. An example on which no more than half of the evidence agrees is held back as disputed.
    """
    doubts = doubts or Doubts(left_out="not asked for")
    own = {source: 0.0 if source in doubts.harmful else weight for source, weight in weights.items()}
    is_suspended = covered(said.suspensions)
    heard = _heard(said, own, is_suspended)
    votes = [vote for vote in said.votes if (vote.labeller_id, vote.key_id) not in heard.get(vote.example_id, ())]
    reasons = [
        OWN_LABEL if vote.example_id in heard else _why_not(vote, is_suspended(source_of(vote), vote.at), own, doubts)
        for vote in votes
    ]
    counted = [vote for vote, reason in zip(votes, reasons, strict=True) if reason is None]
    factors, share = _caps(counted, own, said.n_checked, settings)
    weighed = {source: (own[source], own[source] * factor) for source, factor in factors.items()}
    found = {
        vote.example_id: Settled(held_back=reason)
        for vote, reason in zip(votes, reasons, strict=True)
        if reason is not None and _is_row(vote)
    }
    found |= {example_id: Settled(held_back=OWN_LABEL, reviewers=who) for example_id, who in heard.items()}
    found |= _together(counted, weighed, said.known, task_type, settings)
    for example_id in doubts.suspects & found.keys():
        if found[example_id].held_back is None:
            found[example_id] = Settled(held_back=SUSPECTED)
    held = Counter(reason for reason in reasons if reason is not None)
    held.update(why for vote in counted if (why := found[vote.example_id].held_back) is not None)
    rows = [one for one in found.values() if one.held_back is None]
    facts = {
        "n_labels": len(votes),
        "n_sources": len({source_of(vote) for vote in votes}),
        "n_counted": len(votes) - sum(held.values()),
        "held_back": dict(sorted(held.items())),
        "n_examples": len(rows),
        "n_trusted": round(sum(worth(one.weight, settings) for one in rows), 1),
        "n_capped_sources": sum(factor < 1 for factor in factors.values()),
        "max_source_share": share,
        "harmful": {str(source): why for source, why in doubts.harmful.items()},
        "left_out": doubts.left_out,
    }
    return Settlement(found, counted, own, facts)


def worth(weight: float, settings: FeedbackTable) -> float:
    """How many labels an example of a weight counts as, where labels are counted: 1 unless it was capped."""
    return min(1.0, weight / (settings.new_source_weight or 1.0))


def _heard(
    said: Said, weights: Mapping[Source, float], is_suspended: Callable[[Source, datetime], bool]
) -> dict[str, frozenset[tuple[str, str | None]]]:
    """Example id to the ids of labellers and keys whose reviews say what it is: of sources that count fully.

    Suspended ones are none of them. Reviews of anybody else are votes like feedback.
    """
    found: dict[str, frozenset[tuple[str, str | None]]] = defaultdict(frozenset)
    for vote in said.votes:
        source = source_of(vote)
        if vote.is_review and weights[source] == 1 and not is_suspended(source, vote.at):
            found[vote.example_id] |= {(vote.labeller_id, vote.key_id)}
    return dict(found)


def _why_not(vote: CastVote, is_suspended: bool, weights: Mapping[Source, float], doubts: Doubts) -> str | None:
    """Why a label does not count; None if it does."""
    if vote.is_checked:
        return OWN_LABEL
    if is_suspended:
        return SUSPENDED
    if source_of(vote) in doubts.harmful:
        return HARMFUL
    if weights[source_of(vote)] == 0:
        return NOT_RIGHT
    return None if _is_row(vote) else NOT_TRAINED_ON


def _is_row(vote: CastVote) -> bool:
    """Whether the example could be a row that is learnt from."""
    return not vote.is_checked and vote.side in (None, "train", "validation")


def _caps(
    counted: Iterable[CastVote], weights: Mapping[Source, float], n_checked: int, settings: FeedbackTable
) -> tuple[dict[Source, float], float]:
    """What is left of each source's weight, so that no labeller is more than a share of the training rows; that share.

    Nor was what came through one channel, or one key, more than another share before labellers were cut: they come
    last, so that their bound holds in the end. A share is an equal part where there are too few for less: a single
    labeller can only be capped at all.
    """
    masses: dict[Source, float] = defaultdict(float)
    for vote in counted:
        masses[source_of(vote)] += weights[source_of(vote)] if vote.side != "validation" else 0.0
    factors = dict.fromkeys(masses, 1.0)
    for group_of in (lambda one: one.channel, lambda one: one.key):
        factors, _ = _cut(factors, masses, group_of, settings.max_channel_share, n_checked)
    return _cut(factors, masses, lambda one: (one.channel, one.labeller), settings.max_source_share, n_checked)


def _cut(
    factors: Mapping[Source, float],
    masses: Mapping[Source, float],
    group_of: Callable[[Source], Hashable],
    share: float,
    n_checked: int,
) -> tuple[dict[Source, float], float]:
    """Factors of sources, so that no group of them is more than a share; and that share. None is no group."""
    sizes: dict[Hashable, float] = defaultdict(float)
    for source, factor in factors.items():
        sizes[group_of(source)] += masses[source] * factor
    n_other = n_checked + sizes.pop(None, 0.0)
    groups = sorted((group for group, size in sizes.items() if size > 0), key=str)
    if not groups:
        return dict(factors), share
    share = max(share, 1 / len(groups))
    capped = annotators.capped(np.array([sizes[group] for group in groups]), share, n_other=n_other)
    left = dict(zip(groups, capped.tolist(), strict=True))
    return {source: factor * left.get(group_of(source), 1.0) for source, factor in factors.items()}, share


def _together(
    counted: Sequence[CastVote],
    weights: Mapping[Source, tuple[float, float]],
    known: Mapping[str, Any],
    task_type: TaskType,
    settings: FeedbackTable,
) -> dict[str, Settled]:
    """
    Args:
        weights: of each source, by what is known of it, and after caps. The first says who is believed; the second,
            how much of the training rows that may be (aggregation goes astray on weights near 0).
    """
    if not counted:
        return {}
    if task_type.problem in _CLASSES:
        return _one_class(counted, weights, known, task_type, settings)
    by_example: dict[str, list[CastVote]] = defaultdict(list)
    for vote in counted:
        by_example[vote.example_id].append(vote)
    found = {}
    for example_id, votes in by_example.items():
        answer = known.get(votes[0].text_hash)
        target = task_type.combine([vote.value for vote in votes]) if answer is None else answer
        mass = sum(weights[source_of(vote)][1] for vote in votes)
        found[example_id] = _settled(target, mass, is_known=answer is not None)
    return found


def _one_class(
    counted: Sequence[CastVote],
    weights: Mapping[Source, tuple[float, float]],
    known: Mapping[str, Any],
    task_type: TaskType,
    settings: FeedbackTable,
) -> dict[str, Settled]:
    """Aggregation of votes for one of K classes."""
    names = list(task_type.output_names)
    class_of = {name: k for k, name in enumerate(names)}
    item_of = {example_id: i for i, example_id in enumerate(dict.fromkeys(vote.example_id for vote in counted))}
    sources = sorted({source_of(vote) for vote in counted}, key=str)
    place = {source: a for a, source in enumerate(sources)}
    items = np.array([item_of[vote.example_id] for vote in counted])
    who = np.array([place[source_of(vote)] for vote in counted])
    said = np.array([class_of[vote.value] for vote in counted])
    gated, capped = np.array([weights[source] for source in sources]).T
    truth = np.full(len(item_of), UNKNOWN)
    for vote in counted:
        if vote.text_hash in known:
            truth[item_of[vote.example_id]] = class_of.get(known[vote.text_hash], UNKNOWN)
    votes = Votes(items, who, said, len(item_of), len(sources), len(names))
    answers, sureness = _aggregated(votes, gated, truth, settings.aggregation)
    agreeing = np.bincount(items, np.where(said == answers[items], capped[who], 0.0), len(item_of))
    settled = {}
    for example_id, i in item_of.items():
        is_known = truth[i] != UNKNOWN
        if not is_known and (sureness[i] <= _SURE or agreeing[i] == 0):
            settled[example_id] = Settled(held_back=DISPUTED)
        else:
            settled[example_id] = _settled(names[answers[i]], float(agreeing[i]), is_known=is_known)
    return settled


def _settled(target: Any, mass: float, *, is_known: bool) -> Settled:
    """
    Args:
        mass: weights of those who say so.
    """
    return Settled(target, 1.0 if is_known else max(_LEAST, round(min(1.0, mass), _N_DIGITS)))


def _aggregated(votes: Votes, weights: Floats, truth: Ints, way: str) -> tuple[Ints, Floats]:
    """The answer to each item (I), and how sure it is (I).

    What one person alone said is what that one said: such items teach nothing about anybody, and methods that learn go
    astray on them.
    """
    answers, sureness = _majority(votes, weights, truth)
    several = (np.bincount(votes.items, minlength=votes.n_items) > 1) | (truth != UNKNOWN)
    fits = votes.n_annotators * votes.n_classes**2 <= _MOST_CELLS
    if way == "majority" or not fits or not several.any():
        return answers, sureness
    kept, place = several[votes.items], np.cumsum(several) - 1
    part = Votes(
        place[votes.items[kept]],
        votes.annotators[kept],
        votes.classes[kept],
        int(several.sum()),
        votes.n_annotators,
        votes.n_classes,
    )
    found = AGGREGATIONS[way](part, weights, truth[several])
    answers[several] = found.answers()
    sureness[several] = found.probs.max(axis=1)
    return answers, sureness


def _majority(votes: Votes, weights: Floats, truth: Ints) -> tuple[Ints, Floats]:
    """The class of most weight of each item (I), the first of equals, and its share (I); without tables of classes."""
    places, at = np.unique(votes.items * votes.n_classes + votes.classes, return_inverse=True)
    masses = np.bincount(at.reshape(-1), weights[votes.annotators])
    items = places // votes.n_classes
    order = np.lexsort((places, -masses, items))
    first = order[np.unique(items[order], return_index=True)[1]]
    answers = np.where(truth != UNKNOWN, truth, places[first] % votes.n_classes)
    return answers, masses[first] / np.bincount(items, masses)
