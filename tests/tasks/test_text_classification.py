"""Metrics of classification against scikit-learn and a slow reference. Catches: transposed confusion, a wrong average,
bins that lose a row, a class without rows that pulls the average down or counts as 0."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from headrace.config import TaskTable
from headrace.errors import BadConfig, BadInput
from headrace.tasks.text_classification import TextClassification, softmax

LABELS = ("no", "maybe", "yes")
TASK = TextClassification(TaskTable(labels=LABELS))
PAIRS = st.lists(st.tuples(st.sampled_from(LABELS), st.integers(0, 2)), min_size=1, max_size=60)


def logits_of(answers: list[int]) -> np.ndarray:
    rng = np.random.default_rng(len(answers))
    return (np.eye(3)[answers] * 3 + rng.random((len(answers), 3))).astype(np.float32)


@given(PAIRS)
@settings(deadline=None)
def test_metrics_are_sklearns(pairs: list[tuple[str, int]]) -> None:
    truth, answers = [t for t, _ in pairs], [LABELS[a] for _, a in pairs]
    found = TASK.metrics(truth, logits_of([a for _, a in pairs]))
    present = [label for label in LABELS if label in truth]
    assert found["n"] == len(pairs)
    assert found["accuracy"] == pytest.approx(oracle.accuracy_score(truth, answers))
    assert found["confusion"] == oracle.confusion_matrix(truth, answers, labels=LABELS).tolist()
    expected = oracle.f1_score(truth, answers, labels=present, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(expected)
    assert found["micro_f1"] == pytest.approx(oracle.f1_score(truth, answers, average="micro", zero_division=0))
    nan = {"labels": LABELS, "average": None, "zero_division": np.nan}
    for name in ("precision", "recall", "f1"):
        for label, value in zip(LABELS, getattr(oracle, f"{name}_score")(truth, answers, **nan), strict=True):
            mine = found["per_class"][label][name]
            assert mine is None if np.isnan(value) else mine == pytest.approx(value)


def slow_ece(truth: list[str], probs: np.ndarray) -> float:
    """As Guo et al. 2017 write it: equation 3, 15 bins (a, b] of equal width."""
    total = 0.0
    for b in range(15):
        mine = [i for i, p in enumerate(probs) if b / 15 < p.max() <= (b + 1) / 15]
        if mine:
            right = sum(LABELS[int(probs[i].argmax())] == truth[i] for i in mine) / len(mine)
            total += len(mine) / len(probs) * abs(right - sum(probs[i].max() for i in mine) / len(mine))
    return total


@given(st.integers(0, 10**6), st.integers(1, 80), st.sampled_from([0.5, 1.0, 3.0]))
@settings(deadline=None)
def test_ece_is_the_slow_one(seed: int, n: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    logits, truth = rng.normal(size=(n, 3)) * 4, [LABELS[k] for k in rng.integers(0, 3, n)]
    found = TASK.metrics(truth, logits, {"temperature": temperature})
    assert found["ece"] == pytest.approx(slow_ece(truth, softmax(logits, temperature)))
    assert sum(b["n"] for b in found["reliability"]) == n


def test_sure_and_right_is_calibrated() -> None:
    found = TASK.metrics(["no", "yes"], np.array([[100.0, 0, 0], [0, 0, 100]]))
    assert found["ece"] == pytest.approx(0)
    assert found["reliability"] == [{"n": 2, "confidence": 1.0, "accuracy": 1.0}]


def test_what_cannot_be_had_is_none() -> None:
    found = TASK.metrics(["no", "no"], logits_of([0, 1]))
    nothing = {"n": 0, "n_answered": 0, "n_right": 0, "precision": None, "recall": None, "f1": None}
    assert found["per_class"]["yes"] == nothing
    assert found["per_class"]["maybe"] == nothing | {"n_answered": 1, "precision": 0.0, "f1": 0.0}
    none = TASK.metrics([], np.empty((0, 3)))
    assert {none[k] for k in ("accuracy", "macro_f1", "micro_f1", "ece")} == {None}


def test_temperature_changes_confidence_and_no_answer() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 3))
    cold, warm = TASK.decode(logits, {"temperature": 0.5}), TASK.decode(logits, {"temperature": 5})
    assert [a["label"] for a in cold] == [a["label"] for a in warm]
    assert all(a["confidence"] > b["confidence"] for a, b in zip(cold, warm, strict=True))
    assert all(sum(a["scores"].values()) == pytest.approx(1, abs=1e-5) for a in cold)


def test_huge_logits_are_no_overflow() -> None:
    assert softmax(np.array([[1e4, -1e4, 0]], np.float32)).tolist() == [[1, 0, 0]]


def test_labels_combine_by_majority_and_ties_fall_to_the_first() -> None:
    assert TASK.combine(["yes", "no", "yes"]) == "yes"
    assert TASK.combine(["yes", "maybe"]) == "maybe"
    assert TASK.combine(["yes", "no", "maybe"]) == "no"


def test_unknown_labels_name_the_nearest() -> None:
    with pytest.raises(BadInput, match=r"unknown label: Maybe.*Did you mean 'maybe'"):
        TASK.parse_label("Maybe")
    with pytest.raises(BadConfig, match="two or more different labels"):
        TextClassification(TaskTable(labels=("a", "a")))


def test_paths_are_counted_level_by_level() -> None:
    labels = ("card/lost", "card/stolen/abroad", "loan", "loan/rate")
    task = TextClassification(TaskTable(labels=labels))
    truth = ["card/lost", "card/stolen/abroad", "loan", "loan/rate", "loan"]
    answers = ["card/stolen/abroad", "card/stolen/abroad", "loan/rate", "loan/rate", "card/lost"]
    found = task.metrics(truth, np.eye(4)[[labels.index(answer) for answer in answers]])
    parts = [[path.split("/") for path in side] for side in (truth, answers)]
    for level, line in enumerate(found["by_level"], 1):
        right = [a[:level] == b[:level] for a, b in zip(*parts, strict=True)]
        assert line["accuracy"] == pytest.approx(sum(right) / 5)
    assert [line["n_classes"] for line in found["by_level"]] == [2, 4, 4]
    assert [line["accuracy"] for line in found["by_level"]] == pytest.approx([0.8, 0.4, 0.4])
    assert found["by_level"][-1]["accuracy"] == found["accuracy"]
    assert task.metrics([], np.empty((0, 4)))["by_level"][0]["accuracy"] is None
    assert "by_level" not in TASK.metrics(["no"], logits_of([0]))


def test_the_temperature_is_fitted_on_rows_and_needs_some() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 3)) * 6
    truth = [LABELS[k] for k in (softmax(logits / 3).cumsum(axis=1) > rng.random((300, 1))).argmax(axis=1)]
    assert TASK.calibrate(truth, logits)["temperature"] == pytest.approx(3, rel=0.25)
    assert TASK.calibrate([], logits[:0]) == {}
