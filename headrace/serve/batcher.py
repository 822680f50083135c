"""What waits in the worker, and which of it goes into the next batch.

Rows wait in the order in which they are due a turn: channels take turns by tokens, so a channel that sends twenty times
as much delays the others no more than one that sends as much as they do. Within a channel the order is that of arrival.
(Self-clocked fair queueing: S. Golestani, INFOCOM 1994.)

A batch takes rows up to a budget of tokens: as they come where the model has several in one row, else those of like
length, since it is padded to its longest. There is no fixed wait: an idle worker takes the first row at once, a busy
one finds company for it. Beside a channel that has most of what waits, a batch is also short in time, since whoever
comes next waits for it.
"""

import math
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.records import Input

_BYTES_PER_TOKEN = 4  # word pieces of English hold 4 to 5 bytes, a CJK character (3 bytes) is one piece
_SPECIAL_TOKENS = 2
_TURN_S = 0.02  # of a batch beside a channel that floods: who comes next waits for one, and is in another
_FEW_TOKENS = 64  # a batch of fewer wastes the processor
_COMPANY_S = 2.0  # how long a channel counts after its last row
_FORGETS = 0.99  # of the best rate, at each batch
_NO_TIME_S = 0.001  # no model answers in less, so a row with less time left is late already


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
    channel: str = ""
    """Whose turn it uses up."""
    arrived_at: float = 0.0
    deadline: float = math.inf
    """On the monotonic clock of this process; nobody wants the answer after it."""
    adapter: Any = None
    """The channel adapter that answers; a row keeps it alive too."""
    is_packed: bool = False
    """Whether the model has several inputs in one row."""


def estimate_tokens(given: Input, max_tokens: int) -> int:
    """About how many tokens an input takes. Only the batch's size hangs on it, never an answer."""
    text = given if isinstance(given, str) else "".join(given)
    n_bytes = len(text.encode("utf-8", "surrogatepass"))
    return min(max_tokens, _SPECIAL_TOKENS + -(-n_bytes // _BYTES_PER_TOKEN))


def pick(waiting: Sequence[Row], budget: int) -> list[Row]:
    """The next batch out of rows in order of their turns: never empty, one model, tokens within `budget`.

    The first row that somebody waits for is always in it, so no row starves; background rows go when none is.
    A single row longer than the budget goes alone.
    """
    first = next((row for row in waiting if not row.background), waiting[0])
    alike = [row for row in waiting if row.model is first.model and row is not first]
    if first.is_packed:
        return _in_turn(first, alike, budget)
    alike.sort(key=lambda row: abs(row.n_tokens - first.n_tokens))
    batch, longest = [first], first.n_tokens
    for row in alike:
        longest_then = max(longest, row.n_tokens)
        if longest_then * (len(batch) + 1) > budget:
            break
        batch.append(row)
        longest = longest_then
    return batch


def _in_turn(first: Row, others: Sequence[Row], budget: int) -> list[Row]:
    batch, n_tokens = [first], first.n_tokens
    for row in others:
        n_tokens += row.n_tokens
        if n_tokens > budget:
            break
        batch.append(row)
    return batch


class Batcher:
    """Rows between the thread that reads requests and the threads that answer them."""

    def __init__(self, budget: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget, self._clock = budget, clock
        self._waiting: list[Row] = []
        self._turns: list[tuple[bool, int]] = []
        """Of each waiting row, in rising order: whether it is background, and the turn it is due."""
        self._turn = 0
        self._last_turns: dict[str, int] = {}
        self._last_seen: dict[str, float] = {}
        """When each channel asked last."""
        self._tokens_per_s = 0.0
        """The most that a batch did lately."""
        self._changed = threading.Condition()
        self.n_expired = 0
        """Rows that were given up because their deadline had passed."""

    def put(self, rows: Sequence[Row]) -> None:
        with self._changed:
            now = self._clock()
            for row in rows:
                if not row.background:
                    self._last_seen[row.channel] = now
                turn = max(self._turn, self._last_turns.get(row.channel, 0)) + row.n_tokens
                self._last_turns[row.channel] = turn
                place = bisect_right(self._turns, (row.background, turn))
                self._turns.insert(place, (row.background, turn))
                self._waiting.insert(place, row)
            self._changed.notify()

    def take(self, timeout_s: float | None = None) -> list[Row]:
        """Wait for rows and take the next batch, without those whose deadline has passed; empty after `timeout_s`."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting), timeout_s)
            self._expire()
            if not self._waiting:
                return []
            batch = pick(self._waiting, self._budget_now())
            taken = {id(row) for row in batch}
            turns = zip(self._turns, self._waiting, strict=True)
            wanted = (turn for (background, turn), row in turns if id(row) in taken and not background)
            self._turn = max(wanted, default=self._turn)
            self._keep(lambda row: id(row) not in taken)
            if self._waiting:  # `put` wakes one thread for all rows of a request
                self._changed.notify()
            return batch

    def note(self, n_tokens: int, seconds: float) -> None:
        """What the last batch took."""
        with self._changed:
            self._tokens_per_s = max(_FORGETS * self._tokens_per_s, n_tokens / max(seconds, _NO_TIME_S))

    def _budget_now(self) -> int:
        """Tokens of the next batch: few where one channel has most of what waits, and others come too."""
        since = self._clock() - _COMPANY_S
        self._last_seen = {channel: at for channel, at in self._last_seen.items() if at > since}
        few = max(_FEW_TOKENS, round(self._tokens_per_s * _TURN_S))
        waiting = Counter(row.channel for row in self._waiting)
        is_alone = len(self._last_seen.keys() | waiting.keys()) < 2  # one that floods may be refused for long
        if is_alone or not self._tokens_per_s or max(waiting.values()) <= len(self._waiting) / 2:
            return self._budget
        return min(self._budget, few)

    def drop(self, request: int) -> None:
        """Forget the rows of a request that nobody waits for any more."""
        with self._changed:
            self._keep(lambda row: row.request != request)

    def _expire(self) -> None:
        """Give up what comes too late."""
        soon = self._clock() + _NO_TIME_S
        if n_late := sum(row.deadline <= soon for row in self._waiting):
            self._keep(lambda row: row.deadline > soon)
            self.n_expired += n_late

    def _keep(self, wanted: Callable[[Row], bool]) -> None:
        kept = [(turn, row) for turn, row in zip(self._turns, self._waiting, strict=True) if wanted(row)]
        self._turns, self._waiting = [turn for turn, _ in kept], [row for _, row in kept]
        if not kept:  # nobody is owed anything any more
            self._turn, self._last_turns = 0, {}
