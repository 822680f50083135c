"""Logistic regression against scikit-learn. Catches: another objective, a line search that stops short, a penalty on
the intercept, a row that is predicted by a model that saw it."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from headrace.stats import linear_probe


def rows(n: int, d: int, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)) + 0.5
    return x, (x @ rng.normal(size=(d, k)) + 2 * rng.gumbel(size=(n, k))).argmax(axis=1)


@pytest.mark.parametrize(("k", "penalty"), [(2, 1.0), (3, 0.1), (7, 10.0)])
def test_it_is_scikit_learns_optimum(k: int, penalty: float) -> None:
    x, y = rows(400, 12, k, seed=k)
    found = linear_probe.fit(x, y, k, penalty=penalty, tolerance=1e-8)
    if k == 2:  # whose two classes share one vector there: half the penalty
        oracle = LogisticRegression(C=2 / penalty, tol=1e-10, max_iter=5000).fit(x, y)
    else:
        oracle = LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=5000).fit(x, y)
    assert np.exp(linear_probe.log_probs(found, x)) == pytest.approx(oracle.predict_proba(x), abs=2e-4)


def test_a_weight_is_so_many_rows() -> None:
    x, y = rows(60, 4, 3, seed=1)
    counts = np.random.default_rng(2).integers(0, 4, 60)
    weighted = linear_probe.fit(x, y, 3, row_weights=counts.astype(float), tolerance=1e-8)
    repeated = linear_probe.fit(np.repeat(x, counts, axis=0), np.repeat(y, counts), 3, tolerance=1e-8)
    assert weighted == pytest.approx(repeated, abs=1e-4)


def test_the_start_does_not_decide_the_end() -> None:
    x, y = rows(300, 10, 3, seed=3)
    cold = linear_probe.fit(x, y, 3, tolerance=1e-7)
    warm = linear_probe.fit(x, y, 3, tolerance=1e-7, start=np.random.default_rng(4).normal(size=(11, 3)) * 5)
    assert np.exp(linear_probe.log_probs(warm, x)) == pytest.approx(np.exp(linear_probe.log_probs(cold, x)), abs=1e-4)


def test_separable_rows_and_a_class_without_rows_have_an_end() -> None:
    x = np.array([[1.0], [2.0], [-1.0], [-2.0]])
    found = np.exp(linear_probe.log_probs(linear_probe.fit(x, np.array([0, 0, 1, 1]), 3), x))
    assert found.argmax(axis=1).tolist() == [0, 0, 1, 1]
    assert (found[:, 2] < 0.05).all()


def test_out_of_fold_never_asks_a_model_that_saw_the_row() -> None:
    # Labels without any relation to the vectors: in the training rows they would be known by heart.
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(120, 100)), rng.integers(0, 2, 120)
    found = linear_probe.out_of_fold(x, y, 2, seed=0, penalty=1e-3)
    assert (found.argmax(axis=1) == y).mean() < 0.65
    twice = linear_probe.out_of_fold(np.tile(x, (2, 1)), np.tile(y, 2), 2, seed=0, penalty=1e-3)
    grouped = linear_probe.out_of_fold(
        np.tile(x, (2, 1)), np.tile(y, 2), 2, seed=0, penalty=1e-3, groups=np.tile(np.arange(120), 2)
    )
    assert (twice.argmax(axis=1) == np.tile(y, 2)).mean() > 0.75
    assert (grouped.argmax(axis=1) == np.tile(y, 2)).mean() < 0.65
    with pytest.raises(ValueError, match="3 rows or groups"):
        linear_probe.out_of_fold(x[:3], y[:3], 2, seed=0)
