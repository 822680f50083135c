"""Text pair is text classification of two texts. Catches: a method that is passed on to the wrong one."""

import numpy as np

from headrace.config import TaskTable
from headrace.tasks.text_classification import TextClassification
from headrace.tasks.text_pair import TextPair

SETTINGS = TaskTable(type="text-pair", labels=("same", "other", "unsure"))
PAIR, SINGLE = TextPair(SETTINGS), TextClassification(SETTINGS)


def test_answers_and_figures_are_those_of_classification() -> None:
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(60, 3)).astype(np.float32)
    targets = [SETTINGS.labels[k] for k in rng.integers(0, 3, 60)]
    calibration = PAIR.calibrate(targets, outputs)
    assert calibration == SINGLE.calibrate(targets, outputs)
    assert PAIR.metrics(targets, outputs, calibration) == SINGLE.metrics(targets, outputs, calibration)
    assert PAIR.decode(outputs, calibration) == SINGLE.decode(outputs, calibration)
    assert PAIR.combine(["other", "same"]) == "same"
    assert PAIR.encode_targets(targets).tolist() == SINGLE.encode_targets(targets).tolist()


def test_an_input_has_two_texts() -> None:
    assert PAIR.fields == ("text", "text_pair")
    assert PAIR.parse_label(" other", ("a", "b")) == "other"
