"""The truncated Beta mixture against one coin. Catches: a wrong constant, tail or direction, cancellation far from the
mean, values that hang on what they are computed beside."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad

from headrace.stats.beta_mixture import fewest_events, log_es

COUNTS = st.tuples(st.integers(0, 400), st.integers(0, 400))
SHARES = st.sampled_from([0.001, 0.01, 0.05, 0.3, 0.5, 0.9])
PRIORS = st.sampled_from([(1.0, 1.0), (0.5, 1.0), (0.5, 0.5), (2.0, 30.0)])


def by_quadrature(k: int, misses: int, p0: float, a: float, b: float) -> float:
    """The definition itself: the mean likelihood ratio over the Beta law above p0."""

    def density(p: float) -> float:
        return float(stats.beta.pdf(p, a, b))

    def ratio(p: float) -> float:
        return math.exp(k * math.log(p / p0) + misses * math.log((1 - p) / (1 - p0)))

    top = min(max(k / (k + misses), p0 + 1e-6), 1 - 1e-6) if k + misses else (1 + p0) / 2
    total, _ = quad(lambda p: ratio(p) * density(p), p0, 1, points=[top], epsrel=1e-11, limit=400)
    return total / float(stats.beta.sf(p0, a, b))


@pytest.mark.parametrize("prior", [(1.0, 1.0), (0.5, 1.0), (2.0, 30.0)])
@pytest.mark.parametrize(
    ("k", "misses", "p0"),
    [
        (0, 0, 0.5),
        (1, 0, 0.01),
        (0, 300, 0.01),
        (5, 195, 0.01),
        (61, 22, 0.5),
        (22, 61, 0.5),
        (30, 30, 0.5),
        (9, 1, 0.9),
    ],
)
def test_equals_the_integral_that_defines_it(k: int, misses: int, p0: float, prior: tuple[float, float]) -> None:
    a, b = prior
    assert math.exp(log_es(k, k + misses, p0, a=a, b=b)) == pytest.approx(by_quadrature(k, misses, p0, a, b), rel=1e-8)


@given(COUNTS, SHARES, PRIORS)
def test_equals_scipys_beta_tails(counts: tuple[int, int], p0: float, prior: tuple[float, float]) -> None:
    # An independent computation of the same ratio, wherever the tail is not below what floats hold.
    (k, misses), (a, b) = counts, prior
    tail = float(stats.beta.logsf(p0, a + k, b + misses))
    if tail > -600:
        whole = float(tail - stats.beta.logsf(p0, a, b))
        ratio = _log_beta(a + k, b + misses) - _log_beta(a, b) - k * math.log(p0) - misses * math.log1p(-p0)
        assert float(log_es(k, k + misses, p0, a=a, b=b)) == pytest.approx(whole + ratio, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize(
    ("p0", "k", "n", "rho", "expected"),
    [
        (0.5, 61, 83, 3.9501587267126324, 7.8183621316605496),
        (0.5, 22, 83, 3.9501587267126324, -2.6151226002695296),
        (0.5, 300, 500, 15.800634906850529, 8.5460145942444683),
        (0.01, 5, 188, 0.79003174534252651, 1.2749160787522325),
        (0.01, 2, 2, 0.79003174534252651, 1.7791915050219131),
        (0.01, 60, 5000, 0.1580063490685053, -0.98988076369991518),
        (0.3, 0, 40, 7.9003174534252647, -1.7524023316394839),
        (0.05, 900, 10000, 3.1601269813701061, 134.82761043562289),
    ],
)
def test_equals_confseq(p0: float, k: int, n: int, rho: float, expected: float) -> None:
    # confseq 0.0.11, beta_binomial_log_mixture(k - n p0, n p0 (1 - p0), v_opt, g=p0, h=1 - p0), one-sided; its prior
    # has a = r / (1 - p0), b = r / p0 with r = rho - p0 (1 - p0), and rho is its best_rho(v_opt, .05).
    r = rho - p0 * (1 - p0)
    assert float(log_es(k, n, p0, a=r / (1 - p0), b=r / p0)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("n", "bound"), [(50, 9.8017241872469185), (200, 19.721585702711764), (1000, 47.377212091049614)]
)
def test_the_boundary_equals_confseqs(n: int, bound: float) -> None:
    # confseq 0.0.11, beta_binomial_mixture_bound(n / 4, .05, v_opt=25, g=.5, h=.5): how far above n / 2 it decides.
    r = 3.9501587267126324 - 0.25
    assert fewest_events(n, 0.5, e=20, a=2 * r, b=2 * r)[n] == math.ceil(n / 2 + bound)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


@given(COUNTS, SHARES, PRIORS)
def test_is_a_fair_bet_at_the_edge_of_the_null_hypothesis(
    counts: tuple[int, int], p0: float, prior: tuple[float, float]
) -> None:
    (k, misses), (a, b) = counts, prior
    n = k + misses
    now, *after = log_es([k, k + 1, k], [n, n + 1, n + 1], p0, a=a, b=b)
    with_event, without = np.exp(np.array(after) - now)
    assert p0 * with_event + (1 - p0) * without == pytest.approx(1, rel=1e-8)


@given(st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 5000)), min_size=1, max_size=8), SHARES)
def test_a_value_does_not_hang_on_its_neighbours(counts: list[tuple[int, int]], p0: float) -> None:
    # Replaying one release gives the same bits as replaying a thousand.
    together = log_es([k for k, _ in counts], [k + misses for k, misses in counts], p0)
    assert [float(log_es(k, k + misses, p0)) for k, misses in counts] == together.tolist()


def test_large_counts_neither_overflow_nor_stall() -> None:
    assert float(log_es(600_000, 1_000_000, 0.5)) == pytest.approx(20_129.0, abs=2)  # n KL(.6, .5) - log sqrt(n) ...
    assert float(log_es(400_000, 1_000_000, 0.5)) == pytest.approx(math.log(1 / 200_000), rel=0.01)
    assert math.isfinite(float(log_es(0, 10**7, 0.5)))
    assert math.isfinite(float(log_es(10**7, 10**7, 0.001)))


@pytest.mark.parametrize(("k", "n", "p0"), [(-1, 5, 0.5), (6, 5, 0.5), (0, -1, 0.5), (1, 2, 0.0), (1, 2, 1.0)])
def test_what_cannot_be_is_refused(k: int, n: int, p0: float) -> None:
    with pytest.raises(ValueError, match=r"negative|within"):
        log_es(k, n, p0)


@pytest.mark.parametrize(("p0", "e"), [(0.5, 20), (0.01, 1000), (0.5, math.sqrt(10)), (0.3, 1e9)])
def test_the_fewest_events_are_the_first_that_reach_e(p0: float, e: float) -> None:
    fewest = fewest_events(150, p0, e=e)
    for n in range(151):
        reached = np.exp(log_es(np.arange(n + 1), n, p0)) >= e * (1 - 1e-12)
        assert fewest[n] == (int(reached.argmax()) if reached.any() else n + 1)


@pytest.mark.parametrize(("p0", "a"), [(0.5, 1.0), (0.05, 0.5)])
def test_no_more_than_alpha_false_alarms_with_a_look_after_every_try(p0: float, a: float) -> None:
    # 4,000 runs of 2,000 tries exactly at the edge. Bound: above .05 by chance with < 1e-6, as .025 to .035 is seen.
    rng = np.random.default_rng(3)
    events = (rng.random((4000, 2000)) < p0).cumsum(axis=1, dtype=np.int32)
    crossed = (events >= fewest_events(2000, p0, e=20, a=a)[1:]).any(axis=1)
    assert 0.01 < float(crossed.mean()) <= 0.05
