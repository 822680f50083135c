"""Measure a predictor's outputs on labelled rows: per class and per channel, with intervals. Pure."""

from collections.abc import Sequence
from typing import Any

from headrace.errors import BadInput
from headrace.evaluate.uncertainty import intervals_of
from headrace.records import SnapshotRow
from headrace.tasks import UNCALIBRATED, Calibration, Outputs, TaskType


def evaluate(
    task_type: TaskType,
    rows: Sequence[SnapshotRow],
    outputs: Outputs,
    *,
    calibration: Calibration = UNCALIBRATED,
    seed: int = 0,
) -> dict[str, Any]:
    """Figures of all rows and of each channel, as JSON.

    Returns:
        `{"main_metric", "overall": part, "channels": {name: part}}`; a part is the task type's metrics plus
        "intervals", from a metric's name (`f1:CLASS` for one of a class) to estimate, low, high and level. A figure
        that cannot be had is None, and its interval carries the reason. A channel without rows is absent.

    Args:
        outputs: (N, K), or (N,) of tasks on tokens, in the order of `rows`.

    Raises:
        BadInput: no rows.
    """
    if not rows:
        raise BadInput(
            "there are no rows to evaluate on", next_step="Import more labelled rows, or raise split.test_share"
        )
    return {
        "main_metric": task_type.main_metric,
        "overall": _part(task_type, rows, outputs, calibration, seed),
        "channels": {
            name: _part(task_type, [rows[i] for i in places], outputs[places], calibration, seed)
            for name, places in places_by_channel(rows).items()
        },
    }


def places_by_channel(rows: Sequence[SnapshotRow]) -> dict[str, list[int]]:
    """Row numbers of each channel, channels by name."""
    places: dict[str, list[int]] = {}
    for i, row in enumerate(rows):
        places.setdefault(row.channel, []).append(i)
    return dict(sorted(places.items()))


def _part(
    task_type: TaskType, rows: Sequence[SnapshotRow], outputs: Outputs, calibration: Calibration, seed: int
) -> dict[str, Any]:
    targets = [row.target for row in rows]
    figures = task_type.metrics(targets, outputs, calibration)
    found = intervals_of(task_type, targets, outputs, figures, calibration=calibration, seed=seed)
    return {**figures, "intervals": found}
