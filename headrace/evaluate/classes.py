"""Two predictors on the same rows, class by class: how often one of the two alone is right about a class. Pure.

A row *speaks about* a class where the truth or one of the two answers has it. An answer is *right about* the class
where it has it as the truth has it, so a class is harmed by what is missed and by what is wrongly taken for it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from headrace.records import SnapshotRow
from headrace.tasks import UNCALIBRATED, Calibration, Outputs, TaskType

_About = Mapping[str, object]
"""Class to what is said of it."""
_Count = tuple[str, str]
"""Class, and n, wins or losses."""


def compare(
    task_type: TaskType,
    rows: Sequence[SnapshotRow],
    outputs_a: Outputs,
    outputs_b: Outputs,
    *,
    calibration_a: Calibration = UNCALIBRATED,
    calibration_b: Calibration = UNCALIBRATED,
) -> dict[str, Any]:
    """What is gained and lost for each class by answering with b instead of a, as JSON.

    Returns:
        `{"n_classes", "overall": {class: counts}, "channels": {channel: {class: counts}}}`; counts are `n` (rows that
        speak about the class), `wins` and `losses` (rows where only b, or only a, is right about it). Classes without
        wins and losses are left out. Tasks without classes have none; with one channel, `channels` is empty.

    Args:
        outputs_a: (N, K), or (N,) of tasks on tokens, in the order of `rows`.
        outputs_b: the same.
    """
    about = _BY_PROBLEM.get(task_type.problem)
    if about is None:
        return {"n_classes": 0, "overall": {}, "channels": {}}
    answers_a = task_type.decode(outputs_a, calibration_a)
    answers_b = task_type.decode(outputs_b, calibration_b)
    overall: Counter[_Count] = Counter()
    channels: dict[str, Counter[_Count]] = {row.channel: Counter() for row in rows}
    for row, a, b in zip(rows, answers_a, answers_b, strict=True):
        said = [about(one) for one in (row.target, task_type.answer_of(a), task_type.answer_of(b))]
        for count in _counts_of(*said):
            overall[count] += 1
            channels[row.channel][count] += 1
    shown = sorted(channels) if len(channels) > 1 else []
    return {
        "n_classes": len({name for name, _ in overall}),
        "overall": _differing(overall),
        "channels": {channel: _differing(channels[channel]) for channel in shown},
    }


def _counts_of(truth: _About, said_a: _About, said_b: _About) -> Iterator[_Count]:
    """What a row adds one to."""
    for name in truth.keys() | said_a.keys() | said_b.keys():
        yield name, "n"
        right_a, right_b = (said.get(name) == truth.get(name) for said in (said_a, said_b))
        if right_a != right_b:
            yield name, "wins" if right_b else "losses"


def _differing(counts: Counter[_Count]) -> dict[str, dict[str, int]]:
    names = sorted({name for name, what in counts if what != "n"})
    return {name: {what: counts[name, what] for what in ("n", "wins", "losses")} for name in names}


def _of_label(target: str) -> _About:
    return {target: True}


def _of_labels(target: Sequence[str]) -> _About:
    return dict.fromkeys(target, True)


def _of_spans(target: Sequence[Sequence[Any]]) -> _About:
    """Of entities: all places where the class is said to be."""
    found: dict[str, frozenset[tuple[int, int]]] = {}
    for start, end, name in target:
        found[name] = found.get(name, frozenset()) | {(start, end)}
    return found


_BY_PROBLEM: dict[str, Callable[[Any], _About]] = {
    "single_label_classification": _of_label,
    "retrieval": _of_label,
    "multi_label_classification": _of_labels,
    "token_classification": _of_spans,
}
