"""The fitted temperature. Catches: a wrong optimum, a temperature that runs away on rows that are all right."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from headrace.stats.calibration import HIGHEST, LOWEST, fit_temperature


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
