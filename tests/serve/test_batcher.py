"""Batches. Catches: a lost, doubled or starved row, a batch beyond its budget, two models in one batch."""

import random
import threading
import time
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headrace.serve.batcher import Batcher, Row, estimate_tokens, pick

MODELS = ["a", "b"]
rows = st.lists(st.tuples(st.integers(2, 300), st.sampled_from(MODELS), st.booleans()), min_size=1, max_size=60).map(
    lambda specs: [Row(0, place, "x", *spec) for place, spec in enumerate(specs)]
)


@given(rows, st.integers(16, 512))
def test_batches_take_every_row_once_within_the_budget(waiting: list[Row], budget: int) -> None:
    seen: list[int] = []
    while waiting:
        first = next((row for row in waiting if not row.background), waiting[0])
        batch = pick(waiting, budget)
        assert first in batch
        assert len({row.model for row in batch}) == 1
        assert len(batch) == 1 or max(row.n_tokens for row in batch) * len(batch) <= budget
        seen += [row.place for row in batch]
        waiting = [row for row in waiting if row not in batch]
    assert len(seen) == len(set(seen))


@given(rows)
def test_a_batch_holds_the_lengths_nearest_to_the_oldest_row(waiting: list[Row]) -> None:
    batch = pick(waiting, 256)
    first = batch[0]
    left_out = [row for row in waiting if row.model is first.model and row not in batch]
    farthest = max(abs(row.n_tokens - first.n_tokens) for row in batch)
    assert all(abs(row.n_tokens - first.n_tokens) >= farthest for row in left_out)


def test_an_idle_batcher_gives_the_first_row_at_once_and_then_all_that_gathered() -> None:
    batcher = Batcher(budget=1000)
    taken: list[list[Row]] = []
    thread = threading.Thread(target=lambda: taken.append(batcher.take()))
    thread.start()
    batcher.put([Row(1, 0, "x", 4, "a")])
    thread.join(5)
    assert [len(batch) for batch in taken] == [1]
    batcher.put([Row(2, 0, "x", 4, "a")])
    batcher.put([Row(3, 0, "x", 4, "a"), Row(3, 1, "x", 4, "a")])
    assert len(batcher.take()) == 3


def test_every_idle_thread_takes_part_in_one_large_request() -> None:
    batcher, together = Batcher(budget=4), threading.Barrier(4)  # one row a batch

    def loop() -> None:
        if batcher.take(10):
            together.wait(10)  # nobody else takes this one's share

    threads = [threading.Thread(target=loop) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(batcher._changed._waiters) < 4:  # type: ignore[attr-defined]
        time.sleep(0.001)
    batcher.put([Row(1, place, "x", 4, "a") for place in range(4)])
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)
    assert not together.broken


def test_dropped_requests_are_not_answered() -> None:
    batcher = Batcher(budget=1000)
    batcher.put([Row(1, 0, "x", 4, "a"), Row(2, 0, "x", 4, "a")])
    batcher.drop(1)
    assert [row.request for row in batcher.take()] == [2]


@given(st.text(max_size=2000), st.integers(8, 512))
def test_an_estimate_is_within_what_the_model_reads(text: str, max_tokens: int) -> None:
    assert 2 <= estimate_tokens(text, max_tokens) <= max_tokens


@given(st.integers(1, 40), st.integers(1, 10), st.integers(0, 30))
def test_a_channel_waits_for_its_turns_and_not_for_all_that_came_before(n_flood: int, n_few: int, n_later: int) -> None:
    batcher = Batcher(budget=4)  # one row a batch
    batcher.put([Row(1, place, "x", 4, "m", channel="flood") for place in range(n_flood)])
    batcher.put([Row(2, place, "x", 4, "m", channel="few") for place in range(n_few)])
    batcher.put([Row(3, place, "x", 4, "m", channel="flood") for place in range(n_later)])
    taken = [batcher.take(0)[0] for _ in range(n_flood + n_few + n_later)]
    last = max(i for i, row in enumerate(taken) if row.channel == "few")
    assert last <= 2 * n_few
    for channel in ("flood", "few"):
        own = [(row.request, row.place) for row in taken if row.channel == channel]
        assert own == sorted(own)


def test_a_channel_with_long_texts_gets_as_many_tokens_and_not_as_many_rows() -> None:
    batcher = Batcher(budget=4)
    batcher.put([Row(1, place, "x", 40, "m", channel="long") for place in range(20)])
    batcher.put([Row(2, place, "x", 4, "m", channel="short") for place in range(20)])
    first = [batcher.take(0)[0].channel for _ in range(22)]
    assert 18 <= first.count("short") <= 21


def test_background_rows_go_when_nothing_else_waits() -> None:
    batcher = Batcher(budget=4)
    batcher.put([Row(1, place, "x", 4, "m", background=True) for place in range(3)])
    batcher.put([Row(2, place, "x", 4, "m", channel="c") for place in range(3)])
    assert [batcher.take(0)[0].request for _ in range(6)] == [2, 2, 2, 1, 1, 1]


def test_rows_whose_time_is_over_are_never_taken() -> None:
    now = 10.0
    batcher = Batcher(budget=100, clock=lambda: now)
    batcher.put([Row(1, place, "x", 4, "m", deadline=11.0 + place) for place in range(3)])
    now = 12.0
    assert [row.place for row in batcher.take(0)] == [2]
    assert batcher.n_expired == 2
    batcher.put([Row(2, 0, "x", 4, "m", deadline=12.0005)])
    assert batcher.take(0) == []


def packed(channel: str, **facts: Any) -> Row:
    """A row of 25 tokens."""
    return Row(0, 0, "x", 25, "a", channel=channel, is_packed=True, **facts)


def p99_s_beside_a_flood(*, is_told: bool, row_s: float = 0.0015, seconds: float = 4) -> float:
    """How long rows of one channel take beside another that asks for three times what can be done.

    Args:
        is_told: whether the batcher hears what batches take.
    """
    rng, now = random.Random(1), 0.0
    batcher = Batcher(2048, clock=lambda: now)
    coming = sorted([*arrivals(rng, "few", 60, seconds), *arrivals(rng, "flood", 2000, seconds)], reverse=True)
    waiting = Counter[str]()
    took_s = []
    while coming or waiting.total():
        if not waiting.total():
            now = max(now, coming[-1][0])
        while coming and coming[-1][0] <= now:
            at, channel = coming.pop()
            if waiting[channel] < 200:  # the others are refused
                batcher.put([packed(channel, arrived_at=at)])
                waiting[channel] += 1
        batch = batcher.take(0)
        took = 0.002 + row_s * len(batch)
        now += took
        if is_told:
            batcher.note(sum(one.n_tokens for one in batch), took)
        waiting.subtract(one.channel for one in batch)
        took_s += [now - one.arrived_at for one in batch if one.channel == "few" and one.arrived_at > 1]
    return sorted(took_s)[int(len(took_s) * 0.99)]


def arrivals(rng: random.Random, channel: str, rate: float, seconds: float) -> list[tuple[float, str]]:
    at, found = 0.0, []
    while (at := at + rng.expovariate(rate)) < seconds:
        found.append((at, channel))
    return found


def test_batches_are_short_beside_a_flood() -> None:
    told = p99_s_beside_a_flood(is_told=True)
    assert told < 0.06  # two batches of 20 ms, and now and then a third
    assert told < p99_s_beside_a_flood(is_told=False) / 2


def test_batches_are_as_long_as_the_budget_where_nobody_floods() -> None:
    for channels in (["only"], ["a", "b", "c"]):
        batcher = Batcher(2048)
        batcher.note(100, 1.0)
        batcher.put([packed(channels[n % len(channels)]) for n in range(200)])
        assert len(batcher.take(0)) == 2048 // 25


def test_who_flooded_and_is_refused_now_still_gets_short_batches() -> None:
    now = 0.0
    batcher = Batcher(2048, clock=lambda: now)
    batcher.note(100, 1.0)
    batcher.put([packed("flood") for _ in range(200)])
    now = 10.0
    batcher.put([packed("few")])
    assert len(batcher.take(0)) == 64 // 25
