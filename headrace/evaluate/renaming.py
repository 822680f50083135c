"""Outputs of a version that knew other labels, as outputs of the task as it is now. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from headrace.stats.calibration import DEFAULT_THRESHOLD
from headrace.tasks import Calibration, FloatArray, Outputs, TaskType

_BELOW = 30.0  # e ** -30: what a version cannot answer has no probability, and comes last


def as_now(then: TaskType, now: TaskType, outputs: Outputs, calibration: Calibration) -> tuple[Outputs, dict[str, Any]]:
    """Outputs and calibration in the order of the task's present names.

    A label that came later is one that the version never answers; one that is gone is left out.

    Args:
        then: the task type with the settings that the version was made under.
        outputs: (N, K then), or (N,) of tasks on tokens.

    Returns:
        (N, K now), or (N,) of tasks on tokens, and the calibration that goes with them.
    """
    fitted = dict(calibration)
    if then.output_names == now.output_names:
        return outputs, fitted
    place = {name: k for k, name in enumerate(then.output_names)}
    places = [place.get(name, -1) for name in now.output_names]
    if "thresholds" in fitted:
        fitted["thresholds"] = [DEFAULT_THRESHOLD if k < 0 else fitted["thresholds"][k] for k in places]
    if "crf" in fitted:
        fitted["crf"] = {name: _scores(np.asarray(part), places).tolist() for name, part in fitted["crf"].items()}
    if outputs.dtype != object:
        return _columns(outputs, places), fitted
    renamed = np.empty(len(outputs), dtype=object)
    for i, one in enumerate(outputs):
        renamed[i] = replace(one, logits=_columns(one.logits, places))
    return renamed, fitted


def _columns(logits: FloatArray, places: Sequence[int]) -> FloatArray:
    """Logits (N, K now) from (N, K then); -1 is a place that there was not."""
    below = logits.min(axis=1, keepdims=True) - _BELOW
    columns: FloatArray = np.hstack([logits, below])[:, places]
    return columns


def _scores(part: FloatArray, places: Sequence[int]) -> FloatArray:
    """CRF scores, 0 for tags that there were not: their logits keep them out already."""
    wide = np.pad(part, [(0, 1)] * part.ndim)
    picked: FloatArray = wide[np.ix_(*[places] * part.ndim)]
    return picked
