"""Rates that must not be too high. Catches: a limit that never fires, one that fires on healthy candidates, a direction
or a share of the arms the wrong way round."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from headrace.stats.beta_mixture import fewest_events
from headrace.stats.guardrails import LIMIT_PRIOR, log_e_above, log_e_worse

FIRES = math.log(1000)
COUNTS = st.integers(0, 2000)


def test_how_soon_a_limit_of_one_percent_fires() -> None:
    assert log_e_above(2, 2, 0.01) >= FIRES > log_e_above(1, 1, 0.01)
    assert log_e_above(3, 9, 0.01) >= FIRES > log_e_above(3, 10, 0.01)
    assert log_e_above(5, 500, 0.01) < 0  # what it should be
    assert log_e_above(0, 0, 0.01) == 0


# Measured elsewhere with a uniform mixture: fired after a median of 188, 55, 5 and 2 requests.
@pytest.mark.parametrize(("rate", "n_bad_most", "n_median"), [(0.05, 15, 215), (0.1, 8, 62), (0.5, 4, 6), (1.0, 2, 2)])
def test_bad_answers_until_a_limit_fires(rate: float, n_bad_most: int, n_median: int) -> None:
    rng = np.random.default_rng(9)
    fewest = fewest_events(2500, 0.01, e=1000, **LIMIT_PRIOR)[1:]
    bad = (rng.random((1000, 2500)) < rate).cumsum(axis=1, dtype=np.int32)
    at = (bad >= fewest).argmax(axis=1)
    assert (bad >= fewest).any(axis=1).all()
    assert float(bad[np.arange(1000), at].mean()) <= n_bad_most
    assert float(np.median(at + 1)) <= n_median


def test_a_candidate_at_its_limit_is_let_alone() -> None:
    # Exactly at the limit, a look after each of 5,000 requests: .001 is promised; 4,000 runs see at most 20 (p < 1e-7).
    rng = np.random.default_rng(10)
    fewest = fewest_events(5000, 0.01, e=1000, **LIMIT_PRIOR)[1:]
    n_fired = 0
    for _ in range(8):
        bad = (rng.random((500, 5000), dtype=np.float32) < 0.01).cumsum(axis=1, dtype=np.int32)
        n_fired += int((bad >= fewest).any(axis=1).sum())
    assert n_fired <= 20


def test_worse_than_the_control_slice_is_the_conditional_test_of_two_rates() -> None:
    # 9 to 0 with equal slices: (2^10 - 1) / 10; and at any counts no more than the largest likelihood ratio.
    assert log_e_worse(9, 0) == pytest.approx(math.log(1023 / 10))
    assert log_e_worse(5, 5) < 0
    for k, others in ((30, 12), (80, 60), (7, 1)):
        largest = stats.binom.logpmf(k, k + others, k / (k + others)) - stats.binom.logpmf(k, k + others, 0.5)
        assert log_e_worse(k, others) < largest


def test_the_share_of_the_candidate_counts() -> None:
    # 10 of 100 events are what a tenth of the traffic should have; 50 of 100 are not.
    assert log_e_worse(10, 90, 0.1) < 0
    assert log_e_worse(50, 50, 0.1) > FIRES
    assert log_e_worse(50, 50, 0.5) < 0


@given(st.lists(st.tuples(COUNTS, COUNTS), min_size=1, max_size=4), st.sampled_from([0.1, 0.5]))
def test_counts_of_processes_merge_to_the_same_bits(parts: list[tuple[int, int]], share: float) -> None:
    bad, others = (sum(column) for column in zip(*parts, strict=True))
    bad_back, others_back = (sum(column) for column in zip(*parts[::-1], strict=True))
    assert log_e_worse(bad, others, share) == log_e_worse(bad_back, others_back, share)
    assert log_e_above(bad, bad + others, share) == log_e_above(bad_back, bad_back + others_back, share)


@given(COUNTS, COUNTS)
def test_one_more_bad_answer_is_more_evidence(bad: int, good: int) -> None:
    assert log_e_above(bad + 1, bad + good + 1, 0.01) > log_e_above(bad, bad + good, 0.01)
    assert log_e_worse(bad + 1, good) > log_e_worse(bad, good)
