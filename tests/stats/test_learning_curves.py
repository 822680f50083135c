"""Learning curves. Catches: a law that is not found though it is there, intervals that do not hold what comes, a
forecast from too few points, one that knows the far future as well as the near one."""

import numpy as np
import pytest

from headrace.stats import learning_curves as curves

SIZES = np.repeat([100, 200, 400, 800], 3)


def law(sizes: np.ndarray, floor: float, scale: float, power: float) -> np.ndarray:
    return np.asarray(floor + scale * np.asarray(sizes, dtype=float) ** -power)


def test_points_on_a_law_are_continued() -> None:
    found = curves.fit(SIZES, law(SIZES, 0.05, 2.0, 0.5))
    assert found is not None
    for n in (1600, 3200):
        forecast = curves.forecast(found, n, seed=0)
        assert forecast.estimate == pytest.approx(float(law(np.array([n]), 0.05, 2.0, 0.5)[0]), abs=0.01)


@pytest.mark.parametrize(
    ("floor", "scale", "power"), [(0.05, 2.0, 0.5), (0.0, 1.0, 0.3), (0.2, 0.8, 0.4), (0.1, 5.0, 0.9)]
)
def test_forecasts_hold_what_comes(floor: float, scale: float, power: float) -> None:
    # .9 by name; the target of the design is .8, and 60 runs of .9 stay below .7 with chance 2e-5
    rng, held = np.random.default_rng(0), 0
    for i in range(60):
        seen = law(SIZES, floor, scale, power) + rng.normal(0, 0.01, len(SIZES))
        found = curves.fit(SIZES, seen)
        assert found is not None
        forecast = curves.forecast(found, 3200, seed=i)
        held += forecast.low <= law(np.array([3200]), floor, scale, power)[0] <= forecast.high
    assert held >= 42


def test_the_interval_grows_with_the_distance_and_with_the_noise() -> None:
    rng = np.random.default_rng(1)
    widths = []
    for noise in (0.002, 0.03):
        found = curves.fit(SIZES, law(SIZES, 0.05, 2.0, 0.5) + rng.normal(0, noise, len(SIZES)))
        assert found is not None
        near, far = (curves.forecast(found, n, seed=0) for n in (1000, 20_000))
        assert (far.high - far.low) > (near.high - near.low)
        widths.append(near.high - near.low)
    assert widths[1] > 2 * widths[0]


def test_too_few_sizes_give_no_law() -> None:
    assert curves.fit([100, 200, 200, 400], [0.3, 0.25, 0.26, 0.2]) is None


def test_a_flat_curve_gains_nothing_more() -> None:
    rng = np.random.default_rng(2)
    found = curves.fit(SIZES, 0.2 + rng.normal(0, 0.003, len(SIZES)))
    assert found is not None
    gain = curves.gain(found, 800, 1600, seed=0)
    assert gain.estimate == pytest.approx(0, abs=0.01)
    assert gain.low <= 0.005
    steep = curves.fit(SIZES, law(SIZES, 0.02, 3.0, 0.5))
    assert steep is not None
    expected = float(-np.diff(law(np.array([800, 1600]), 0.02, 3.0, 0.5))[0])
    assert curves.gain(steep, 800, 1600, seed=0).estimate == pytest.approx(expected, abs=0.008)


def test_a_channel_that_starts_from_what_others_taught_it_is_no_surprise() -> None:
    # Rows of others are worth 300 of its own.
    found = curves.fit(SIZES, law(SIZES + 300, 0.05, 2.0, 0.5))
    assert found is not None
    forecast = curves.forecast(found, 3200, seed=0)
    assert forecast.low <= law(np.array([3500]), 0.05, 2.0, 0.5)[0] <= forecast.high


def test_the_same_seed_gives_the_same_forecast() -> None:
    found = curves.fit(SIZES, law(SIZES, 0.1, 1.0, 0.4))
    assert found is not None
    assert curves.forecast(found, 5000, seed=3) == curves.forecast(found, 5000, seed=3)
    one, mean = (curves.forecast(found, 900, seed=3, n_repeats=n) for n in (1, 100))
    assert one.high - one.low > mean.high - mean.low
