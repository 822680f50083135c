"""The soak in small. Catches: a soak that would not notice what it is for, a mix of everything that fails at once."""

import asyncio

import pytest

from bench import soak

SECONDS = 8.0


@pytest.mark.slow
def test_a_mix_of_everything_fails_nobody() -> None:
    with soak.serving_a_bank() as (server, ws):
        rows = {row.what: row for row in asyncio.run(soak.Soak(server, ws, rate=20, swap_every_s=1).last(SECONDS))}
        assert server.figure("artifact_loads") == len(server.worker_pids())
    assert rows["failed"].value == 0
    assert rows["requests"].value > 80
    assert rows["acknowledged writes"].value >= rows["feedback"].value
    assert (rows["acknowledged writes that are lost"].value, rows["broken chains"].value) == (0, 0)
    assert rows["feedback"].value > 0
    assert rows["swaps"].value >= 4
    assert rows["looks at which it was not ready"].value == 0
    assert {what for what in rows if what.startswith("slope of ")} == {
        f"slope of {what}{part}"
        for part in ("", ", warm-up included")
        for what in ("memory of the server", "memory of the workers", "open files", "threads", "disk")
    }


def test_a_slope_is_that_of_what_comes_after_the_warm_up() -> None:
    seen = soak.Samples(at_s=[float(second) for second in range(600)])
    leak = [100.0 * min(second, 60) + second * 2.0 for second in range(600)]  # a start, then 2 a second
    slope, low, high = seen.per_hour(leak)
    assert slope == pytest.approx(7200)
    assert low <= slope <= high
    assert seen.per_hour([5.0] * 600) == (0, 0, 0)
