"""Accuracy from audits. Catches: volunteered feedback or unequal probabilities taken for a sample, a proxy that biases
or costs width, an interval that covers less often than it says, sums that are not those of the whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from headrace.records import Interval
from headrace.stats import audits
from headrace.stats.audits import Tally

N_RUNS = 600
SPREAD = 5 * np.sqrt(0.95 * 0.05 / N_RUNS)  # a coverage of .95 strays further with chance 1e-6


def traffic(n: int, rng: np.random.Generator, *, useless: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Whether each answer is right (mean .9), its confidence, and a doubt that audits may follow."""
    chance = rng.beta(9, 1, n)
    right = (rng.random(n) < chance).astype(float)
    proxy = rng.random(n) if useless else np.clip(chance + 0.05, 0, 1)  # as a model does that is too sure of itself
    return right, proxy, np.sqrt(proxy * (1 - proxy)) + 0.05


def covered(found: list[Interval | None], truth: float) -> float:
    return float(np.mean([one is not None and one.low <= truth <= one.high for one in found]))


@pytest.mark.parametrize("useless", [False, True], ids=["confidence", "useless proxy"])
@pytest.mark.parametrize("equal", [True, False], ids=["equal", "by doubt"])
def test_intervals_cover_as_often_as_they_say_though_feedback_is_biased(useless: bool, equal: bool) -> None:
    rng, found, classical, naive = np.random.default_rng(0), [], [], []
    scale = 0.0 if equal else audits.scale_of(traffic(4000, rng, useless=useless)[2], 0.1)
    for _ in range(N_RUNS):
        right, proxy, doubt = traffic(4000, rng, useless=useless)
        p = np.full(4000, 0.1) if equal else audits.probabilities(doubt, scale)
        is_audited = rng.random(4000) < p
        found.append(audits.estimate(audits.tally(p, is_audited, right, proxy)))
        classical.append(audits.estimate(audits.tally(p, is_audited, right)))
        spoken = rng.random(4000) < np.where(right == 1, 0.01, 0.05)
        naive.append(audits.estimate(audits.tally(np.ones(4000), spoken, right)))
    for intervals in (found, classical):
        assert abs(covered(intervals, 0.9) - 0.95) <= SPREAD
        assert abs(np.mean([i.estimate for i in intervals if i]) - 0.9) < 0.003
    assert covered(naive, 0.9) < 0.05  # the test would see a bias
    width, plain = (np.mean([i.high - i.low for i in side if i]) for side in (found, classical))
    assert width <= (1.02 if useless else 0.97) * plain


def test_equal_probabilities_without_a_proxy_are_wilsons_interval() -> None:
    rng = np.random.default_rng(1)
    right, is_audited = (rng.random(50_000) < 0.8).astype(float), rng.random(50_000) < 0.02
    found = audits.estimate(audits.tally(np.full(50_000, 0.02), is_audited, right))
    n, n_right = int(is_audited.sum()), int(right[is_audited].sum())
    expected = stats.binomtest(n_right, n).proportion_ci(method="wilson")
    assert found is not None
    assert found.estimate == pytest.approx(n_right / n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=2e-4)


def test_equal_probabilities_with_a_proxy_are_ppi_plus_plus() -> None:
    # ppi-python 0.2.3: ppi_mean_pointestimate and ppi_mean_ci (a normal interval) of the same rows, with the unaudited
    # as the unlabelled side
    rng = np.random.default_rng(0)
    proxy = rng.beta(9, 1, 5000)
    right, is_audited = (rng.random(5000) < proxy).astype(float), rng.random(5000) < 0.1
    sums = audits.tally(np.full(5000, 0.1), is_audited, right, proxy)
    found, interval = audits.estimated(sums), audits.estimate(sums)
    assert found is not None
    assert interval is not None
    assert sums.n_audited == 502
    assert found.accuracy == pytest.approx(0.9052718525839278, abs=2e-4)
    assert found.error == pytest.approx((0.93023447 - 0.88030923) / 2 / 1.959964, rel=0.01)
    assert (interval.low, interval.high) == pytest.approx((0.88030923, 0.93023447), abs=0.004)


def test_a_good_proxy_is_worth_as_many_labels_as_it_should() -> None:
    rng = np.random.default_rng(3)
    proxy = rng.random(200_000)
    right = (rng.random(200_000) < proxy).astype(float)
    is_audited, p = rng.random(200_000) < 0.02, np.full(200_000, 0.02)
    with_it, without = (audits.estimated(audits.tally(p, is_audited, right, f)) for f in (proxy, None))
    assert with_it is not None
    assert without is not None
    rho2 = np.corrcoef(proxy, right)[0, 1] ** 2
    assert (without.error / with_it.error) ** 2 >= 0.95 / (1 - rho2 * 0.98)


@given(st.integers(0, 10**6), st.integers(1, 199))
@settings(max_examples=30, deadline=None)
def test_tallies_of_parts_add_up(seed: int, cut: int) -> None:
    rng = np.random.default_rng(seed)
    p, proxy = rng.uniform(0.05, 1, 200), rng.random(200)
    is_audited, right = rng.random(200) < p, (rng.random(200) < 0.7).astype(float)
    whole = audits.tally(p, is_audited, right, proxy)
    parts = [audits.tally(p[s], is_audited[s], right[s], proxy[s]) for s in (slice(cut), slice(cut, None))]
    together = parts[0] + parts[1]
    assert (together.n, together.n_audited) == (200, int(is_audited.sum()))
    one, other = audits.estimate(together), audits.estimate(whole)
    assert (one is None) == (other is None)
    if one and other:
        assert (one.estimate, one.low, one.high) == pytest.approx((other.estimate, other.low, other.high), abs=1e-9)
        assert 0 <= one.low <= one.estimate <= one.high <= 1


def test_no_audits_no_interval_and_few_that_are_right_no_certainty() -> None:
    none = np.zeros(100, dtype=bool)
    assert audits.estimate(audits.tally(np.full(100, 0.1), none, np.ones(100))) is None
    assert audits.estimate_always(audits.tally(np.full(100, 0.1), ~none, np.ones(100))) is not None
    few = none.copy()
    few[:3] = True
    found = audits.estimate(audits.tally(np.full(100, 0.1), few, np.ones(100), np.full(100, 0.9)))
    assert found is not None
    assert found.low < 0.5
    assert found.high == 1


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="0 to 0"):
        audits.tally(np.zeros(2), np.ones(2, dtype=bool), np.ones(2))
    with pytest.raises(ValueError, match="1 audits have no answer"):
        audits.tally(np.ones(2), np.ones(2, dtype=bool), np.array([1, np.nan]))
    with pytest.raises(ValueError, match=r"not at 0\.001"):
        audits.scale_of(np.ones(3), 0.001)


def test_all_looks_together_cover_as_often_as_they_say() -> None:
    rng, n_bad, n_bad_once = np.random.default_rng(4), 0, 0
    for _ in range(200):
        right, proxy, _ = traffic(20_000, rng)
        p, is_audited = np.full(20_000, 0.05), rng.random(20_000) < 0.05
        sums: Tally | None = None
        bad = bad_once = False
        for start in range(0, 20_000, 1000):
            s = slice(start, start + 1000)
            part = audits.tally(p[s], is_audited[s], right[s], proxy[s])
            sums = part if sums is None else sums + part
            always, once = audits.estimate_always(sums, n_sharpest=10_000), audits.estimate(sums)
            bad |= always is not None and not always.low <= 0.9 <= always.high
            bad_once |= once is not None and not once.low <= 0.9 <= once.high
        n_bad, n_bad_once = n_bad + bad, n_bad_once + bad_once
    assert n_bad <= 200 * 0.05 + 5 * np.sqrt(200 * 0.05 * 0.95)
    assert n_bad_once > 200 * 0.1  # which is why there are two


def test_strata_are_the_whole_and_differences_cover() -> None:
    rng = np.random.default_rng(5)
    n_within, n_covered = 0, 0
    for _ in range(400):
        sums, truths = [], []
        for accuracy, n in ((0.95, 6000), (0.7, 2000)):
            right, is_audited = (rng.random(n) < accuracy).astype(float), rng.random(n) < 0.1
            sums.append(audits.tally(np.full(n, 0.1), is_audited, right))
            truths.append(accuracy)
        whole = audits.by_strata(sums)
        assert whole is not None
        n_within += whole.low <= 0.75 * 0.95 + 0.25 * 0.7 <= whole.high
        ends = [audits.estimate(one) for one in sums]
        assert ends[0] is not None
        assert ends[1] is not None
        apart = audits.difference(ends[0], ends[1])
        n_covered += apart.low <= -0.25 <= apart.high
    for n in (n_within, n_covered):
        assert abs(n / 400 - 0.95) <= 5 * np.sqrt(0.95 * 0.05 / 400)
    assert audits.by_strata([sums[0], audits.tally(np.ones(3), np.zeros(3, dtype=bool), np.ones(3))]) is None


def test_only_what_had_time_to_be_answered_counts() -> None:
    # Wrong answers are told of within the hour, right ones within ten.
    rng = np.random.default_rng(6)
    asked_at = np.sort(rng.uniform(0, 20, 20_000))
    right = (rng.random(20_000) < 0.8).astype(float)
    answered_at = asked_at + np.where(right == 1, rng.uniform(0, 10, 20_000), rng.uniform(0, 1, 20_000))
    there = answered_at <= 20
    ripe, answered = audits.matured(asked_at, np.where(there, answered_at, np.nan), now_s=20, window_s=10)
    assert abs(right[answered].mean() - 0.8) < 0.02
    assert right[there].mean() < 0.77
    assert (ripe == (asked_at <= 10)).all()
    assert (answered <= ripe).all()


def test_bounds_hold_whatever_the_unanswered_would_have_said() -> None:
    rng = np.random.default_rng(7)
    right = (rng.random(5000) < 0.8).astype(float)
    silent = (right == 0) & (rng.random(5000) < 0.5)  # people who do not say that it was wrong
    is_audited, p = rng.random(5000) < 0.2, np.full(5000, 0.2)
    found = audits.bounds(p, is_audited, np.where(silent, np.nan, right))
    assert found is not None
    assert found.low <= 0.8 <= found.high
    assert found.estimate > 0.86
    assert audits.bounds(p, is_audited, np.full(5000, np.nan)) is None


@given(st.integers(0, 10**6), st.sampled_from([0.002, 0.01, 0.2, 1.0]))
@settings(max_examples=30, deadline=None)
def test_audits_are_as_many_as_wished_and_follow_doubt(seed: int, share: float) -> None:
    doubt = np.random.default_rng(seed).random(500) ** 3
    p = audits.probabilities(doubt, audits.scale_of(doubt, share))
    assert p.mean() == pytest.approx(share, rel=0.02)
    assert (p >= audits.FLOOR).all()
    assert (np.diff(p[np.argsort(doubt)]) >= 0).all()


def test_the_number_of_audits_that_is_needed_gives_the_width_that_is_wished() -> None:
    n = audits.n_needed(0.02, 0.9)
    found = stats.binomtest(round(0.9 * n), n).proportion_ci(method="wilson")
    assert (found.high - found.low) / 2 == pytest.approx(0.02, rel=0.02)
    assert audits.n_needed(0.02, 0.9, correlation=0.6) == pytest.approx(0.64 * n, abs=1)
