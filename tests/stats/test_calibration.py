"""What is fitted on validation rows. Catches: a wrong optimum, a temperature that runs away on rows that are all right,
a threshold off by one row or far from .5 for nothing, an interval that holds too few truths or says so without rows."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from headrace.stats.calibration import (
    HIGHEST,
    LOWEST,
    conformal_half_width,
    fit_temperature,
    fit_thresholds,
)


def drawn(temperature: float, n: int = 4000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose answers are right as often as softmax(logits / temperature) says."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, 3)) * 3
    probs = np.exp(log_softmax(logits / temperature, axis=1))
    truth = (probs.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return logits.astype(np.float32), truth


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_it_finds_the_temperature_that_made_the_rows(temperature: float) -> None:
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_scipys_optimum(seed: int) -> None:
    logits, truth = drawn(1.7, n=100, seed=seed)

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        return float(-log_softmax(scaled, axis=1)[np.arange(len(truth)), truth].mean())

    best = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": 1e-10})
    assert fit_temperature(logits, truth) == pytest.approx(np.exp(best.x), rel=1e-4)


def test_rows_that_are_all_right_or_all_wrong_stop_at_the_bounds() -> None:
    logits = np.eye(3, dtype=np.float32) * 5
    assert fit_temperature(logits, np.arange(3)) == pytest.approx(LOWEST, rel=0.05)
    assert fit_temperature(logits, (np.arange(3) + 1) % 3) == pytest.approx(HIGHEST, rel=1e-6)


def test_without_rows_nothing_is_changed() -> None:
    assert fit_temperature(np.empty((0, 3), np.float32), np.empty(0, np.int64)) == 1.0


def test_thresholds_by_hand() -> None:
    probs = np.array([[0.9, 0.9, 0.2, 0.1], [0.6, 0.4, 0.1, 0.6], [0.3, 0.2, 0.7, 0.7]])
    truth = np.array([[1, 1, 0, 0], [1, 1, 0, 1], [0, 0, 0, 1]])
    # .5 serves where nothing is better, halfway between rows elsewhere, and .5 again for a label without a row
    assert fit_thresholds(probs, truth) == [0.5, pytest.approx(0.3), 0.5, 0.5]
    assert fit_thresholds(probs[:, :1], np.array([[1], [0], [0]])) == [pytest.approx(0.75)]
    assert fit_thresholds(np.array([[0.2], [0.1]]), np.array([[1], [1]])) == [pytest.approx(0.05)]
    assert fit_thresholds(np.empty((0, 2)), np.empty((0, 2))) == [0.5, 0.5]


ROWS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.7, 0.99, 1.0]), st.booleans()), min_size=1, max_size=20
)


@given(ROWS)
@settings(deadline=None)
def test_no_threshold_has_a_better_f1(rows: list[tuple[float, bool]]) -> None:
    probs, truth = (np.array(side) for side in zip(*rows, strict=True))
    (found,) = fit_thresholds(probs[:, None], truth[:, None])

    def score(threshold: float) -> float:
        answered = probs >= threshold
        return float(2 * (truth & answered).sum() / max(1, truth.sum() + answered.sum()))

    tried = [*np.linspace(0, 1, 101), *probs]
    assert 0 <= found <= 1
    assert score(found) == pytest.approx(max(map(score, tried)))
    if score(0.5) == pytest.approx(score(found)):
        assert found == 0.5


def test_neighbouring_floats_are_kept_apart() -> None:
    low = 0.3
    high = math.nextafter(low, 1)
    (found,) = fit_thresholds(np.array([[low], [high]]), np.array([[0], [1]]))
    assert low < found <= high


def test_half_width_by_hand() -> None:
    residuals = np.array([3.0, -1, 2, -9, 4, -5, 6, 7, -8])
    assert conformal_half_width(residuals, 0.9) == 9  # ceil(10 * .9) is the ninth of nine
    assert conformal_half_width(residuals, 0.5) == 5
    assert conformal_half_width(residuals[:8], 0.9) is None
    assert conformal_half_width(np.empty(0), 0.9) is None
    assert conformal_half_width(np.arange(29.0), 0.9) == 26  # 30 * .9 is 27.000000000000004 for floats


@pytest.mark.parametrize(("n", "level"), [(9, 0.9), (20, 0.9), (50, 0.8), (200, 0.9)])
def test_intervals_hold_what_they_say(n: int, level: float) -> None:
    rng = np.random.default_rng(n)
    widths = [conformal_half_width(rng.standard_t(3, n), level) for _ in range(2000)]
    held = np.mean([abs(rng.standard_t(3)) <= width for width in widths if width is not None])
    expected = math.ceil((n + 1) * level - 1e-9) / (
        n + 1
    )  # exact for continuous residuals: Lei et al. 2018, theorem 2.1
    assert held == pytest.approx(expected, abs=3.5 * math.sqrt(expected * (1 - expected) / 2000))
