"""Tests with a stated largest number of labels: published boundaries, all sequences one by one, and the level."""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from headrace.stats import fixed_horizon
from headrace.stats.paired import mcnemar

FIFTHS = [0.2, 0.4, 0.6, 0.8, 1.0]
OBRIEN_FLEMING = 2.040 * np.sqrt(5 / np.arange(1, 6))
"""Jennison and Turnbull 1999, table 2.3: C_B(5, .05)."""


@dataclass(frozen=True)
class Arm:
    n: int
    n_right: int


def test_boundaries_are_the_published_ones() -> None:
    # Lan-DeMets, O'Brien-Fleming spending, one-sided .025: as in Jennison and Turnbull, and every package since.
    found = fixed_horizon.z_boundaries(FIFTHS, alpha=0.025)
    assert found == pytest.approx([4.8769, 3.3570, 2.6803, 2.2898, 2.0310], abs=1e-4)
    assert fixed_horizon.z_boundaries([0.5, 1.0], alpha=0.025) == pytest.approx([2.9626, 1.9686], abs=1e-4)
    assert fixed_horizon.z_boundaries([1.0], alpha=0.05) == pytest.approx([norm.isf(0.05)], abs=1e-8)


def test_chances_to_cross_agree_with_published_constants() -> None:
    # Tables 2.1 and 2.3 of Jennison and Turnbull: constants that make five looks a test of level .05 (two-sided).
    assert fixed_horizon.crossing_chances(OBRIEN_FLEMING, FIFTHS).sum() == pytest.approx(0.025, abs=5e-5)
    assert fixed_horizon.crossing_chances([2.413] * 5, FIFTHS).sum() == pytest.approx(0.025, abs=5e-5)


@pytest.mark.parametrize(("power", "inflation"), [(0.8, 1.028), (0.9, 1.026)])
def test_power_agrees_with_published_sample_sizes(power: float, inflation: float) -> None:
    # Table 2.4: so many times the answers of one look give the five looks this power. Catches a wrong drift.
    drift = (norm.isf(0.025) + norm.isf(1 - power)) * math.sqrt(inflation)
    chances = fixed_horizon.crossing_chances(OBRIEN_FLEMING, FIFTHS, drift=drift)
    assert chances.sum() == pytest.approx(power, abs=5e-4)


def test_what_is_spent_is_what_the_boundaries_cost() -> None:
    fractions = [0.1, 0.35, 0.5, 0.9, 1.0]
    chances = fixed_horizon.crossing_chances(fixed_horizon.z_boundaries(fractions, alpha=0.05), fractions)
    assert chances.cumsum() == pytest.approx([fixed_horizon.spent(t, alpha=0.05) for t in fractions], abs=1e-6)
    assert fixed_horizon.spent(1.0, alpha=0.05) == pytest.approx(0.05)
    assert fixed_horizon.spent(0.0, alpha=0.05) == 0


@pytest.mark.parametrize("fractions", [[0.5, 0.5], [0.0, 1.0], [0.5, 1.1], [0.9, 0.3]])
def test_looks_have_to_come_in_order(fractions: list[float]) -> None:
    with pytest.raises(ValueError, match="rise"):
        fixed_horizon.z_boundaries(fractions, alpha=0.05)


@given(st.integers(1, 400), st.sampled_from([0.05, 0.01, 0.001]))
def test_one_look_is_mcnemars_exact_test(n: int, alpha: float) -> None:
    needed = fixed_horizon.paired(n, alpha=alpha).needed[0]
    assert needed == binom.isf(alpha, n, 0.5) + 1 or binom.sf(needed - 1, n, 0.5) == pytest.approx(alpha)
    if needed <= n:
        assert mcnemar(needed, n - needed) <= alpha + 1e-12
    assert mcnemar(min(needed, n + 1) - 1, n - needed + 1) > alpha


@pytest.mark.parametrize(("n_most", "n_looks"), [(12, 1), (12, 3), (12, 12), (13, 5)])
def test_every_sequence_of_fair_coins_keeps_the_level(n_most: int, n_looks: int) -> None:
    # All sequences, a call after each disagreement: exactly what `chances` says, and no more than alpha.
    design = fixed_horizon.paired(n_most, alpha=0.1, n_looks=n_looks)
    found = [design.first_finding(signs)[0] for signs in product([True, False], repeat=n_most)]
    assert found.count("benefit") == found.count("harm")
    assert found.count("benefit") / 2**n_most == pytest.approx(design.chances(0.5).sum())
    assert 0.04 < found.count("benefit") / 2**n_most <= 0.1


@given(st.integers(1, 300), st.integers(1, 20), st.floats(0.01, 0.99))
def test_chances_are_those_of_the_level_and_rise_with_the_lead(n_most: int, n_looks: int, p_win: float) -> None:
    design = fixed_horizon.paired(n_most, alpha=0.05, n_looks=min(n_looks, n_most))
    assert design.chances(0.5).sum() <= 0.05 + 1e-12
    assert design.chances(min(1.0, p_win + 0.01)).sum() >= design.chances(p_win).sum() - 1e-12


def test_five_looks_cost_little_power_and_save_labels() -> None:
    # 200 disagreements, 60 % won. Power within 2 points of one look's 86 %, with a sixth fewer disagreements at least.
    once = fixed_horizon.paired(200, alpha=0.05)
    often = fixed_horizon.paired(200, alpha=0.05, n_looks=5)
    power = often.chances(0.6).sum()
    assert power == pytest.approx(once.chances(0.6).sum(), abs=0.02)
    expected = often.chances(0.6) @ often.looks + (1 - power) * 200
    assert expected < 200 * 5 / 6


def test_more_than_was_stated_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 10"):
        fixed_horizon.paired(10, alpha=0.05).finding(8, 3)
    with pytest.raises(ValueError, match="at most 10"):
        fixed_horizon.unpaired(Arm(8, 3), Arm(3, 3), n_most=10, alpha=0.05)
    for n_looks in (0, 11):
        with pytest.raises(ValueError, match="one look at least"):
            fixed_horizon.paired(10, alpha=0.05, n_looks=n_looks)


@pytest.mark.parametrize(("accuracy", "share"), [(0.5, 0.5), (0.9, 0.5), (0.99, 0.5), (0.9, 0.1)])
def test_two_arms_keep_the_level_at_many_looks(accuracy: float, share: float) -> None:
    # 800 runs of 2,000 answers with 50 looks each. Catches a boundary for one look only, which finds 3 times as many.
    rng = np.random.default_rng(2)
    looks = np.arange(40, 2001, 40)
    n_found = 0
    for _ in range(800):
        is_candidate = rng.random(2000) < share
        is_right = rng.random(2000) < accuracy
        n = np.stack([~is_candidate, is_candidate]).cumsum(axis=1)[:, looks - 1]
        right = np.stack([~is_candidate & is_right, is_candidate & is_right]).cumsum(axis=1)[:, looks - 1]
        n_found += any(
            fixed_horizon.unpaired(
                Arm(n[0, i], right[0, i]), Arm(n[1, i], right[1, i]), n_most=2000, alpha=0.05
            ).finding
            == "benefit"
            for i in range(len(looks))
        )
    assert n_found <= 800 * 0.05 + 5.5 * math.sqrt(800 * 0.05 * 0.95)


def test_two_arms_that_differ_are_told_apart() -> None:
    found = fixed_horizon.unpaired(Arm(500, 400), Arm(500, 450), n_most=1000, alpha=0.05)
    assert (found.finding, found.estimate) == ("benefit", pytest.approx(0.1))
    assert fixed_horizon.unpaired(Arm(500, 450), Arm(500, 400), n_most=1000, alpha=0.05).finding == "harm"
    early = fixed_horizon.unpaired(Arm(50, 40), Arm(50, 45), n_most=1000, alpha=0.05)
    assert (early.finding, early.fraction) == ("undecided", 0.1)
    assert early.z_needed == pytest.approx(norm.isf(0.025) / math.sqrt(0.1))
    assert fixed_horizon.unpaired(Arm(5, 5), Arm(0, 0), n_most=10, alpha=0.05).finding == "undecided"
