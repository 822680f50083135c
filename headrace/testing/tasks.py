"""What every task type must do with the samples of a task."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from headrace.config import TaskTable
from headrace.errors import BadInput
from headrace.records import Input
from headrace.tasks import Additive, Outputs, TaskType

Perfect = Callable[[TaskType, Sequence[Input], Sequence[Any]], Outputs]
"""From a task type, N inputs and their N targets to outputs (N,) that are right on every row."""
_PROBLEMS = {
    "single_label_classification", "multi_label_classification", "regression", "token_classification",
    "question_answering", "retrieval",
}  # fmt: skip


def check_task(
    task_type_class: type[TaskType],
    settings: TaskTable,
    good: Sequence[object],
    bad: Sequence[object],
    *,
    inputs: Sequence[Input] | None = None,
    perfect: Perfect | None = None,
) -> None:
    """Labels parse and combine, answers decode as JSON, right outputs score best, and nothing depends on row order.

    Args:
        good: labels as a source may write them, of two or more different targets; each differs from the one before.
        bad: what is no label of this task, of the first of `inputs` where there are any.
        inputs: what `good` are labels of, one for each; for labels that are checked against their text.
        perfect: makes right outputs; for tasks on tokens, whose outputs hang on the text.

    Raises:
        AssertionError: naming what the task type got wrong.
    """
    task_type = task_type_class(settings)
    name = task_type.name
    given: Sequence[Input | None] = [None] * len(good) if inputs is None else inputs
    assert len(given) == len(good), f"{name}: as many inputs as good labels are needed"
    _check_attributes(task_type)
    targets = _parsed(task_type, good, given)
    assert _parsed(task_type, targets, given) == targets, f"{name}: a target parses to another one"
    assert json.loads(json.dumps(targets)) == targets, f"{name}: targets are no JSON values"
    for raw in bad:
        _check_refused(task_type, raw, given[0])
    assert task_type.combine([targets[0]] * 3) == targets[0], f"{name}: three equal targets combine to another one"
    assert len(task_type.encode_targets(targets)) == len(targets), f"{name}: encode_targets changed the number of rows"
    outputs = perfect_logits(task_type, targets) if perfect is None else perfect(task_type, inputs or [], targets)
    _check_metrics(task_type, targets, outputs)
    _check_answers(task_type, targets, outputs, given)
    if isinstance(task_type, Additive):
        _check_sums(task_type, targets, outputs)


def perfect_logits(task_type: TaskType, targets: Sequence[Any]) -> Any:
    """Logits (N, K) that are right on every row, of a task on whole inputs."""
    truth = task_type.encode_targets(targets)
    if task_type.problem == "regression":
        return truth.astype(np.float32)[:, None]
    if task_type.problem == "multi_label_classification":
        return (truth * 16 - 8).astype(np.float32)
    return (np.eye(task_type.n_outputs, dtype=np.float32) * 8)[truth]


def _check_attributes(task_type: TaskType) -> None:
    name = task_type.name
    assert task_type.n_outputs == len(task_type.output_names) > 0, f"{name}: names and outputs differ in number"
    assert task_type.problem in _PROBLEMS, f"{name}: problem {task_type.problem!r} is not known"
    assert task_type.auto_class.startswith("Auto"), f"{name}: {task_type.auto_class!r} is no Auto class"
    assert len(task_type.fields) in (1, 2), f"{name}: an input has one or two parts"


def _parsed(task_type: TaskType, labels: Sequence[object], given: Sequence[Input | None]) -> list[Any]:
    return [task_type.parse_label(raw, of) for raw, of in zip(labels, given, strict=True)]


def _check_refused(task_type: TaskType, raw: object, given: Input | None) -> None:
    try:
        task_type.parse_label(raw, given)
    except BadInput:
        return
    raise AssertionError(f"{task_type.name}: {raw!r} was taken for a label")


def _check_metrics(task_type: TaskType, targets: Sequence[Any], outputs: Outputs) -> None:
    name, main = task_type.name, task_type.main_metric
    calibration = task_type.calibrate(targets, outputs)
    json.dumps(calibration, allow_nan=False)
    best = task_type.metrics(targets, outputs, calibration)
    assert best["n"] == len(targets), f"{name}: metrics count other rows"
    json.dumps(best, allow_nan=False)
    wrong = np.roll(outputs, 1, axis=0)
    worse = task_type.metrics(targets, wrong)
    assert worse[main] is None or worse[main] < best[main], f"{name}: {main} does not fall with wrong answers"
    order = np.random.default_rng(0).permutation(len(targets))
    shuffled = task_type.metrics([targets[i] for i in order], wrong[order])
    assert shuffled[main] is None or np.isclose(shuffled[main], worse[main]), f"{name}: {main} depends on row order"
    none = task_type.metrics([], outputs[:0])
    assert none[main] is None, f"{name}: {main} of no rows is {none[main]!r}, not None"


def _check_answers(
    task_type: TaskType, targets: Sequence[Any], outputs: Outputs, given: Sequence[Input | None]
) -> None:
    name = task_type.name
    for calibration in ({}, task_type.calibrate(targets, outputs)):
        answers = task_type.decode(outputs, calibration)
        assert len(answers) == len(targets), f"{name}: {len(answers)} answers to {len(targets)} rows"
        json.dumps(answers, allow_nan=False)
        for answer, target, of in zip(answers, targets, given, strict=True):
            assert task_type.answers_match(answer, target), f"{name}: {answer} does not match {target!r}"
            own = task_type.parse_label(task_type.answer_of(answer), of)
            assert task_type.answers_match(answer, own), f"{name}: {answer} does not match its own target {own!r}"
    assert task_type.decode(outputs[:0]) == [], f"{name}: answers to no rows"
    assert isinstance(task_type.calibrate([], outputs[:0]), dict), f"{name}: calibrate fails without rows"


def _check_sums(task_type: TaskType, targets: Sequence[Any], outputs: Outputs) -> None:
    """Figures from sums over rows are those of `metrics`, for one sum or for many, and nan for none."""
    assert isinstance(task_type, Additive)
    name, main = task_type.name, task_type.main_metric
    wrong = np.roll(outputs, 1, axis=0)
    counts = task_type.row_counts(targets, wrong)
    assert counts.shape[0] == len(targets), f"{name}: row_counts has other rows"
    expected, sums = task_type.metrics(targets, wrong), counts.sum(axis=0)
    for key, value in task_type.figures(sums).items():
        figure, of_class, label = key.partition(":")
        told = expected["per_class"][label][figure] if of_class else expected[key]
        assert np.isnan(value) if told is None else np.isclose(value, told), f"{name}: {key} is {value}, not {told}"
    many = task_type.figures(np.stack([sums, sums * 2, sums * 0]))[main]
    assert many.shape == (3,), f"{name}: figures of three sums have shape {many.shape}"
    assert np.isclose(many[0], many[1]), f"{name}: {main} changes when every row occurs twice"
    assert np.isnan(many[2]), f"{name}: {main} of no rows is {many[2]}, not nan"
