"""A version measured after the task's labels changed. Catches: a crash at a label that the version did not know,
columns read under the wrong name, thresholds or CRF scores of another label."""

from typing import Any

import numpy as np
import pytest

from evaluate.rows import rows_of
from headrace.config import TaskTable
from headrace.evaluate.evaluating import evaluate
from headrace.evaluate.renaming import as_now
from headrace.tasks import TASK_TYPES, TokenLogits

THEN, NOW = ("b", "c", "gone"), ("new", "c", "a", "b")


def both(name: str) -> tuple[Any, Any]:
    def made(labels: tuple[str, ...]) -> Any:
        return TASK_TYPES.get(name)(TaskTable(type=name, labels=labels, descriptions={x: f"{x}!" for x in labels}))

    return made(THEN), made(NOW)


@pytest.mark.parametrize("name", ["text-classification", "multi-label", "retrieval"])
def test_answers_stay_what_they_were(name: str) -> None:
    then, now = both(name)
    outputs = np.array([[3, -2, -9], [-2, 3, -9], [0.1, -0.2, -9]], dtype=np.float32)
    calibration = {"thresholds": [0.3, 0.9, 0.5]} if name == "multi-label" else {}
    renamed, fitted = as_now(then, now, outputs, calibration)
    before = [then.answer_of(answer) for answer in then.decode(outputs, calibration)]
    assert [now.answer_of(answer) for answer in now.decode(renamed, fitted)] == before
    asked = ["b", "c", "new"] if name != "multi-label" else [["b"], ["c"], ["new"]]
    found = evaluate(now, rows_of(asked), renamed, calibration=fitted)["overall"]
    assert found["n"] == 3
    assert 0 < found[now.main_metric] < 1


@pytest.mark.parametrize("crf", [False, True])
def test_tags_stay_what_they_were(crf: bool) -> None:
    then, now = both("token-classification")
    rng = np.random.default_rng(0)
    spans = np.array([[i, i + 1] for i in range(12)], dtype=np.int32)
    logits = rng.normal(size=(12, 7)).astype(np.float32)
    logits[:, 5:] = -50  # nothing of the type that is gone
    outputs = np.empty(1, dtype=object)
    outputs[0] = TokenLogits("x" * 12, spans, logits, np.zeros(12, dtype=np.int32))
    scores = {"transitions": rng.normal(size=(7, 7)).tolist(), "start": [0.0] * 7, "end": rng.normal(size=7).tolist()}
    calibration = {"crf": scores} if crf else {}
    renamed, fitted = as_now(then, now, outputs, calibration)
    assert renamed[0].logits.shape == (12, 9)
    assert then.decode(outputs, calibration) == now.decode(renamed, fitted)


def test_the_same_names_change_nothing() -> None:
    then, _ = both("multi-label")
    outputs = np.zeros((2, 3), dtype=np.float32)
    assert as_now(then, then, outputs, {"thresholds": [0.1, 0.2, 0.3]}) == (outputs, {"thresholds": [0.1, 0.2, 0.3]})
