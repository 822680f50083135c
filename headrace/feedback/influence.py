"""What frozen vectors say against labels that came back: which are likely wrong, and which sources harm.

Pure. Rows that were checked are the yardstick: a model that is right about fewer of them, out of fold, than a source
must be on known answers accuses nobody. Dimensions: N rows, D width of the vectors.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.config import FeedbackTable
from headrace.feedback.settling import Doubts, Settlement
from headrace.feedback.sources import Source, source_of
from headrace.records import SnapshotRow
from headrace.stats import label_errors, linear_probe, valuation
from headrace.tasks import TaskType

MIN_LABELS = 30
"""Of feedback that counts, before anybody looks; and of rows that a source alone speaks for, before its influence is
measured."""
_MIN_CHECKED = 100  # training rows that were checked
_MIN_HELD_OUT = 50  # validation rows that were checked
_MOST_SOURCES = 20  # whose influence is measured: those with the most labels, a fit each
_ALPHA = 0.01  # chance that any harmless source is said to harm
_SEED = 1
_FOUND_SHARE = (
    2 / 3
)  # of wrong labels that confident learning suspects (bench/results/valuation.json, one in ten wrong)
_LEAST_DIFFERENCE = 0.1


def doubts(
    rows: Sequence[SnapshotRow],
    vectors: NDArray[Any],
    settlement: Settlement,
    task_type: TaskType,
    settings: FeedbackTable,
) -> Doubts:
    """What the vectors of rows (N, D) say against labels.

    Args:
        rows: of the training and the validation side, as `settlement` has them be.
    """
    train = [i for i, row in enumerate(rows) if row.side == "train"]
    held_out = [i for i, row in enumerate(rows) if row.side == "validation" and row.origin != "feedback"]
    if why := reason_to_pass(rows, settlement, task_type):
        return Doubts(left_out=why)
    own = [rows[i] for i in train]
    targets = task_type.encode_targets([row.target for row in own])
    probs = linear_probe.out_of_fold(vectors[train], targets, task_type.n_outputs, seed=_SEED)
    checked = np.array([row.origin != "feedback" for row in own])
    hits = probs.argmax(axis=1) == targets
    if hits[checked].mean() < settings.gate_accuracy:
        return Doubts(left_out=f"a model on frozen vectors is right about {hits[checked].mean():.0%} of checked rows")
    suspects = _suspects(own, label_errors.suspects(probs, targets).rows.tolist(), _vouched(settlement))
    if len(held_out) < _MIN_HELD_OUT:
        return Doubts(suspects, left_out=f"fewer than {_MIN_HELD_OUT} checked rows of validation to see influence on")
    return Doubts(suspects, _harmful(rows, vectors, train, held_out, settlement, task_type, suspects))


def reason_to_pass(rows: Sequence[SnapshotRow], settlement: Settlement, task_type: TaskType) -> str | None:
    """Why vectors would say nothing; None where they would."""
    if task_type.problem != "single_label_classification":
        return "answers that are not one class"
    origins = Counter(row.origin for row in rows if row.side == "train")
    if len(settlement.counted) < MIN_LABELS or origins["feedback"] < MIN_LABELS:
        return f"fewer than {MIN_LABELS} labels that count"
    if sum(origins.values()) - origins["feedback"] < _MIN_CHECKED:
        return f"fewer than {_MIN_CHECKED} checked rows of training"
    return None


def _suspects(rows: Sequence[SnapshotRow], suspected: Sequence[int], vouched: set[str]) -> frozenset[str]:
    """Of each label, as many rows as are likely wrong, the least likely first, where not enough people stand for them.

    Labels of checked rows are suspected too, in narrow cases; with their share u, the share s of suspected labels from
    feedback, and the share r of wrong labels that are suspected at all, s = w r + (1 - w) u gives the share w of wrong.

    Args:
        suspected: places of rows, the least likely label first.
    """
    found: set[str] = set()
    is_open = [row.origin == "feedback" and row.example_id not in vouched for row in rows]
    for label in {rows[i].target for i in suspected}:
        mine = [i for i in suspected if rows[i].target == label]
        n_checked = sum(row.origin != "feedback" and row.target == label for row in rows)
        n_open = sum(one and row.target == label for one, row in zip(is_open, rows, strict=True))
        ours = [rows[i].example_id for i in mine if is_open[i]]
        usual = sum(rows[i].origin != "feedback" for i in mine) / max(1, n_checked)
        n_wrong = (len(ours) - usual * n_open) / max(_FOUND_SHARE - usual, _LEAST_DIFFERENCE)
        found.update(ours[: max(0, round(n_wrong))])
    return frozenset(found)


def _vouched(settlement: Settlement) -> set[str]:
    """Examples whose target is said by as much as one label that counts fully: people before models."""
    masses: dict[str, float] = defaultdict(float)
    for vote in settlement.counted:
        if vote.value == settlement.settled[vote.example_id].target:
            masses[vote.example_id] += settlement.gated[source_of(vote)]
    return {example_id for example_id, mass in masses.items() if mass >= 1}


def _who_speaks_alone(settlement: Settlement) -> dict[str, Source]:
    """Examples whose target one source alone says, and which."""
    found: dict[str, set[Source]] = defaultdict(set)
    for vote in settlement.counted:
        if vote.value == settlement.settled[vote.example_id].target:
            found[vote.example_id].add(source_of(vote))
    return {example_id: next(iter(sources)) for example_id, sources in found.items() if len(sources) == 1}


def _harmful(
    rows: Sequence[SnapshotRow],
    vectors: NDArray[Any],
    train: Sequence[int],
    held_out: Sequence[int],
    settlement: Settlement,
    task_type: TaskType,
    suspects: frozenset[str],
) -> dict[Source, str]:
    """Sources that checked held-out rows are surely better off without: by loss, and not by loss alone.

    A source is taken out with the rows for which it alone speaks; the others are there without it, too. The loss alone
    would accuse those who only tell of mistakes, since their labels have other shares than the traffic.
    """
    alone = _who_speaks_alone(settlement)
    used = [i for i in train if rows[i].example_id not in suspects]
    counts = Counter(alone[rows[i].example_id] for i in used if rows[i].example_id in alone)
    judged = [source for source, n in counts.most_common(_MOST_SOURCES) if n >= MIN_LABELS]
    if not judged:
        return {}
    number: dict[Source | None, int] = {source: s + 1 for s, source in enumerate(judged)}
    channels = {name: c for c, name in enumerate(sorted({row.channel for row in rows}))}
    own = valuation.Rows(
        vectors[used],
        task_type.encode_targets([rows[i].target for i in used]),
        np.array([number.get(alone.get(rows[i].example_id), 0) for i in used]),
    )
    theirs = valuation.Rows(
        vectors[list(held_out)],
        task_type.encode_targets([rows[i].target for i in held_out]),
        np.array([channels[rows[i].channel] for i in held_out]),
    )
    level = 1 - _ALPHA / len(judged)
    found = valuation.leave_one_out(own, theirs, task_type.n_outputs, level=level)
    return _harms(found, judged, channels)


def _harms(
    found: Sequence[valuation.Contribution], judged: Sequence[Source], channels: Mapping[str, int]
) -> dict[Source, str]:
    by_place = {(one.source, one.group): one for one in found}
    harmful = {}
    for s, source in enumerate(judged, start=1):
        whole, own = by_place[s, None], by_place.get((s, channels[source.channel]))
        harms_own = own is None or own.loss.estimate < 0
        if whole.loss.high < 0 and whole.accuracy.estimate < 0 and harms_own:
            ends = f"{-whole.loss.high:.4f} to {-whole.loss.low:.4f}"
            harmful[source] = f"held-out rows lose {-whole.loss.estimate:.4f} ({ends}) nats each by its labels"
    return harmful
