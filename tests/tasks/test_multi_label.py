"""Multi-label against scikit-learn. Catches: a label counted in another's column, an average over the wrong labels,
thresholds that are fitted and not used, an empty list taken for a missing label."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn import metrics as oracle

from headrace.config import TaskTable
from headrace.errors import BadConfig, BadInput
from headrace.tasks.multi_label import MultiLabel, sigmoid

LABELS = ("late", "rude", "broken")
TASK = MultiLabel(TaskTable(type="multi-label", labels=LABELS))
FLAGS = st.tuples(st.booleans(), st.booleans(), st.booleans())


def named(flags: tuple[bool, ...]) -> list[str]:
    return [label for label, yes in zip(LABELS, flags, strict=True) if yes]


@given(st.lists(st.tuples(FLAGS, FLAGS), min_size=1, max_size=40))
@settings(deadline=None)
def test_metrics_are_sklearns(rows: list[tuple[tuple[bool, ...], tuple[bool, ...]]]) -> None:
    truth, answers = (np.array(side, int) for side in zip(*rows, strict=True))
    found = TASK.metrics([named(t) for t, _ in rows], answers * 4.0 - 2)
    present = np.flatnonzero(truth.any(axis=0))
    assert found["n"] == len(rows)
    assert found["subset_accuracy"] == pytest.approx(oracle.accuracy_score(truth, answers))
    if len(present):
        macro = oracle.f1_score(truth, answers, labels=present, average="macro", zero_division=0)
        assert found["macro_f1"] == pytest.approx(macro)
    else:
        assert found["macro_f1"] is None
    if truth.any() or answers.any():
        assert found["micro_f1"] == pytest.approx(oracle.f1_score(truth, answers, average="micro", zero_division=0))
    for name in ("precision", "recall", "f1"):
        values = getattr(oracle, f"{name}_score")(truth, answers, average=None, zero_division=np.nan)
        for label, value in zip(LABELS, values, strict=True):
            mine = found["per_class"][label][name]
            assert mine is None if np.isnan(value) else mine == pytest.approx(value)


@pytest.mark.parametrize(
    ("raw", "target"),
    [
        (["broken", "late", "broken"], ["late", "broken"]),
        ('["rude", "late"]', ["late", "rude"]),
        ("broken | rude", ["rude", "broken"]),
        (" rude ", ["rude"]),
        ([], []),
        ("[]", []),
        (("rude",), ["rude"]),
    ],
)
def test_labels_as_written(raw: object, target: list[str]) -> None:
    assert TASK.parse_label(raw) == target


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("", r"not a list of labels.*\[\] for none"),
        ("lat|rude", "unknown label: lat.*'late'"),
        ('["late"', "not a JSON list"),
        ("[1" * 10_000, "not a JSON list"),
        ("late|", "unknown label"),
        (3, "not a list"),
    ],
)
def test_bad_labels_are_refused_with_the_reason(raw: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        TASK.parse_label(raw)


def test_a_name_with_a_bar_is_that_name() -> None:
    task = MultiLabel(TaskTable(type="multi-label", labels=("a|b", "a", "b")))
    assert task.parse_label("a|b") == ["a|b"]
    assert task.parse_label("b|a") == ["a", "b"]
    with pytest.raises(BadConfig, match="one or more different labels"):
        MultiLabel(TaskTable(type="multi-label"))


def test_a_label_needs_more_than_half_of_the_labellers() -> None:
    assert TASK.combine([["late", "rude"], ["late"], ["broken", "rude"]]) == ["late", "rude"]
    assert TASK.combine([["late"], []]) == []


def test_fitted_thresholds_decide_answers_and_figures() -> None:
    rng = np.random.default_rng(0)
    flags = rng.random((300, 3)) < 0.3
    outputs = (np.where(flags, 1.0, -1.0) + rng.normal(size=(300, 3)) - 3).astype(np.float32)  # far too shy
    truth = [named(row) for row in flags]
    calibration = TASK.calibrate(truth, outputs)
    assert max(calibration["thresholds"]) < 0.2
    plain, fitted = TASK.metrics(truth, outputs), TASK.metrics(truth, outputs, calibration)
    assert fitted["macro_f1"] > plain["macro_f1"] + 0.3
    chosen = expit(outputs.astype(float)) >= calibration["thresholds"]
    assert [answer["labels"] for answer in TASK.decode(outputs, calibration)] == [named(row) for row in chosen]
    assert fitted["macro_f1"] == pytest.approx(oracle.f1_score(flags, chosen, average="macro"))


def test_huge_logits_are_no_overflow() -> None:
    assert sigmoid(np.array([1e4, -1e4, 0], np.float32)).tolist() == [1, 0, 0.5]
