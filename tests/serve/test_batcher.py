"""Batches. Catches: a lost, doubled or starved row, a batch beyond its budget, two models in one batch."""

import threading

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
