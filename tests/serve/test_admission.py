"""Who may join the queue. Catches: a channel that shuts out the others, work that comes too late, an idle server that
refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.serve.admission import Refusal, Waiting, refusal, wait_s

LIMIT = 100


def asked(
    n_rows: int, *, waiting: int, own: int, channels: int = 1, rows_per_s: float | None = None, left_s: float = 30.0
) -> Refusal | None:
    facts = Waiting(waiting, own, channels, rows_per_s)
    return refusal(facts, n_rows, limit=LIMIT, time_left_s=left_s, background=False)


@pytest.mark.parametrize(
    ("n_rows", "facts", "expected"),
    [
        (1000, {"waiting": 0, "own": 0}, None),
        (1000, {"waiting": 0, "own": 0, "rows_per_s": 1.0}, None),
        (10, {"waiting": 70, "own": 70}, None),
        (11, {"waiting": 70, "own": 70}, "full"),
        (20, {"waiting": 80, "own": 0, "channels": 2}, None),
        (21, {"waiting": 80, "own": 0, "channels": 2}, "full"),
        (1, {"waiting": 90, "own": 50, "channels": 2}, "share"),
        (1, {"waiting": 49, "own": 9, "channels": 10}, None),
        (1, {"waiting": 50, "own": 10, "channels": 10}, "share"),
        (1, {"waiting": 50, "own": 50, "rows_per_s": 10.0, "left_s": 1.0}, "late"),
        (1, {"waiting": 50, "own": 50, "rows_per_s": 100.0, "left_s": 1.0}, None),
        (1, {"waiting": 50, "own": 0, "channels": 2, "rows_per_s": 10.0, "left_s": 1.0}, None),
    ],
)
def test_who_is_refused_and_why(n_rows: int, facts: dict[str, float], expected: str | None) -> None:
    assert asked(n_rows, **facts) == expected  # type: ignore[arg-type]


def test_background_rows_fill_half_of_the_queue() -> None:
    facts = Waiting(40, 40, 1, None)
    assert refusal(facts, 10, limit=LIMIT, time_left_s=30, background=True) is None
    assert refusal(facts, 11, limit=LIMIT, time_left_s=30, background=True) == "full"


@given(st.integers(1, 80), st.integers(1, 20))
def test_a_newcomer_finds_room_whatever_one_channel_has_sent(n_sent: int, n_rows: int) -> None:
    held = 0
    for _ in range(n_sent):
        held += 1 if asked(1, waiting=held, own=held) is None else 0
    assert asked(n_rows, waiting=held, own=0, channels=2) is None


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 9), st.integers(1, 50))
def test_nobody_waits_longer_than_for_all_rows(own: int, others: int, channels: int, n_rows: int) -> None:
    waiting = Waiting(own + others, own, channels, 10.0)
    assert 0 < wait_s(waiting, n_rows) <= (own + others + n_rows) / 10
