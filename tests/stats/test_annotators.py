"""The gate on annotators and the caps. Catches: a posterior of the wrong tail, a gate that bars honest people or lets
liars in, a cap that one source slips, weights lower than they must be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bench.crowd import attacked, some_known
from bench.crowd import simulated as crowd
from headrace.stats import annotators
from headrace.stats.annotators import UNKNOWN, Gate, Votes

COUNTS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=20)
SIZES = st.lists(st.integers(0, 500), min_size=1, max_size=30)


def chance_of_being_barred(accuracy: float, n: int, gate: Gate) -> float:
    """Exactly, that somebody so accurate is barred at any of the looks after 1 .. n known answers."""
    state, barred = np.ones(1), 0.0
    for asked in range(1, n + 1):
        state = np.append(state * (1 - accuracy), 0.0) + np.append(0.0, state * accuracy)
        out = annotators.is_barred(np.full(asked + 1, asked), np.arange(asked + 1), gate)
        barred += float(state[out].sum())
        state[out] = 0
    return barred


@given(COUNTS, st.floats(0.05, 0.95))
def test_the_posterior_is_scipys(counts: list[tuple[int, int]], bar: float) -> None:
    n_right, n_wrong = np.array(counts).T
    found = annotators.chance_below(bar, n_right + n_wrong, n_right)
    assert found == pytest.approx(stats.beta.cdf(bar, 1 + n_right, 1 + n_wrong), abs=1e-9)


@pytest.mark.parametrize(("accuracy", "most"), [(0.8, 0.02), (0.85, 0.01), (0.9, 0.002)])
def test_honest_people_are_rarely_barred_however_often_one_looks(accuracy: float, most: float) -> None:
    assert chance_of_being_barred(accuracy, 100, Gate()) <= most


def test_liars_are_barred_soon() -> None:
    assert chance_of_being_barred(0.1, 5, Gate()) > 0.9
    assert chance_of_being_barred(0.3, 20, Gate()) > 0.9


def test_who_may_count_how_much() -> None:
    # (asked, right): nothing known; 3 wrong; 1 of 3; 4 of 4; 5 of 5; a random voter after 200
    n_asked, n_right = np.array([[0, 0], [3, 0], [3, 1], [4, 4], [5, 5], [200, 100]]).T
    assert annotators.weights(n_asked, n_right).tolist() == [0.5, 0, 0.5, 0.5, 1, 0]
    assert annotators.weights(np.array([2]), np.array([0])).tolist() == [0.5]  # two are too few to bar anybody


def test_scores_count_only_what_is_known() -> None:
    votes = Votes(*(np.array(x) for x in ([0, 0, 1, 2, 2], [0, 1, 0, 0, 1], [1, 0, 1, 0, 0])), 3, 3, 2)
    n_asked, n_right = annotators.score(votes, np.array([1, UNKNOWN, 0]))
    assert n_asked.tolist() == [2, 2, 0]
    assert n_right.tolist() == [2, 1, 0]


def test_votes_of_parts_add_up() -> None:
    votes, truth = crowd(seed=1)
    whole = attacked(votes, truth, "flip", 0.3, seed=2)
    known = some_known(truth, 0.1, seed=3)
    cut = len(votes) // 2
    parts = [
        Votes(whole.items[s], whole.annotators[s], whole.classes[s], whole.n_items, whole.n_annotators, 3)
        for s in (slice(cut), slice(cut, None))
    ]
    together = [sum(counts) for counts in zip(*(annotators.score(part, known) for part in parts), strict=True)]
    assert all((a == b).all() for a, b in zip(together, annotators.score(whole, known), strict=True))
    assert len(parts[0] + parts[1]) == len(whole)


@pytest.mark.parametrize("arrays", [([0], [0, 1], [0]), ([3], [0], [0]), ([0], [-1], [0]), ([0], [0], [2])])
def test_votes_out_of_range_are_refused(arrays: tuple[list[int], ...]) -> None:
    with pytest.raises(ValueError, match=r"lengths|not within"):
        Votes(*(np.array(one) for one in arrays), 3, 2, 2)


def test_bursts_are_told_and_busy_people_are_not() -> None:
    # an hour beside the 24 before: one steady, one twice as busy, one who wakes up, a newcomer, one with a flood
    n_now, n_before = np.array([[4, 100], [10, 120], [6, 0], [3, 0], [300, 40]]).T
    found = annotators.log_e_of_burst(n_now, n_before, now_share=1 / 25, typical=24)
    assert (found[:4] < np.log(100)).all()
    assert found[4] > np.log(1e6)
    rng = np.random.default_rng(0)  # 5 times as busy is the edge of what is no burst
    counts = rng.poisson(20, 20_000), rng.poisson(96, 20_000)
    edge = annotators.log_e_of_burst(*counts, now_share=1 / 25, typical=0)
    assert (edge >= np.log(100)).mean() <= 0.01


@given(SIZES, st.integers(0, 2000), st.sampled_from([0.02, 0.1, 0.5, 1.0]))
def test_no_source_is_more_than_its_share_and_nothing_is_given_away(sizes: list[int], other: int, share: float) -> None:
    n_rows = np.array(sizes)
    try:
        kept = annotators.capped(n_rows, share, n_other=other) * n_rows
    except ValueError:
        assert other == 0
        assert np.count_nonzero(n_rows) * share < 1 + 1e-9
        return
    total = other + kept.sum()
    assert (kept <= share * total + 1e-6).all()
    cut = kept < n_rows - 1e-6
    assert kept[cut] == pytest.approx(share * total, rel=1e-6)  # whoever is cut has the whole share


def test_caps_by_hand() -> None:
    # level = .1 * (500 + 2 * level + 15), so 64.375
    found = annotators.capped(np.array([1000, 1000, 10, 5]), 0.1, n_other=500)
    assert found == pytest.approx([0.064375, 0.064375, 1, 1])
    with pytest.raises(ValueError, match="3 annotators"):
        annotators.capped(np.array([5, 5, 5]), 0.02)
