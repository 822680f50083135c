"""Rates and quotas. Catches: more than a limit lets through in some window, less than it allows, a wait that is
negative or too short, a budget that two names share, rows of yesterday that count today."""

import math
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from headrace.access.limits import Buckets, Days, Rate, midnight_in_s

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
rates = st.builds(Rate.over, st.floats(0.01, 1000, allow_nan=False), st.floats(0.001, 100, allow_nan=False))
steps = st.lists(st.one_of(st.just(0.0), st.floats(0, 0.01), st.floats(0, 30)), min_size=1, max_size=150)


@given(rate=rates, steps=steps)
def test_no_window_holds_more_than_rate_times_its_length_and_the_burst(rate: Rate, steps: list[float]) -> None:
    buckets, now, taken = Buckets(), 1000.0, []
    for step in steps:
        now += step
        if not buckets.wait_s("key", rate, now):
            buckets.take("key", rate, now)
            taken.append(now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            n, seconds = last - first + 1, taken[last] - taken[first]
            assert n <= rate.per_s * (seconds + 2e-6) + rate.burst + 1e-6


@given(rate=rates, steps=steps)
def test_whoever_waits_as_told_is_let_in_and_nobody_waits_longer_than_for_one_token(
    rate: Rate, steps: list[float]
) -> None:
    buckets, now = Buckets(), 1000.0
    for step in steps:
        now += step
        wait_s = buckets.wait_s("key", rate, now)
        assert 0 <= wait_s <= 1 / rate.per_s + 1e-6
        assert buckets.wait_s("key", rate, now + wait_s + 1e-6) == 0
        left = buckets.standing("key", rate, now)
        assert left.left == 0 if wait_s > 1e-6 else left.left <= math.floor(rate.burst)
        assert left.full_in_s >= 0
        now += wait_s + 1e-6
        buckets.take("key", rate, now)


def test_after_a_rest_the_whole_burst_is_there_and_no_more() -> None:
    buckets, rate = Buckets(), Rate.over(10, burst_s=2)
    for at in (0.0, 1000.0):
        n = 0
        while not buckets.wait_s("key", rate, at):
            buckets.take("key", rate, at)
            n += 1
        assert n == 20
        assert buckets.standing("key", rate, at).left == 0
        assert buckets.standing("key", rate, at).full_in_s == 2
    assert Rate.over(0.01, burst_s=1).burst == 1  # a rate so low that nobody could ever ask is none


def test_names_have_buckets_of_their_own() -> None:
    buckets, rate = Buckets(), Rate(1, 1)
    buckets.take(("key", "predict"), rate, 0)
    assert buckets.wait_s(("key", "predict"), rate, 0) == 1
    assert buckets.wait_s(("key", "feedback"), rate, 0) == 0


def test_a_clock_that_stands_still_lets_the_burst_through_and_nothing_else() -> None:
    buckets, rate = Buckets(), Rate(5, 3)
    n = 0
    for _ in range(100):
        if not buckets.wait_s("key", rate, 7.0):
            buckets.take("key", rate, 7.0)
            n += 1
    assert n == 3


@given(
    st.lists(st.tuples(st.integers(1, 50), st.booleans(), st.booleans()), max_size=60),
    st.integers(1, 200),
)
def test_rows_under_way_count_until_it_is_known_what_became_of_them(
    requests: list[tuple[int, bool, bool]], limit: int
) -> None:
    """Requests that overlap in any way never have more rows answered than the limit, and failed ones use none up."""
    days, open_, answered = Days(), [], 0
    days.begin(NOON, {})
    for n_rows, is_answered, ends_one in requests:
        if days.used("key") + n_rows <= limit:
            days.admit("key", n_rows)
            open_.append((n_rows, is_answered))
        if ends_one and open_:
            n, was_answered = open_.pop(0)
            days.settle("key", n, n if was_answered else 0)
            answered += n if was_answered else 0
    for n, was_answered in open_:
        days.settle("key", n, n if was_answered else 0)
        answered += n if was_answered else 0
    assert days.used("key") == answered <= limit


def test_a_day_begins_with_what_the_store_knows_and_keeps_what_is_under_way() -> None:
    days = Days()
    assert not days.is_of(NOON)
    days.begin(NOON, {"key": 70})
    days.admit("key", 5)
    assert days.used("key") == 75
    assert days.is_of(NOON + timedelta(hours=11, minutes=59))
    assert not days.is_of(NOON + timedelta(hours=12))
    days.begin(NOON + timedelta(hours=12), {})
    assert days.used("key") == 5
    days.settle("key", 5, 5)
    assert days.used("key") == 5


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1)))
def test_midnight_is_always_ahead(now: datetime) -> None:
    seconds = midnight_in_s(now)
    assert 0 < seconds <= 86400
    assert (now + timedelta(seconds=seconds)).date() == now.date() + timedelta(days=1)
