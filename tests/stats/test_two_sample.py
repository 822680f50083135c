"""Two samples. Catches: a p-value of the wrong law, a test whose e-value is above 1 on average where nothing differs, a
difference that is missed, a classifier that is judged on the rows it learnt from."""

import numpy as np
import pytest
from scipy import stats

from headrace.stats import two_sample


@pytest.mark.parametrize(("n", "m", "shift"), [(50, 70, 0.0), (400, 300, 0.1), (1000, 150, 0.25), (200, 200, 1.0)])
def test_kolmogorov_smirnov_is_near_the_exact_law(n: int, m: int, shift: float) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=n), rng.normal(shift, size=m)
    expected = stats.ks_2samp(a, b, method="exact")
    distance, p = two_sample.kolmogorov_smirnov(a, b)
    assert distance == pytest.approx(expected.statistic)
    assert p == pytest.approx(expected.pvalue, rel=0.15, abs=0.02)


def test_nothing_is_like_nothing() -> None:
    assert two_sample.kolmogorov_smirnov(np.array([]), np.ones(3)) == (0.0, 1.0)
    assert two_sample.kolmogorov_smirnov(np.ones(30), np.ones(30)) == (0.0, 1.0)


def test_shifted_classes_are_named_and_rarely_by_chance() -> None:
    rng = np.random.default_rng(0)
    p_values = [
        two_sample.shifted_classes(rng.dirichlet(np.ones(5), 300), rng.dirichlet(np.ones(5), 100))[0]
        for _ in range(400)
    ]
    assert np.mean(np.array(p_values) <= 0.05) <= 0.05 + 5 * np.sqrt(0.05 * 0.95 / 400)
    p, found = two_sample.shifted_classes(rng.dirichlet(np.ones(5), 300), rng.dirichlet([1, 1, 4, 1, 1], 100))
    assert p < 1e-6
    assert found[0][0] == 2


def test_e_values_are_fair_and_tell_a_shift() -> None:
    rng = np.random.default_rng(1)
    values = [two_sample.log_e(rng.normal(size=(120, 8)), rng.normal(size=(60, 8)), seed=i) for i in range(400)]
    assert np.exp(values).mean() < 1.5
    assert (np.array(values) >= np.log(20)).mean() <= 0.05
    reference = rng.normal(size=(1000, 8))
    assert two_sample.log_e(reference, rng.normal(0.5, 1, size=(300, 8)), seed=0) > np.log(1e4)
    now = rng.normal(0.5, 1, size=(300, 8))
    assert two_sample.log_e(reference, now, seed=7) == two_sample.log_e(reference, now, seed=7)


def test_more_columns_than_rows_are_no_evidence() -> None:
    # A classifier tells its own rows apart perfectly; that must count for nothing.
    rng = np.random.default_rng(2)
    values = [two_sample.log_e(rng.normal(size=(60, 200)), rng.normal(size=(40, 200)), seed=i) for i in range(50)]
    assert max(values) < np.log(1000)
    assert np.median(values) < 0


def test_a_reference_smaller_than_the_block_is_refused() -> None:
    with pytest.raises(ValueError, match="30 rows of now"):
        two_sample.log_e(np.ones((20, 2)), np.ones((30, 2)), seed=0)
