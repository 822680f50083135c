"""What every task type must do with the samples of a task."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.config import TaskTable
from headrace.errors import BadInput
from headrace.tasks import TaskType


def check_task(
    task_type_class: type[TaskType], settings: TaskTable, good: Sequence[object], bad: Sequence[object]
) -> None:
    """Labels parse and combine, answers decode as JSON, right logits score best, and nothing depends on row order.

    Args:
        good: labels as a source may write them, of two or more different targets.
        bad: what is no label of this task.

    Raises:
        AssertionError: naming what the task type got wrong.
    """
    task_type = task_type_class(settings)
    name = task_type.name
    assert task_type.n_outputs == len(task_type.output_names) > 0, f"{name}: names and outputs differ in number"
    targets = [task_type.parse_label(raw) for raw in good]
    assert [task_type.parse_label(target) for target in targets] == targets, f"{name}: a target parses to another one"
    assert json.loads(json.dumps(targets)) == targets, f"{name}: targets are no JSON values"
    for raw in bad:
        _check_refused(task_type, raw)
    assert task_type.combine([targets[0]] * 3) == targets[0], f"{name}: three equal targets combine to another one"
    _check_metrics(task_type, targets)
    _check_answers(task_type, targets)


def perfect_logits(task_type: TaskType, targets: Sequence[Any]) -> Any:
    """Logits (N, K) that are right on every row."""
    truth = task_type.encode_targets(targets)
    assert len(truth) == len(targets), f"{task_type.name}: encode_targets changed the number of rows"
    if task_type.problem == "regression":
        return truth.astype(np.float32)[:, None]
    return (np.eye(task_type.n_outputs, dtype=np.float32) * 8)[truth]


def _check_refused(task_type: TaskType, raw: object) -> None:
    try:
        task_type.parse_label(raw)
    except BadInput:
        return
    raise AssertionError(f"{task_type.name}: {raw!r} was taken for a label")


def _check_metrics(task_type: TaskType, targets: Sequence[Any]) -> None:
    name, main = task_type.name, task_type.main_metric
    logits = perfect_logits(task_type, targets)
    best = task_type.metrics(targets, logits)
    assert best["n"] == len(targets), f"{name}: metrics count other rows"
    json.dumps(best, allow_nan=False)
    wrong = np.roll(logits, 1, axis=0)
    worse = task_type.metrics(targets, wrong)
    assert worse[main] is None or worse[main] < best[main], f"{name}: {main} does not fall with wrong answers"
    order = np.random.default_rng(0).permutation(len(targets))
    shuffled = task_type.metrics([targets[i] for i in order], wrong[order])
    assert shuffled[main] is None or np.isclose(shuffled[main], worse[main]), f"{name}: {main} depends on row order"
    none = task_type.metrics([], logits[:0])
    assert none[main] is None, f"{name}: {main} of no rows is {none[main]!r}, not None"


def _check_answers(task_type: TaskType, targets: Sequence[Any]) -> None:
    logits = perfect_logits(task_type, targets)
    answers = task_type.decode(logits, temperature=2.0)
    assert len(answers) == len(targets), f"{task_type.name}: {len(answers)} answers to {len(targets)} rows"
    json.dumps(answers, allow_nan=False)
    for answer, target in zip(answers, targets, strict=True):
        assert task_type.answers_match(answer, target), f"{task_type.name}: {answer} does not match {target!r}"
    assert task_type.decode(logits[:0]) == [], f"{task_type.name}: answers to no rows"
