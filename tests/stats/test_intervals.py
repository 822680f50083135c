"""Intervals against scipy, exact values and simulated truth. Catches: a wrong formula, an interval that does not hold
its own estimate, one that is narrow on few rows, one that covers less often than it says."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headrace.records import Interval
from headrace.stats import intervals
from headrace.tasks.text_classification import macro_f1

COUNTS = st.lists(st.lists(st.integers(0, 40), min_size=3, max_size=3), min_size=3, max_size=3).map(np.array)


@pytest.mark.parametrize(
    ("n_hits", "n"), [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (81, 263), (15, 148), (999, 1000)]
)
def test_wilson_is_scipys(n_hits: int, n: int) -> None:
    expected = stats.binomtest(n_hits, n).proportion_ci(method="wilson")
    found = intervals.wilson(n_hits, n)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.estimate == n_hits / n


def test_wilson_has_the_published_values() -> None:
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3
    found = [intervals.wilson(*case) for case in ((81, 263), (15, 148), (0, 20), (1, 29))]
    ends = [(round(i.low, 4), round(i.high, 4)) for i in found if i]
    assert ends == [(0.2553, 0.3662), (0.0624, 0.1605), (0.0, 0.1611), (0.0061, 0.1718)]


def test_without_rows_there_is_no_interval() -> None:
    assert intervals.wilson(0, 0) is None
    assert intervals.f1(0, 0, 0) is None
    assert intervals.of_confusion(np.zeros((3, 3), int), macro_f1, seed=0) is None
    assert intervals.bootstrap(intervals.mean(np.empty(0)), np.ones(0), seed=0) is None


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_f1_holds_its_estimate(hits: int, missed: int, wrong: int) -> None:
    found = intervals.f1(hits, hits + missed, hits + wrong)
    if hits + missed + wrong == 0:
        assert found is None
        return
    assert found is not None
    assert found.estimate == pytest.approx(2 * hits / (2 * hits + missed + wrong))
    assert 0 <= found.low <= found.estimate <= found.high <= 1


@given(COUNTS)
@settings(max_examples=30, deadline=None)
def test_macro_f1_holds_its_estimate_and_repeats(confusion: np.ndarray) -> None:
    found = intervals.of_confusion(confusion, macro_f1, seed=1)
    if confusion.sum() == 0:
        assert found is None
        return
    assert found is not None
    assert found.estimate == pytest.approx(float(macro_f1(confusion)))
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    assert found == intervals.of_confusion(confusion, macro_f1, seed=1)


def test_a_few_right_rows_are_no_certainty() -> None:
    # The plain bootstrap would say [1, 1] of two rows.
    few, many = (intervals.of_confusion(np.eye(3, dtype=int) * n, macro_f1, seed=0) for n in (1, 1000))
    assert few is not None
    assert many is not None
    assert few.low < 0.5
    assert many.low > 0.99


TRUE = np.array([[0.24, 0.04, 0.02], [0.05, 0.15, 0.05], [0.02, 0.05, 0.38]])
NEARLY_PERFECT = np.array([[0.32, 0.01, 0.005], [0.01, 0.31, 0.01], [0.005, 0.01, 0.325]])  # redraws alone: .64
SIX_CLASSES = (np.eye(6) * 0.65 + 0.06) / (0.65 + 6 * 0.06) / 6  # the posterior alone: .46


@pytest.mark.parametrize("n", [20, 40, 150, 600])
@pytest.mark.parametrize("shares", [TRUE, NEARLY_PERFECT, SIX_CLASSES], ids=["usual", "nearly perfect", "six classes"])
def test_macro_f1_covers_the_truth_as_often_as_it_says(n: int, shares: np.ndarray) -> None:
    rng, truth = np.random.default_rng(n), float(macro_f1(shares))
    draws = rng.multinomial(n, shares.ravel() / shares.sum(), size=300).reshape(-1, *shares.shape)
    found = [intervals.of_confusion(draw, macro_f1, seed=i) for i, draw in enumerate(draws)]
    assert np.mean([i.low <= truth <= i.high for i in found if i]) >= 0.91  # 0.95 less 3 standard errors of 300 draws


def test_the_interval_of_macro_f1_is_not_wide_for_nothing() -> None:
    found = intervals.of_confusion(np.round(TRUE * 600).astype(int), macro_f1, seed=0)
    assert found is not None
    assert found.high - found.low < 0.09  # the bootstrap's is .07


def test_f1_of_a_class_covers_the_truth_as_often_as_it_says() -> None:
    rng, truth = np.random.default_rng(0), 2 * 0.15 / (0.25 + 0.24)
    draws = rng.multinomial(120, TRUE.ravel(), size=1000).reshape(-1, 3, 3)
    found = [intervals.f1(d[1, 1], d[1].sum(), d[:, 1].sum()) for d in draws]
    assert 0.93 <= np.mean([i.low <= truth <= i.high for i in found if i]) <= 0.98


@pytest.mark.parametrize("seed", range(3))
def test_correlations_are_scipys_and_the_interval_is_near_fishers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=400)
    b = np.round(a + rng.normal(size=400), 1)  # ties
    for statistic, oracle in ((intervals.pearson, stats.pearsonr), (intervals.spearman, stats.spearmanr)):
        found = intervals.bootstrap(statistic(a, b), np.ones(400), seed=seed)
        assert found is not None
        assert found.estimate == pytest.approx(float(oracle(a, b).statistic), abs=1e-12)
    found = intervals.bootstrap(intervals.pearson(a, b), np.ones(400), seed=seed)
    assert found is not None
    fisher = stats.pearsonr(a, b).confidence_interval()
    assert (found.low, found.high) == pytest.approx((fisher.low, fisher.high), abs=0.02)


def test_redrawn_ranks_are_ranks_of_the_redrawn_rows() -> None:
    # Spearman on weights must equal scipy's on the rows written out, ties and all.
    rng = np.random.default_rng(4)
    a, b = rng.integers(0, 9, 30), rng.integers(0, 9, 30)
    for _ in range(20):
        weights = rng.multinomial(30, np.full(30, 1 / 30))
        rows = np.repeat(np.arange(30), weights)
        found = float(intervals.spearman(a, b)(weights[None].astype(float))[0])
        assert found == pytest.approx(float(stats.spearmanr(a[rows], b[rows]).statistic), abs=1e-12)


def test_the_bootstrap_of_a_mean_is_near_students() -> None:
    values = np.random.default_rng(5).exponential(size=300)
    found = intervals.bootstrap(intervals.mean(values), np.ones(300), seed=0)
    assert found is not None
    student = stats.t.interval(0.95, 299, values.mean(), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(student, abs=0.03)


@pytest.mark.parametrize("side", [np.full(20, 0.1), np.full(20, 1e9), np.zeros(20)])
def test_a_constant_has_no_correlation(side: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for statistic in (intervals.pearson, intervals.spearman):
            assert intervals.bootstrap(statistic(side, np.arange(20.0)), np.ones(20), seed=0) is None
            assert intervals.bootstrap(statistic(np.arange(20.0), side), np.ones(20), seed=0) is None


def test_one_row_has_no_correlation() -> None:
    assert intervals.bootstrap(intervals.pearson(np.ones(1), np.ones(1)), np.ones(1), seed=0) is None


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(6).normal(size=50)
    whole = intervals.bootstrap(intervals.mean(values), np.ones(50), seed=2)
    monkeypatch.setattr(intervals, "_BLOCK_CELLS", 50 * 7)
    in_blocks = intervals.bootstrap(intervals.mean(values), np.ones(50), seed=2)
    assert isinstance(whole, Interval)
    assert whole == in_blocks
