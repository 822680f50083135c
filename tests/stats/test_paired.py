"""Paired tests. Catches: the other tail taken, ties counted, a p-value that drops below what was drawn, a level that
many channels break, adjusted p-values out of order."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headrace.stats import paired

COUNTS = st.integers(0, 200)
SIZES = st.lists(st.floats(-3, 3, allow_subnormal=False), max_size=9)


@given(COUNTS, COUNTS)
def test_mcnemar_is_the_binomial_test_of_the_differing_rows(n_won: int, n_lost: int) -> None:
    n = n_won + n_lost
    expected = stats.binomtest(n_won, n, alternative="greater").pvalue if n else 1.0
    assert paired.mcnemar(n_won, n_lost) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_of_many_rows_is_a_number() -> None:
    assert paired.mcnemar(5000, 5000) == pytest.approx(0.504, abs=1e-3)
    assert paired.mcnemar(9000, 1000) == 0.0 or paired.mcnemar(9000, 1000) < 1e-300


@given(SIZES)
def test_few_sign_flips_are_all_tried(sizes: list[float]) -> None:
    differing = [size for size in sizes if size]
    seen = sum(differing)
    sums = [sum(s * abs(d) for s, d in zip(signs, differing, strict=True))
            for signs in itertools.product((1, -1), repeat=len(differing))]  # fmt: skip
    expected = np.mean([total >= seen - 1e-9 * sum(map(abs, differing)) for total in sums])
    assert paired.sign_flips(np.array(sizes)) == pytest.approx(float(expected))


@given(st.integers(0, 14), st.integers(0, 14))
def test_sign_flips_of_rights_and_wrongs_is_mcnemar(n_won: int, n_lost: int) -> None:
    differences = np.array([1.0] * n_won + [-1.0] * n_lost + [0.0] * 5)
    tolerance = 0.0 if n_won + n_lost <= 14 else 0.6  # of 30 draws
    p = paired.mcnemar(n_won, n_lost)
    assert paired.sign_flips(differences) == pytest.approx(p, rel=max(tolerance, 1e-9), abs=2e-5)


def test_drawn_sign_flips_agree_with_scipy() -> None:
    rng = np.random.default_rng(3)
    for shift in (0.0, 0.1, 0.25, 0.5):
        differences = rng.normal(shift, 1, size=60)
        expected = stats.permutation_test(
            (differences,), np.sum, permutation_type="samples", alternative="greater", n_resamples=99_999, rng=1
        ).pvalue
        found = paired.sign_flips(differences, seed=1)
        assert found == pytest.approx(expected, rel=0.6, abs=3e-5)
        assert paired.sign_flips(differences, seed=1) == found


@pytest.mark.parametrize("n_rows", [6, 40])
def test_a_p_value_below_alpha_is_as_rare_as_it_says(n_rows: int) -> None:
    rng = np.random.default_rng(7)
    found = np.array([paired.sign_flips(rng.standard_t(3, size=n_rows), seed=i) for i in range(600)])
    for alpha in (0.05, 0.2):
        assert (found <= alpha).mean() <= alpha + 3 * np.sqrt(alpha / 600)
        assert (found <= alpha).mean() >= alpha / 2 - 0.02  # and it is no test that never comes out


@given(st.integers(1, 3000), st.sampled_from([0.01, 0.05, 0.2, 1.0]))
def test_rows_needed_are_the_fewest_that_can_tell(n_tests: int, alpha: float) -> None:
    n = paired.n_needed(n_tests, alpha=alpha)
    assert min(1.0, paired.mcnemar(n, 0) * n_tests) <= alpha * (1 + 1e-9)
    assert n == 1 or paired.mcnemar(n - 1, 0) * n_tests > alpha * (1 - 1e-9)


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 40), max_size=40))
def test_what_is_tested_can_come_out_and_what_is_left_out_could_not(n_differing: dict[str, int]) -> None:
    tested = paired.worth_testing(n_differing, alpha=0.05)
    need = paired.n_needed(len(tested), alpha=0.05)
    assert all(n_differing[name] >= need for name in tested)
    left_out = [n for name, n in n_differing.items() if name not in tested]
    for n in left_out:  # not even if it were tested with none but those that differ as often or more
        n_as_good = sum(other >= n for other in n_differing.values())
        assert n < paired.n_needed(n_as_good, alpha=0.05)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), max_size=12))
def test_holm_is_bonferroni_of_the_smallest_and_keeps_the_order(p_values: dict[str, float]) -> None:
    adjusted = paired.holm(p_values)
    assert adjusted.keys() == p_values.keys()
    for a, b in itertools.combinations(p_values, 2):
        assert (adjusted[a] <= adjusted[b]) or p_values[a] > p_values[b]
    assert all(p <= adjusted[name] <= min(1.0, p * len(p_values)) + 1e-12 for name, p in p_values.items())
    if p_values:
        assert min(adjusted.values()) == pytest.approx(min(1.0, min(p_values.values()) * len(p_values)))


def test_holm_by_hand() -> None:
    assert paired.holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"b": 0.03, "c": 0.06, "a": 0.06})


@pytest.mark.parametrize("scores", ["right or wrong", "sizes"])
def test_200_channels_without_an_effect_rarely_keep_one(scores: str) -> None:
    """Family-wise: of 400 worlds with 200 channels of 5 to 200 rows each, 5 % may keep any (99.9 % bound: 8.6 %)."""
    rng = np.random.default_rng(11)
    n_worlds = 400 if scores == "right or wrong" else 40
    n_bad = 0
    for _ in range(n_worlds):
        sizes = rng.integers(1, 30, size=200)  # differing rows
        n_differing = {str(i): int(n) for i, n in enumerate(sizes)}
        tested = paired.worth_testing(n_differing, alpha=0.05)
        if scores == "right or wrong":
            won = {name: int(rng.binomial(n_differing[name], 0.5)) for name in tested}
            p_values = {name: paired.mcnemar(won[name], n_differing[name] - won[name]) for name in tested}
        else:
            p_values = {name: paired.sign_flips(rng.normal(size=n_differing[name]), seed=5) for name in tested}
        n_bad += min(paired.holm(p_values).values(), default=1.0) <= 0.05
    allowed = stats.binom.ppf(0.999, n_worlds, 0.05)
    assert n_bad <= allowed


@settings(max_examples=25, deadline=None)
@given(st.integers(15, 60))
def test_drawn_p_values_are_never_zero(n_rows: int) -> None:
    assert paired.sign_flips(np.ones(n_rows)) >= 1e-5
