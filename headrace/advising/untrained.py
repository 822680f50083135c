"""What a base model does on a team's own rows without fine-tuning: intervals, and how far each way is from the best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.config import TaskTable
from headrace.evaluate import baselines, comparison, evaluating
from headrace.records import SnapshotRow
from headrace.registry import resolve
from headrace.stats import linear_probe
from headrace.tasks import FloatArray, Outputs, TaskType
from headrace.tasks.inputs import as_one_text

FEW = 10
"""Rows of a class that "few-shot" means, as in bench/methods."""
_N_DEALT = 20  # times that answers are dealt out anew: the best of them is rarely above what chance gives by 2 sd
_N_PROBED_CLASSES = 200  # more make the probe take minutes
_SIMPLE = ("zero-shot", "few-shot")
_ALL_LABELS = ("frozen", "probe")


@dataclass(frozen=True)
class Untrained:
    """Intervals of the main metric on the validation side; empty for tasks on tokens."""

    measured: dict[str, dict[str, Any]]
    """By way: majority, zero-shot, few-shot (the nearest mean of a few vectors), frozen (of all), probe (a linear layer
    on all)."""
    gains: dict[str, dict[str, Any]]
    """Of each way with few labels or none: what the better of the ways with all labels gives more, on the same rows."""
    chance: dict[str, float]
    """Of the same ways: what answers without knowledge of the inputs give."""

    @property
    def quality(self) -> float:
        return max((one["estimate"] for one in self.measured.values() if one["estimate"] is not None), default=0.0)


def measure(
    task_type: TaskType,
    settings: TaskTable,
    base_model: str,
    train: Sequence[SnapshotRow],
    validation: Sequence[SnapshotRow],
) -> Untrained:
    """What each way that needs no fine-tuning learns from `train` and gives on `validation`."""
    ways = _ways(task_type, settings, base_model, train, validation)
    measured = {
        way: evaluating.evaluate(task_type, validation, outputs)["overall"]["intervals"][task_type.main_metric]
        for way, outputs in ways.items()
    }
    best = max(
        (way for way in _ALL_LABELS if way in ways), key=lambda way: measured[way]["estimate"] or 0.0, default=None
    )
    simple = [way for way in _SIMPLE if way in ways and best is not None]
    return Untrained(
        measured,
        {way: _gain(task_type, validation, ways[way], ways[best or ""]) for way in simple},
        {way: _chance(task_type, validation, ways[way], ways["majority"]) for way in simple},
    )


def _ways(
    task_type: TaskType,
    settings: TaskTable,
    base_model: str,
    train: Sequence[SnapshotRow],
    validation: Sequence[SnapshotRow],
) -> dict[str, Outputs]:
    """Outputs on the validation side."""
    targets = [row.target for row in train]
    majority = baselines.majority(task_type, targets, n=len(validation))
    if majority is None:
        return {}
    embed = resolve("headrace.finetune.embeddings:embed", purpose="advice on methods")
    texts = [as_one_text(row.input) for row in (*train, *validation)]
    vectors: FloatArray = embed(base_model, texts, settings)
    own, theirs = vectors[: len(train)], vectors[len(train) :]
    ways: dict[str, Outputs | None] = {"majority": majority}
    if task_type.problem in ("single_label_classification", "retrieval"):
        described = resolve("headrace.finetune.methods.zero_shot:described", purpose="advice on methods")
        labels = [described(settings, label) for label in task_type.output_names]
        entries = embed(base_model, labels, settings)
        ways["zero-shot"] = baselines.zero_shot(task_type, theirs, entries)
        few = places_of_few(targets)
        if 2 * len(few) <= len(targets):  # of fewer, they are nearly all the rows there are
            ways["few-shot"] = baselines.nearest_centroid(task_type, own[few], [targets[i] for i in few], theirs)
    ways["frozen"] = baselines.nearest_centroid(task_type, own, targets, theirs)
    if task_type.problem == "single_label_classification" and len(set(targets)) <= _N_PROBED_CLASSES:
        ways["probe"] = _probe(task_type, own, targets, theirs)
    return {way: outputs for way, outputs in ways.items() if outputs is not None}


def places_of_few(targets: Sequence[Any]) -> list[int]:
    """Places of `FEW` rows of each class, evenly over all of the class, which are in the order of channel and key."""
    places: dict[Any, list[int]] = {}
    for place, target in enumerate(targets):
        places.setdefault(target, []).append(place)
    chosen = (own[i] for own in places.values() for i in _evenly(len(own), FEW))
    return sorted(chosen)


def _evenly(n: int, n_chosen: int) -> NDArray[np.int64]:
    return np.linspace(0, n - 1, min(n, n_chosen)).astype(np.int64)


def _probe(task_type: TaskType, own: FloatArray, targets: Sequence[Any], theirs: FloatArray) -> FloatArray:
    """Log-probabilities (N, K) of a linear layer on the vectors; a class without rows is far below the others."""
    classes, truth = np.unique(task_type.encode_targets(targets), return_inverse=True)
    weights = linear_probe.fit(own, truth.reshape(-1), len(classes))
    logits = np.full((len(theirs), task_type.n_outputs), -100.0, dtype=np.float32)
    logits[:, classes] = linear_probe.log_probs(weights, theirs)
    return logits


def _gain(task_type: TaskType, rows: Sequence[SnapshotRow], simple: Outputs, best: Outputs) -> dict[str, Any]:
    found: dict[str, Any] = comparison.compare(task_type, rows, simple, best)["overall"]["difference"]
    return found


def _chance(task_type: TaskType, rows: Sequence[SnapshotRow], outputs: Outputs, majority: Outputs) -> float:
    """The main metric of answers that know nothing: the most frequent class to all, or these answers to other rows."""
    rng = np.random.default_rng(0)
    targets = [row.target for row in rows]
    dealt = (outputs[rng.permutation(len(outputs))] for _ in range(_N_DEALT))
    figures = (task_type.metrics(targets, answers)[task_type.main_metric] for answers in (majority, *dealt))
    return max(float(figure or 0.0) for figure in figures)
