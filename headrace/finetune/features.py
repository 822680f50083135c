"""Rows to what training reads: token ids and labels of every window, made once for all epochs.

Labels by problem: a class, K zeros and ones, a number in standard deviations, a tag for the first piece of each word
(-100 elsewhere), or the first and last piece of an answer. Where not all rows weigh 1, each feature has its `weight`.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.checkpoints.encoding import Encoder, Window
from headrace.checkpoints.windows import NOTHING, Words, context_of
from headrace.records import Input, SnapshotRow
from headrace.tasks import FloatArray, Outputs, TaskType

IGNORED = -100
Feature = dict[str, Any]
Scale = tuple[float, float]
"""Mean and standard deviation of the training targets of a regression."""


@dataclass(frozen=True)
class FeatureSet:
    """One side of a snapshot as training reads it; a row that is read in windows has several features."""

    inputs: Sequence[Input]
    targets: Sequence[Any]
    windows: Sequence[Window]
    features: Sequence[Feature]
    channels: Sequence[str]
    """Of each row."""

    @property
    def lengths(self) -> list[int]:
        return [len(window) for window in self.windows]


def featurise(
    encoder: Encoder, task_type: Any, rows: Sequence[SnapshotRow], *, has_types: bool, scale: Scale = (0.0, 1.0)
) -> FeatureSet:
    """The features of rows.

    Args:
        has_types: whether the model reads token types.
    """
    inputs, targets = [row.input for row in rows], [row.target for row in rows]
    windows = encoder.encode(inputs)
    label_of = _labeller(task_type, inputs, targets, scale)
    is_weighed = any(row.weight != 1 for row in rows)
    features = []
    for i, window in enumerate(windows):
        feature: Feature = {"input_ids": window.encoding.ids, "labels": label_of(window), "row": i}
        if has_types:
            feature["token_type_ids"] = window.encoding.type_ids
        if is_weighed:
            feature["weight"] = float(rows[window.row].weight)
        features.append(feature)
    return FeatureSet(inputs, targets, windows, features, [row.channel for row in rows])


def _labeller(task_type: Any, inputs: Sequence[Any], targets: Sequence[Any], scale: Scale) -> Any:
    if task_type.problem == "token_classification":
        words_of = functools.lru_cache(maxsize=1)(lambda row: Words(inputs[row]))  # a row's windows come together
        return lambda window: _tags(task_type, targets[window.row], window, words_of(window.row))
    if task_type.problem == "question_answering":
        return lambda window: _positions(task_type, targets[window.row], window, inputs[window.row][1])
    encoded = task_type.encode_targets(targets)
    if task_type.problem == "regression":
        encoded = (encoded - scale[0]) / scale[1]
    plain = encoded.tolist()
    return lambda window: plain[window.row]


def _tags(task_type: Any, target: Any, window: Window, words: Words) -> list[int]:
    places, spans = words.seen_in(window.encoding)
    labels = np.full(len(window), IGNORED)
    labels[places] = task_type.tags_of(target, spans)
    found: list[int] = labels.tolist()
    return found


def _positions(task_type: Any, target: Any, window: Window, context: str) -> list[int]:
    """First and last piece of the answer in this window; the first token where it is not here."""
    places, spans = context_of(window.encoding, context)
    entries = np.concatenate([[NOTHING], spans])
    start, end = task_type.positions_of(target, entries, np.zeros(len(entries), dtype=np.int32))[0]
    return [0 if entry == 0 else int(places[entry - 1]) for entry in (start, end)]


def unscaled(task_type: TaskType, outputs: Outputs, scale: Scale) -> FloatArray:
    """Outputs of a network that learnt standardised targets, in the targets' own unit."""
    return outputs if task_type.problem != "regression" else outputs * scale[1] + scale[0]
