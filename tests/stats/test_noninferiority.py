"""Bets on the mean of +1, 0 and -1. Catches: a margin of the wrong sign, bets that a loss can bankrupt, evidence that
hangs on the order or on when one looked, labels that are waited for and taken for agreements."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.stats.evalues import Pairs
from headrace.stats.noninferiority import BETS, log_e, log_es, n_more, n_needed

COUNTS = st.integers(0, 3000)
MARGINS = st.sampled_from([0.005, 0.01, 0.05, 0.3])
SHARES = st.sampled_from([1.0, 0.5, 0.1])


@given(st.lists(st.sampled_from([1, 0, 0, 0, -1]), max_size=60), MARGINS)
def test_equals_the_game_played_round_by_round(signs: list[int], margin: float) -> None:
    # The definition: each bettor's capital is multiplied by 1 + bet (x + margin); the evidence is the mean capital.
    capitals = np.ones(len(BETS))
    for x in signs:
        capitals *= 1 + BETS / (1 - margin) * (x + margin)
    pairs = Pairs(signs.count(1), signs.count(-1), signs.count(0))
    assert log_e(pairs, margin=margin) == pytest.approx(math.log(capitals.mean()), abs=1e-9)


@given(COUNTS, COUNTS, COUNTS, MARGINS, SHARES, st.floats(0, 1))
def test_is_a_fair_bet_at_the_edge_of_the_null_hypothesis(
    wins: int, losses: int, agreements: int, margin: float, share: float, tilt: float
) -> None:
    # Mean of x is exactly -margin: `win` of the pairs are won and `lose` lost, of which the coin asks for `share`.
    win = tilt * (1 - margin) / 2
    lose = win + margin
    chances = np.array([win * share, lose * share, 1 - (win + lose) * share])
    steps = np.eye(3, dtype=int) + np.array([wins, losses, agreements])
    now = float(log_es(wins, losses, agreements, margin=margin, share=share))
    after = log_es(*steps.T, margin=margin, share=share)
    assert float(chances @ np.exp(after - now)) == pytest.approx(1, rel=1e-8)


@pytest.mark.parametrize(("margin", "expected"), [(0.01, 0.9613836688738951), (0.05, 8.513819531365334)])
def test_equals_confseqs_betting(margin: float, expected: float) -> None:
    # confseq 0.0.11, betting.diversified_betting_mart of (x + 1) / 2 against m = (1 - margin) / 2, with the constant
    # bets BETS / m, theta=1, trunc_scale=1: 30 wins, 20 losses, 450 agreements.
    assert log_e(Pairs(30, 20, 450), margin=margin) == pytest.approx(expected, abs=1e-9)


def test_closed_form_when_no_two_answers_differ() -> None:
    grown = [(1 + 0.9 * 2.0**-k / 0.99 * 0.01) ** 500 for k in range(9)]
    assert log_e(Pairs(agreements=500), margin=0.01) == pytest.approx(math.log(sum(grown) / 9))
    n = n_needed(margin=0.01, alpha=0.05)
    assert log_e(Pairs(agreements=n), margin=0.01) >= math.log(20) > log_e(Pairs(agreements=n - 1), margin=0.01)


@given(st.lists(st.tuples(COUNTS, COUNTS, COUNTS), min_size=1, max_size=5), MARGINS)
def test_parts_merge_to_the_same_bits(parts: list[tuple[int, int, int]], margin: float) -> None:
    forward = sum((Pairs(*part) for part in parts), Pairs())
    backward = sum((Pairs(*part) for part in reversed(parts)), Pairs())
    assert log_e(forward, margin=margin) == log_e(backward, margin=margin)


@given(COUNTS, COUNTS, COUNTS, st.integers(0, 50), st.integers(0, 50), MARGINS)
def test_waiting_for_labels_never_makes_evidence(
    wins: int, losses: int, agreements: int, n_wins: int, n_losses: int, margin: float
) -> None:
    # Whatever the waiting ones turn out to be, what was said before their labels came was no more than after.
    before = log_e(Pairs(wins, losses, agreements), margin=margin, n_waiting=n_wins + n_losses)
    after = log_e(Pairs(wins + n_wins, losses + n_losses, agreements), margin=margin)
    assert before <= after + 1e-9


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_no_more_than_alpha_false_promotions_with_a_look_after_every_pair(share: float) -> None:
    # 2,000 releases of 3,000 pairs, worse by exactly the margin of 2 points; 10 % differ.
    rng = np.random.default_rng(5)
    x = rng.choice([1, -1, 0], p=[0.04, 0.06, 0.9], size=(2000, 3000))
    x = np.where(rng.random(x.shape) < share, x, 0)
    wins, losses = ((x == side).cumsum(axis=1, dtype=np.int32)[:, 9::10] for side in (1, -1))
    agreements = np.arange(10, 3001, 10) - wins - losses
    shown = log_es(wins, losses, agreements, margin=0.02, share=share) >= math.log(20)
    assert float(shown.any(axis=1).mean()) <= 0.05


def test_an_equal_candidate_is_shown_to_be_no_worse() -> None:
    rng = np.random.default_rng(6)
    wins, losses, agreements = rng.multinomial(12_000, [0.03, 0.03, 0.94], size=500).T
    shown = log_es(wins, losses, agreements, margin=0.01) >= math.log(20)
    assert float(shown.mean()) > 0.85


@pytest.mark.parametrize(
    ("counts", "margin", "share"),
    [((-1, 0, 0), 0.1, 1), ((0, 0, -1), 0.1, 1), ((0, 0, 0), 0.0, 1), ((0, 0, 0), 1.0, 1), ((0, 0, 0), 0.1, 0)],
)
def test_what_cannot_be_is_refused(counts: tuple[int, int, int], margin: float, share: float) -> None:
    with pytest.raises(ValueError, match=r"negative|within"):
        log_es(*counts, margin=margin, share=share)


@given(st.integers(1, 40), st.integers(0, 40), st.integers(500, 3000), SHARES)
def test_forecast_is_the_first_size_that_would_show_it(wins: int, losses: int, agreements: int, share: float) -> None:
    pairs = Pairs(wins, losses, agreements)
    more = n_more(pairs, margin=0.02, alpha=0.05, share=share)
    if more is None:
        assert wins / share <= losses / share - 0.02 * pairs.n or losses > wins
        return

    def scaled(n: int) -> float:
        factor = 1 + n / pairs.n
        return float(log_es(wins * factor, losses * factor, agreements * factor, margin=0.02, share=share))

    assert scaled(more) >= math.log(20)
    assert more == 0 or scaled(more - 1) < math.log(20)


def test_forecast_where_nothing_was_seen_and_where_nothing_will_do() -> None:
    assert n_more(Pairs(), margin=0.01, alpha=0.05) == n_needed(margin=0.01, alpha=0.05) - 1
    assert n_more(Pairs(0, 50, 100), margin=0.01, alpha=0.05) is None


@pytest.mark.parametrize("wrong", [0.0, 0.1, 1 / 3])
def test_wrong_labels_shrink_what_is_seen_as_the_docs_say(wrong: float) -> None:
    # At a true loss of margin / (1 - 2 e) the bet is fair: 10 % of the pairs differ.
    margin = 0.01
    loss = margin / (1 - 2 * wrong)
    win, lose = (0.1 - loss) / 2, (0.1 + loss) / 2
    chances = [win * (1 - wrong) + lose * wrong, lose * (1 - wrong) + win * wrong, 0.9]
    after = log_es(*np.eye(3), margin=margin)
    assert float(chances @ np.exp(after)) == pytest.approx(1, rel=1e-9)
