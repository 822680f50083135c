"""Ridge regression from sums. Catches: sums that do not add up to a fit on all rows, a penalty on the intercept, parts
drawn with rows of other parts' sizes, classes without rows."""

import numpy as np
from sklearn.linear_model import Ridge

from headrace.stats import ridge_probe


def rows(n: int, seed: int, k: int = 4, d: int = 12) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, k, n)
    x = rng.normal(size=(n, d)) + 2 * np.eye(k, d)[y] + 0.7  # not centred: the intercept matters
    return x.astype(np.float32), y


def test_answers_are_those_of_scikit_learn() -> None:
    (x, y), (new, _) = rows(200, 0), rows(300, 1)
    for penalty in (0.1, 1.0, 100.0):
        oracle = Ridge(alpha=penalty).fit(x.astype(float), np.eye(4)[y]).predict(new.astype(float)).argmax(axis=1)
        assert np.array_equal(ridge_probe.sums(x, y, 4).answers(new, penalty=penalty), oracle)


def test_sums_of_parts_are_those_of_the_whole() -> None:
    x, y = rows(100, 2)
    whole, first = ridge_probe.sums(x, y, 5), ridge_probe.sums(x[:30], y[:30], 5)
    for one in (first + ridge_probe.sums(x[30:], y[30:], 5), whole + first - first):
        assert np.allclose(one.squares, whole.squares)
        assert np.allclose(one.products, whole.products)
    assert not whole.products[:, 4].any()  # a class without rows
    assert whole.answers(x).max() < 4


def test_points_have_halves_and_all() -> None:
    (x, y), (new, truth) = rows(160, 3), rows(90, 4)
    others = ridge_probe.sums(*rows(500, 5), 4)
    alone = ridge_probe.points(x, y, new, truth, 4, seed=0, n_repeats=3)
    beside = ridge_probe.points(x, y, new, truth, 4, seed=0, n_repeats=3, others=others)
    assert sorted(alone.sizes.tolist()) == [10.0] * 3 + [20.0] * 3 + [40.0] * 3 + [80.0] * 3 + [160.0]
    assert alone.wrong.shape == (13, 90)
    assert np.array_equal(alone.wrong[0], ridge_probe.sums(x, y, 4).answers(new) != truth)
    errors = {n: alone.wrong[alone.sizes == n].mean() for n in (10, 160)}
    assert errors[160] < errors[10]
    assert beside.wrong[beside.sizes == 10].mean() < errors[10]
    assert ridge_probe.points(x[:30], y[:30], new, truth, 4, seed=0).sizes.min() >= ridge_probe.LEAST_ROWS
