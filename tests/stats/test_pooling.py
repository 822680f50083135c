"""Partial pooling. Catches: groups that are pooled though they differ, a small group that decides by itself."""

import math

import numpy as np
import pytest

from headrace.stats.evalues import Pairs
from headrace.stats.pooling import differences, gains, pooled


def test_groups_that_nothing_tells_apart_get_the_common_mean() -> None:
    found = pooled([0.1, -0.3, 0.2], [1.0, 1.0, 0.5])
    expected = (0.1 + -0.3 + 4 * 0.2) / 6
    assert found == pytest.approx([expected] * 3)


def test_groups_that_differ_keep_their_own_and_the_unsure_one_moves_most() -> None:
    found = pooled([0.0, -8.0, -4.0], [0.1, 0.1, 4.0])
    assert found[:2] == pytest.approx([0.0, -8.0], abs=0.05)
    moved = pooled([0.0, -8.0, 6.0], [0.1, 0.1, 4.0])[2]
    assert -1 < moved < 4


def test_a_group_that_says_nothing_gets_the_mean_of_the_others() -> None:
    assert pooled([1.0, 1.0, 99.0], [0.5, 0.5, math.inf])[2] == pytest.approx(1.0)
    assert pooled([0.0], [math.inf]) == [0.0]
    assert pooled([-2.0], [0.3]) == pytest.approx([-2.0])


def test_it_is_nearer_to_the_truth_than_each_own_estimate() -> None:
    """By simulation: 12 groups with a spread of 1 and errors of 0.5 to 3."""
    rng = np.random.default_rng(5)
    errors = np.linspace(0.5, 3, 12)
    own, together = [], []
    for _ in range(300):
        truth = rng.normal(-1, 1, size=12)
        seen = truth + rng.normal(size=12) * errors
        own.append(np.square(seen - truth).mean())
        together.append(np.square(np.array(pooled(seen.tolist(), errors.tolist())) - truth).mean())
    assert np.mean(together) < 0.45 * np.mean(own)


def test_gains_of_small_channels_are_drawn_towards_the_others() -> None:
    groups = {"a": Pairs(20, 40, 940), "b": Pairs(30, 52, 1918), "small": Pairs(3, 0, 7), "silent": Pairs()}
    found = gains(groups)
    assert found["a"] == pytest.approx(-0.02, abs=0.006)
    assert -0.02 < found["small"] < 0.05  # alone it would be .3
    assert -0.02 < found["silent"] < 0.0
    assert gains({"a": Pairs(), "b": Pairs()}) == {"a": 0.0, "b": 0.0}


def test_a_channel_without_a_disagreement_is_not_sure_of_that() -> None:
    found = gains({"few": Pairs(0, 0, 5), "many": Pairs(10, 90, 900), "more": Pairs(25, 110, 865)})
    assert found["few"] < -0.04


def test_differences_of_arms_are_pooled_by_their_labels() -> None:
    # 2 points between arms in two large channels; a small one that seems 60 points better, one without a control.
    groups = {"a": (900, 810, 1000, 920), "b": (1800, 1620, 2000, 1840), "small": (5, 5, 5, 2), "half": (9, 9, 0, 0)}
    found = differences(groups)
    assert found["a"] == pytest.approx(-0.02, abs=0.003)
    assert -0.02 < found["small"] < 0.1
    assert found["half"] == pytest.approx(-0.02, abs=0.01)
    assert differences({"a": (3, 3, 0, 0)}) == {}
