"""Two arms compared: right numbers, and the error level they promise while one peeks after every answer."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.stats import confidence_sequences as cs
from headrace.stats.confidence_sequences import Bets


@dataclass(frozen=True)
class Arm:
    n: int
    n_right: int


ARMS = st.integers(0, 400).flatmap(lambda n: st.builds(Arm, st.just(n), st.integers(0, n)))
SHARES = st.floats(0.05, 0.95)
CENTRES = st.floats(0.0, 1.0)


def share_ever_found(
    control: np.ndarray, candidate: np.ndarray, share: float, centre: float, *, n_runs: int, seed: int
) -> dict[str, float]:
    """Share of runs in which benefit, or harm, is found at alpha .05 by a look after every answer."""
    rng = np.random.default_rng(seed)
    stakes = cs.bets(share, centre).stakes()[:, 0]  # (2, S)
    values = cs.estimates(share, centre)
    logs = np.log1p(values[:, None, None] * np.array([1.0, -1.0])[:, None] * stakes)  # (4, 2, S)
    total = np.zeros((n_runs, *stakes.shape))
    found = np.zeros((n_runs, 2), dtype=bool)
    for p_control, p_candidate in zip(control, candidate, strict=True):
        is_candidate = rng.random(n_runs) < share
        is_right = rng.random(n_runs) < np.where(is_candidate, p_candidate, p_control)
        total += logs[2 * is_candidate + is_right]
        found |= cs.log_e(total) >= math.log(20)
    return {"benefit": float(found[:, 0].mean()), "harm": float(found[:, 1].mean())}


@pytest.mark.parametrize(
    ("accuracy", "share", "centre"),
    [
        (np.full(1200, 0.5), 0.5, 0.5),
        (np.full(1200, 0.9), 0.5, 0.9),
        (np.full(1200, 0.99), 0.5, 0.9),
        (np.full(1200, 0.9), 0.1, 0.7),
        (np.linspace(0.95, 0.3, 1200), 0.3, 0.9),
    ],
    ids=["even", "good", "near-perfect", "unequal shares, wrong centre", "drifting"],
)
def test_no_more_than_alpha_false_findings_under_constant_peeking(
    accuracy: np.ndarray, share: float, centre: float
) -> None:
    # 2,000 runs; 5 % and 7 standard errors. Catches a wrong stake, weight or sign.
    found = share_ever_found(accuracy, accuracy, share, centre, n_runs=2000, seed=3)
    assert max(found.values()) <= 0.05 + 7 * math.sqrt(0.05 * 0.95 / 2000)


def test_a_drop_is_found_in_the_time_that_planning_says() -> None:
    # 10 points at .9: shows that the simulation above has teeth, and that harm is harm.
    found = share_ever_found(np.full(1500, 0.9), np.full(1500, 0.8), 0.5, 0.9, n_runs=400, seed=4)
    assert found["harm"] >= 0.97
    assert found["benefit"] <= 0.02


@given(ARMS, ARMS, SHARES, CENTRES)
def test_is_the_product_that_defines_it(control: Arm, candidate: Arm, share: float, centre: float) -> None:
    # One answer after another; catches wrong cells, signs or weights.
    answers = [(False, i < control.n_right) for i in range(control.n)]
    answers += [(True, i < candidate.n_right) for i in range(candidate.n)]
    above, below = cs.bets(share, centre).stakes()[:, 0]
    capital = np.ones((2, len(above)))
    for is_candidate, is_right in answers[:60]:
        x = (is_right - centre) * (1 / share if is_candidate else -1 / (1 - share))
        capital *= [1 + above * x, 1 - below * x]
    part = answers[:60]
    first = Arm(sum(not a for a, _ in part), sum(not a and r for a, r in part))
    second = Arm(sum(a for a, _ in part), sum(a and r for a, r in part))
    logs = cs.capitals(first, second, candidate_share=share, centre=centre)
    assert np.exp(logs) == pytest.approx(capital, rel=1e-9)


@given(ARMS, ARMS, ARMS, ARMS, SHARES, CENTRES)
def test_parts_add_up(a: Arm, b: Arm, c: Arm, d: Arm, share: float, centre: float) -> None:
    # Resuming and merging give the same evidence.
    together = cs.capitals(
        Arm(a.n + c.n, a.n_right + c.n_right),
        Arm(b.n + d.n, b.n_right + d.n_right),
        candidate_share=share,
        centre=centre,
    )
    parts = [cs.capitals(x, y, candidate_share=share, centre=centre) for x, y in ((a, b), (c, d))]
    assert together == pytest.approx(sum(parts), rel=1e-9, abs=1e-9)


@given(st.floats(0, 1), SHARES, CENTRES, st.integers(0, 13))
def test_is_a_fair_bet_when_neither_is_better(accuracy: float, share: float, centre: float, stake: int) -> None:
    # The martingale property, from which the error level follows, at every stake and any centre.
    values = cs.estimates(share, centre)
    chances = np.array([1 - accuracy, accuracy, 1 - accuracy, accuracy]) * np.repeat([1 - share, share], 2)
    above, below = cs.bets(share, centre).stakes()[:, 0, stake]
    assert chances @ (1 + above * values) == pytest.approx(1, abs=1e-12)
    assert chances @ (1 - below * values) == pytest.approx(1, abs=1e-12)
    assert (1 + above * values > 0).all()
    assert (1 - below * values > 0).all()


@given(ARMS, ARMS, SHARES, CENTRES)
def test_swapping_the_arms_swaps_benefit_and_harm(control: Arm, candidate: Arm, share: float, centre: float) -> None:
    one = cs.compare(control, candidate, alpha=0.05, candidate_share=share, centre=centre)
    other = cs.compare(candidate, control, alpha=0.05, candidate_share=1 - share, centre=centre)
    assert one.log_e_benefit == pytest.approx(other.log_e_harm, rel=1e-6, abs=1e-6)
    assert one.low == pytest.approx(-other.high, abs=1e-6)
    assert one.p_value == pytest.approx(other.p_value, rel=1e-6)


@given(ARMS, ARMS, SHARES, st.floats(0.2, 0.95))
def test_the_interval_is_what_is_not_refuted(control: Arm, candidate: Arm, share: float, centre: float) -> None:
    # Also catches an interval and a finding that disagree.
    found = cs.compare(control, candidate, alpha=0.05, candidate_share=share, centre=centre)
    counts = [control.n - control.n_right, control.n_right, candidate.n - candidate.n_right, candidate.n_right]
    for side, end in enumerate((found.low, found.high)):
        if abs(end) < 0.999:
            bets = cs.bets(share, centre, (end,))
            capital = cs.log_e(bets.log_capitals(cs.estimates(share, centre), np.array(counts)))[side, 0]
            assert capital == pytest.approx(math.log(20), abs=1e-4)
    assert (found.finding == "benefit") == (found.low > 0)
    assert (found.finding == "harm") == (found.high < 0)


def test_without_answers_nothing_is_known() -> None:
    for found in (cs.compare(Arm(0, 0), Arm(0, 0), alpha=0.05), cs.asymptotic(Arm(9, 3), Arm(0, 0), alpha=0.05)):
        assert (found.finding, found.estimate, found.low, found.high, found.p_value) == ("undecided", None, -1, 1, 1)


def test_a_share_of_all_or_nothing_is_refused() -> None:
    for share in (0.0, 1.0):
        with pytest.raises(ValueError, match="share"):
            cs.compare(Arm(1, 1), Arm(1, 1), alpha=0.05, candidate_share=share)


def test_bounded_outcomes_from_a_grid_of_capitals() -> None:
    # The mean of 1,000 beta-distributed outcomes lies in the interval, which is narrow; parts give the same.
    outcomes = np.random.default_rng(1).beta(4, 2, size=1000)
    bets = Bets(0.0, 1.0, 0.05, tuple(np.linspace(0.02, 0.98, 97)))
    capitals = bets.log_capitals(outcomes)
    low, high = bets.interval(capitals, alpha=0.025)
    assert low < 4 / 6 < high
    assert high - low < 0.08
    assert bets.log_capitals(outcomes[:70]) + bets.log_capitals(outcomes[70:]) == pytest.approx(capitals, abs=1e-8)
    assert bets.interval(bets.log_capitals(outcomes[:1]), alpha=0.025) == (-math.inf, math.inf)
    with pytest.raises(ValueError, match="between"):
        Bets(0.0, 1.0, 0.05, (1.0,)).log_capitals(outcomes)


@pytest.mark.parametrize(("alpha", "n"), [(0.05, 100), (0.05, 5000), (0.01, 500), (0.001, 20_000)])
def test_the_asymptotic_margin_bounds_the_mixture_it_stands_for(alpha: float, n: int) -> None:
    # Brownian motion at the margin: the half-normal mixture of exp(s x - s^2 n / 2) is 1 / alpha or a little more.
    from scipy.integrate import quad

    rho = cs.rho(n, alpha)
    for t in (n / 10, n, 10 * n):
        total = t * float(cs.margin(t, alpha=alpha, rho=rho))
        scale = math.sqrt(2 / math.pi) / rho

        def integrand(s: float, t: float = t, total: float = total, scale: float = scale) -> float:
            return scale * math.exp(s * total - s * s * t / 2 - s * s / (2 * rho * rho))

        middle = total / (t + rho**-2)
        evidence = quad(integrand, 0, middle + 12 / math.sqrt(t), points=[middle], limit=200)[0]
        assert 1 / alpha <= evidence <= 1.1 / alpha


@pytest.mark.parametrize("n", [500, 5000])
def test_the_asymptotic_margin_is_narrowest_where_it_is_tuned(n: int) -> None:
    # Over rho, by search: what the closed form of rho claims.
    rhos = cs.rho(n, 0.05) * np.geomspace(0.2, 5, 401)
    least = min(float(cs.margin(n, alpha=0.05, rho=r)) for r in rhos)
    assert float(cs.margin(n, alpha=0.05, rho=cs.rho(n, 0.05))) <= 1.01 * least


@pytest.mark.parametrize(("accuracy", "share"), [(0.5, 0.25), (0.9, 0.25), (0.99, 0.25), (0.9, 0.05)])
def test_the_asymptotic_form_keeps_its_level_at_many_looks(accuracy: float, share: float) -> None:
    # 600 runs of 10,000 answers with 60 looks each from 20 answers on. Catches a small arm that is taken as sure.
    rng = np.random.default_rng(8)
    looks = np.unique(np.geomspace(20, 10_000, 60).astype(int))
    found = {"benefit": 0, "harm": 0}
    for _ in range(600):
        is_candidate = rng.random(10_000) < share
        is_right = rng.random(10_000) < accuracy
        n = np.stack([~is_candidate, is_candidate]).cumsum(axis=1)[:, looks - 1]
        right = np.stack([~is_candidate & is_right, is_candidate & is_right]).cumsum(axis=1)[:, looks - 1]
        seen = {
            cs.asymptotic(Arm(n[0, i], right[0, i]), Arm(n[1, i], right[1, i]), alpha=0.05).finding
            for i in range(len(looks))
        }
        for side in found:
            found[side] += side in seen
    assert max(found.values()) <= 600 * 0.05 + 5.5 * math.sqrt(600 * 0.05 * 0.95)


@given(ARMS, ARMS)
def test_the_asymptotic_finding_ends_and_p_value_agree(control: Arm, candidate: Arm) -> None:
    found = cs.asymptotic(control, candidate, alpha=0.05)
    assert (found.finding == "benefit") == (found.low > 0)
    assert (found.finding == "harm") == (found.high < 0)
    if found.finding != "undecided":
        assert found.p_value <= 0.1
    assert 0 <= found.p_value <= 1


def test_capitals_are_those_of_confseq() -> None:
    # confseq 0.0.11, diversified_betting_mart with the same stakes and weights, constants; outcomes mapped onto 0..1.
    outcomes = np.array([(37 * i % 101) / 100 for i in range(200)]) ** 2
    bets = Bets(0.0, 1.0, 0.1, (0.25, 0.5))
    above, below = cs.log_e(bets.log_capitals(outcomes))
    assert above == pytest.approx([6.838468438283255, -2.5868063544169315], abs=1e-9)
    assert below == pytest.approx([-2.020567241912326, 21.88658508019375], abs=1e-9)
    found = cs.compare(Arm(300, 255), Arm(100, 60), alpha=0.05, candidate_share=0.25, centre=0.8)
    assert found.log_e_benefit == pytest.approx(-1.6745019634196836, abs=1e-9)
    assert found.log_e_harm == pytest.approx(9.548542747911963, abs=1e-9)
