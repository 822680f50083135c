"""What waits in the worker, and which of it goes into the next batch.

A batch is padded to its longest text, so it takes texts of like length up to a budget of padded tokens. There is no
fixed wait: an idle worker takes the first row at once, a busy one finds company for it.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace.records import Input

_BYTES_PER_TOKEN = 4  # word pieces of English hold 4 to 5 bytes, a CJK character (3 bytes) is one piece
_SPECIAL_TOKENS = 2


@dataclass(frozen=True, eq=False, slots=True)
class Row:
    """One input on its way through the worker."""

    request: int
    place: int
    input: Input
    n_tokens: int
    model: Any
    """The loaded model; a row keeps it alive, so that unloading never drops a waiting row."""
    background: bool = False


def estimate_tokens(given: Input, max_tokens: int) -> int:
    """About how many tokens an input takes. Only the batch's size hangs on it, never an answer."""
    text = given if isinstance(given, str) else "".join(given)
    n_bytes = len(text.encode("utf-8", "surrogatepass"))
    return min(max_tokens, _SPECIAL_TOKENS + -(-n_bytes // _BYTES_PER_TOKEN))


def pick(waiting: Sequence[Row], budget: int) -> list[Row]:
    """The next batch out of rows in order of arrival: never empty, one model, padded tokens within `budget`.

    The oldest row that somebody waits for is always in it, so no row starves; background rows go when none is.
    A single row longer than the budget goes alone.
    """
    first = next((row for row in waiting if not row.background), waiting[0])
    alike = [row for row in waiting if row.model is first.model and row is not first]
    alike.sort(key=lambda row: abs(row.n_tokens - first.n_tokens))
    batch, longest = [first], first.n_tokens
    for row in alike:
        longest_then = max(longest, row.n_tokens)
        if longest_then * (len(batch) + 1) > budget:
            break
        batch.append(row)
        longest = longest_then
    return batch


class Batcher:
    """Rows between the thread that reads requests and the thread that answers them."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._waiting: list[Row] = []
        self._changed = threading.Condition()

    def put(self, rows: Sequence[Row]) -> None:
        with self._changed:
            self._waiting += rows
            self._changed.notify()

    def take(self) -> list[Row]:
        """Wait for rows and take the next batch."""
        with self._changed:
            while not self._waiting:
                self._changed.wait()
            batch = pick(self._waiting, self._budget)
            taken = {id(row) for row in batch}
            self._waiting = [row for row in self._waiting if id(row) not in taken]
            return batch

    def drop(self, request: int) -> None:
        """Forget the rows of a request that nobody waits for any more."""
        with self._changed:
            self._waiting = [row for row in self._waiting if row.request != request]
