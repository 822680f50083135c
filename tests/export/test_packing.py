"""Several inputs in one row. Catches: an input lost or doubled, a row longer than its length, arrays that say another
place than the plan, logits handed to another input."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from test_encoding import tokenizer

from headrace.checkpoints import packing
from headrace.checkpoints.encoding import Window

lengths_of_any = st.lists(st.integers(1, 200), max_size=120)


@given(lengths_of_any, st.integers(16, 2048))
def test_every_window_is_in_one_row_that_holds_it(lengths: list[int], batch_tokens: int) -> None:
    batches = packing.pack(lengths, batch_tokens=batch_tokens)
    assert sorted(number for batch in batches for number in batch.windows) == list(range(len(lengths)))
    for batch in batches:
        assert all(0 < sum(lengths[number] for number in row) <= batch.n_tokens for row in batch.rows)
        assert len(batch.rows) * batch.n_tokens <= batch_tokens or len(batch.rows) == 1


@given(st.lists(st.integers(2, 60), min_size=32, max_size=200))
def test_little_is_padding(lengths: list[int]) -> None:
    batches = packing.pack(lengths, batch_tokens=10**6)
    room = sum(len(batch.rows) * batch.n_tokens for batch in batches)
    # first fit of the longest first needs 11/9 of the fewest rows, and one more row may be nearly empty
    assert room <= 11 / 9 * sum(lengths) + 2 * 64 + 64 * sum(length > 32 for length in lengths)


@given(st.lists(st.integers(0, 16), min_size=1, max_size=30), st.integers(0, 2))
def test_the_arrays_say_where_each_window_lies(n_words: list[int], first: int) -> None:
    made = tokenizer()
    made.no_padding()
    windows = [Window(i, 0, made.encode(" ".join(["a"] * n))) for i, n in enumerate(n_words)]
    names = ["input_ids", "segments", "position_ids", "starts"]
    for batch in packing.pack([len(w) for w in windows], batch_tokens=256):
        feed = packing.feed(batch, windows, names, pad_id=3, first_position=first)
        flat = {name: array.reshape(-1) for name, array in feed.items()}
        n_own = len(batch.windows)
        assert len(feed["starts"]) % 8 == 0 <= len(feed["starts"]) - n_own < 8
        for start, number in zip(feed["starts"][:n_own], batch.windows, strict=True):
            part = slice(start, start + len(windows[number]))
            assert flat["input_ids"][part].tolist() == windows[number].encoding.ids
            assert flat["position_ids"][part].tolist() == list(range(first, first + len(windows[number])))
            assert len(set(flat["segments"][part])) == 1
        own = [segment for row in feed["segments"] for segment in np.unique(row[row > 0])]
        assert len(own) == len(batch.windows)
        assert (feed["input_ids"][feed["segments"] == 0] == 3).all()


@given(lengths_of_any)
def test_logits_go_back_to_their_windows(lengths: list[int]) -> None:
    windows = [range(n) for n in lengths]  # all that is asked of a window is its length
    for batch in packing.pack(lengths, batch_tokens=512):
        by_window = np.full((batch.n_places, 1), -1)
        by_window[: len(batch.windows), 0] = batch.windows
        found = list(packing.unpack(batch, windows, by_window, by_window=True))  # type: ignore
        assert [n for n, _ in found] == batch.windows == [own[0] for _, own in found]
        by_token = np.full((len(batch.rows), batch.n_tokens, 1), -1)
        for row, numbers in enumerate(batch.rows):
            at = 0
            for number in numbers:
                by_token[row, at : at + lengths[number]] = number
                at += lengths[number]
        for number, own in packing.unpack(batch, windows, by_token, by_window=False):  # type: ignore
            assert own.shape == (lengths[number], 1)
            assert (own == number).all()
