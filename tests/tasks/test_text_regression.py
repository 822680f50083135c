"""Metrics of regression against scipy. Catches: ties ranked wrongly, a correlation of a constant that is a number, an
interval in another unit than its value, a standard deviation of 0."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headrace.config import TaskTable
from headrace.errors import BadInput
from headrace.tasks.text_regression import TextRegression, correlation, ranks

TASK = TextRegression(TaskTable(type="text-regression"))
NUMBERS = st.integers(-3, 3).map(lambda n: n / 2)  # many ties


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=40))
@settings(deadline=None)
def test_metrics_are_scipys(pairs: list[tuple[float, float]]) -> None:
    truth, guess = (np.array(side) for side in zip(*pairs, strict=True))
    found = TASK.metrics(truth.tolist(), guess[:, None])
    assert found["mae"] == pytest.approx(np.abs(truth - guess).mean())
    if len(set(truth)) == 1 or len(set(guess)) == 1:
        assert found["pearson"] is None
        assert found["spearman"] is None
        return
    assert found["pearson"] == pytest.approx(float(stats.pearsonr(truth, guess).statistic), abs=1e-12)
    assert found["spearman"] == pytest.approx(float(stats.spearmanr(truth, guess).statistic), abs=1e-12)


@given(st.lists(NUMBERS, min_size=1, max_size=40))
def test_ranks_are_scipys(values: list[float]) -> None:
    assert ranks(np.array(values)).tolist() == stats.rankdata(values).tolist()


@pytest.mark.parametrize("value", [0.1, 0.0, 1e9, -1 / 3])
def test_equal_numbers_have_no_correlation(value: float) -> None:
    # The mean of twenty times 0.1 is not 0.1: a careless check finds a spread of 1e-17 and a correlation.
    assert correlation(np.full(20, value), np.arange(20.0)) is None
    assert correlation(np.arange(20.0), np.full(20, value)) is None


def test_a_correlation_is_never_beyond_one() -> None:
    a = np.array([1e-9, 2e-9, 4e-9])
    assert correlation(a, a * 3) == pytest.approx(1)
    assert abs(correlation(a, -a) or 0) <= 1


def test_no_rows_have_no_figures() -> None:
    found = TASK.metrics([], np.empty((0, 1)))
    assert found == {"n": 0, "pearson": None, "spearman": None, "mae": None}


def test_numbers_parse_and_combine() -> None:
    assert TASK.parse_label(" 1.5 ") == 1.5
    assert TASK.combine([0.1] * 10) == pytest.approx(0.1, abs=0)
    with pytest.raises(BadInput, match="not a finite number"):
        TASK.parse_label("inf")
    with pytest.raises(BadInput, match="not a number: warm"):
        TASK.parse_label("warm")


def test_answers_have_intervals_once_calibrated() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=400) * 10
    outputs = (truth + rng.normal(size=400) * 2)[:, None].astype(np.float32)
    calibration = TASK.calibrate(truth[:200].tolist(), outputs[:200])
    assert calibration["half_width"] == pytest.approx(2 * stats.norm.ppf(0.95), rel=0.2)
    (answer,) = TASK.decode(outputs[:1], calibration)
    assert answer["high"] - answer["low"] == pytest.approx(2 * calibration["half_width"], abs=1e-5)
    assert (answer["low"] + answer["high"]) / 2 == pytest.approx(answer["value"], abs=1e-5)
    assert answer["level"] == 0.9
    measured = TASK.metrics(truth[200:].tolist(), outputs[200:], calibration)
    assert measured["coverage"] == pytest.approx(0.9, abs=0.07)
    assert TASK.decode(outputs[:1]) == [{"value": answer["value"]}]


def test_too_few_rows_give_no_interval() -> None:
    assert TASK.calibrate([0.0] * 8, np.zeros((8, 1))) == {}
    assert TASK.calibrate([0.0] * 9, np.ones((9, 1)))["half_width"] == 1


def test_the_scale_is_that_of_the_targets() -> None:
    assert TASK.scale([2.0, 4.0]) == (3.0, 1.0)
    assert TASK.scale([1000.0, 3000.0]) == (2000.0, 1000.0)
    assert TASK.scale([0.1] * 30) == (pytest.approx(0.1), 1.0)
    assert TASK.scale([]) == (0.0, 1.0)


@pytest.mark.parametrize("raw", [10**400, -(10**400), 1e39, "1_000", True, "inf", None, [1]])
def test_what_no_model_can_hold_is_no_label(raw: object) -> None:
    with pytest.raises(BadInput):
        TextRegression(TaskTable()).parse_label(raw)


@pytest.mark.parametrize(
    ("offset", "spread", "is_told_apart"),
    [(0, 1, True), (2e3, 1, True), (1e6, 1, True), (1e7, 1, False), (1.7e9, 1, False), (1.7e9, 1e4, True),
     (1e30, 1e29, True), (0, 1e-30, True), (1e9, 0, True)],
)  # fmt: skip
def test_numbers_that_a_float32_cannot_tell_apart_are_refused(
    offset: float, spread: float, is_told_apart: bool
) -> None:
    """Catches: a model that gives one answer for all and says nothing."""
    targets = [offset + spread * (i % 3) for i in range(30)]
    if is_told_apart:
        TASK.check_spread(targets)
        found = np.asarray(targets, dtype=np.float32).astype(float)
        if spread:
            assert stats.pearsonr(found, targets).statistic > 0.999
        return
    with pytest.raises(BadInput, match=r"in steps of.*Subtract 1"):
        TASK.check_spread(targets)


@pytest.mark.parametrize(("unit", "tolerance"), [(1.0, 0.5), (1e-7, 2e-8), (1e5, 2e4)])
def test_what_agrees_is_said_in_the_unit_of_the_labels(unit: float, tolerance: float) -> None:
    task_type = TextRegression(TaskTable(type="text-regression", tolerance=tolerance))
    (answer,) = task_type.decode(np.array([[3 * unit]], np.float32))
    assert answer["value"] == pytest.approx(3 * unit, rel=1e-6)
    assert task_type.answers_match(answer, 3 * unit + 0.9 * tolerance)
    assert not task_type.answers_match(answer, 3 * unit - 1.1 * tolerance)
