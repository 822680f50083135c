"""Several inputs in one row of a model: where each lies, and the arrays that say so.

A batch of rows of one length holds windows behind each other. Tokens attend within their own window only, and positions
begin anew in each, so a window's logits are those it has alone. Online batches cannot be sorted by length; packed, they
hold next to no padding all the same. Source: Krell et al. 2021, "Efficient Sequence Packing without
Cross-contamination", arXiv 2107.02027.

Dimensions: R rows, L tokens of a row, S windows of the fullest row, N windows of a batch rounded up.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headrace.checkpoints.encoding import Feed, Window, round_up, values
from headrace.tasks import FloatArray

NAMES = frozenset({"input_ids", "position_ids", "token_type_ids", "segments", "starts"})
"""Inputs of a packed graph that say what the tokens are and where; it may have others."""
_ROW_TOKENS = 64  # of a row, unless its window is longer: attention among so many is 3 % of a small model's work
_MULTIPLE = 8  # lengths are rounded up to this: fewer shapes, so fewer kernels to make on first use


@dataclass(frozen=True)
class Batch:
    """Windows by row: `rows[r]` are their numbers, in the order they lie in."""

    rows: list[list[int]]
    n_tokens: int
    """L."""

    @property
    def windows(self) -> list[int]:
        """Numbers of all windows, row after row."""
        return [number for row in self.rows for number in row]

    @property
    def n_places(self) -> int:
        """N: what a graph is told of each window has as many places, the last ones for nobody."""
        return round_up(sum(map(len, self.rows)), _MULTIPLE)


def pack(lengths: Sequence[int], *, batch_tokens: int) -> list[Batch]:
    """Windows in batches of R x L tokens, `batch_tokens` at most unless one window alone is longer.

    First fit of the longest first, into rows as long as the longest window of their batch, or 64.
    """
    waiting = [int(i) for i in np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")]
    batches = []
    while waiting:
        n_tokens = _row_tokens(lengths, waiting)
        rows, left = _filled(lengths, waiting, n_tokens, max(1, batch_tokens // n_tokens))
        batches.append(Batch(rows, n_tokens))
        waiting = left
    return batches


def _row_tokens(lengths: Sequence[int], waiting: Sequence[int]) -> int:
    """L for a batch that holds the longest of `waiting`: not longer than all of them together."""
    longest = max(1, lengths[waiting[0]])
    if longest >= _ROW_TOKENS:
        return round_up(longest, _MULTIPLE)
    total = 0
    for number in waiting:
        total += lengths[number]
        if total >= _ROW_TOKENS:
            return _ROW_TOKENS
    return round_up(max(1, total), _MULTIPLE)


def _filled(
    lengths: Sequence[int], waiting: Sequence[int], n_tokens: int, n_rows: int
) -> tuple[list[list[int]], list[int]]:
    """Rows of `n_tokens`, at most `n_rows`, and the windows that found no room."""
    rows: list[list[int]] = []
    by_room: list[list[int]] = [[] for _ in range(n_tokens + 1)]  # room to rows that have so much
    left = []
    for number in waiting:
        length = lengths[number]
        room = next((room for room in range(length, n_tokens + 1) if by_room[room]), None)
        if room is not None:
            row = by_room[room].pop()
        elif len(rows) < n_rows:
            rows.append([])
            row, room = len(rows) - 1, n_tokens
        else:
            left.append(number)
            continue
        rows[row].append(number)
        by_room[room - length].append(row)
    return rows, left


def feed(batch: Batch, windows: Sequence[Window], names: Sequence[str], *, pad_id: int, first_position: int) -> Feed:
    """Arrays for those inputs `names` of a packed graph that are in NAMES, int64.

    input_ids, position_ids, token_type_ids (R, L); segments (R, L): 1 to S, 0 where padded; starts (N,): where each
    window begins, counted through all rows.

    Args:
        first_position: of a window; 0, or what the model family counts from.
    """
    shape = (len(batch.rows), batch.n_tokens)
    arrays: Feed = {name: np.zeros(shape, dtype=np.int64) for name in NAMES.intersection(names) - {"starts"}}
    if pad_id and "input_ids" in arrays:
        arrays["input_ids"].fill(pad_id)
    starts: list[int] = []
    for row, numbers in enumerate(batch.rows):
        at = 0
        for segment, number in enumerate(numbers, start=1):
            window = windows[number]
            end = at + len(window)
            starts.append(row * batch.n_tokens + at)
            for name, array in arrays.items():
                array[row, at:end] = _value(name, window, segment, first_position)
            at = end
    if "starts" in names:
        arrays["starts"] = np.zeros(batch.n_places, dtype=np.int64)
        arrays["starts"][: len(starts)] = starts
    return arrays


def _value(name: str, window: Window, segment: int, first_position: int) -> Any:
    if name == "segments":
        return segment
    if name == "position_ids":
        return np.arange(first_position, first_position + len(window))
    return values(window.encoding, name)


def unpack(
    batch: Batch, windows: Sequence[Window], logits: FloatArray, *, by_window: bool
) -> Iterator[tuple[int, FloatArray]]:
    """Each window's number with its logits, out of those of a batch.

    Args:
        logits: (N, K) in the order of `batch.windows` where `by_window`, else (R, L, K).
    """
    if by_window:
        own = batch.windows
        yield from zip(own, logits[: len(own)], strict=True)
        return
    for row, numbers in enumerate(batch.rows):
        at = 0
        for number in numbers:
            end = at + len(windows[number])
            yield number, logits[row, at:end]
            at = end
