"""Units per arm against the planned shares. Catches: a wrong constant, shares that are taken for counts, an arm that
gets units it has no share for, alarms of healthy traffic."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad

from headrace.stats.sample_ratio import CONCENTRATION, log_e, log_es

EVEN = {"control": 0.5, "candidate": 0.5}
FIRES = math.log(1000)


@pytest.mark.parametrize(("n", "others", "share"), [(0, 0, 0.5), (60, 40, 0.5), (3, 300, 0.01), (502, 498, 0.5)])
def test_equals_the_integral_that_defines_it(n: int, others: int, share: float) -> None:
    def ratio(p: float) -> float:
        density = stats.beta.pdf(p, CONCENTRATION * share, CONCENTRATION * (1 - share))
        return float(density) * math.exp(n * math.log(p / share) + others * math.log((1 - p) / (1 - share)))

    points = [share, n / (n + others)] if n + others else [share]
    integral, _ = quad(ratio, 0, 1, points=points, epsrel=1e-11, limit=500)
    found = log_e({"a": n, "b": others}, {"a": share, "b": 1 - share})
    assert found == pytest.approx(math.log(integral), abs=1e-8)


def test_equals_scipys_dirichlet_multinomial() -> None:
    # Probability of the counts under the mixture over that under the plan.
    counts, shares = [510, 300, 190], np.array([0.5, 0.3, 0.2])
    mixed = stats.dirichlet_multinomial(CONCENTRATION * shares, sum(counts)).logpmf(counts)
    planned = stats.multinomial(sum(counts), shares).logpmf(counts)
    assert float(log_es(counts, shares)) == pytest.approx(mixed - planned, abs=1e-8)
    assert log_e(dict(zip("abc", counts, strict=True)), {"a": 5, "b": 3, "c": 2}) == pytest.approx(mixed - planned)


def test_agrees_with_a_chi_square_on_the_textbook_cases() -> None:
    # The p-values are scipy's own: what a chi-square calls nothing or certain, this does too.
    for counts, p in (([502, 498], 0.8993431885613663), ([600, 400], 2.5396e-10), ([9463, 7681], 3.502e-42)):
        assert stats.chisquare(counts).pvalue == pytest.approx(p, rel=0.001)
        assert (float(log_es(counts, [1, 1])) >= FIRES) == (p < 1e-6)


@given(st.lists(st.integers(0, 5000), min_size=3, max_size=3))
def test_is_a_fair_bet_when_the_shares_are_as_planned(counts: list[int]) -> None:
    shares = np.array([0.9, 0.07, 0.03])
    after = np.exp(log_es(np.eye(3) + counts, shares) - log_es(counts, shares))
    assert float(shares @ after) == pytest.approx(1, rel=1e-8)


@given(st.lists(st.integers(0, 9000), min_size=2, max_size=2), st.floats(0.1, 100))
def test_shares_are_weights_in_any_unit(counts: list[int], unit: float) -> None:
    assert float(log_es(counts, [unit, 3 * unit])) == pytest.approx(float(log_es(counts, [0.25, 0.75])), abs=1e-8)


def test_an_arm_without_a_share_that_has_units_is_certain_evidence() -> None:
    weights = {"control": 1.0, "candidate": 0.0}
    assert log_e({"control": 10, "candidate": 1}, weights) == math.inf
    assert log_e({"control": 10}, weights) == 0


@pytest.mark.parametrize(
    ("counts", "shares"), [({"a": -1}, {"a": 1}), ({"b": 1}, {"a": 1}), ({}, {"a": 0.0}), ({}, {})]
)
def test_what_cannot_be_is_refused(counts: dict[str, int], shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="arms"):
        log_e(counts, shares)


def test_healthy_traffic_raises_no_alarm_and_lost_units_do() -> None:
    # A look after every 10th unit. Of 2,000 healthy runs .001 is promised; at most 12 may fire (p < 1e-6).
    rng = np.random.default_rng(12)

    def fired(share: float, n_runs: int) -> np.ndarray:
        first = (rng.random((n_runs, 6000), dtype=np.float32) < share).cumsum(axis=1, dtype=np.int32)[:, 9::10]
        counts = np.stack([first, np.arange(10, 6001, 10) - first], axis=-1)
        return np.asarray(log_es(counts, [1, 1]) >= FIRES)

    assert int(fired(0.5, 500).any(axis=1).sum()) <= 12
    lost = fired(0.55, 300)
    assert float(np.quantile(np.where(lost.any(axis=1), lost.argmax(axis=1) * 10 + 10, np.inf), 0.95)) <= 3500
