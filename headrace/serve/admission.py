"""Whether a request may join the queue: pure, from what waits, what the workers do in a second, and its deadline.

A queue that is longer than its deadlines does work that nobody waits for any more, so a request that cannot be answered
in time is refused at once, while its client can still go elsewhere. One channel never fills the queue: what others may
want is kept for them, and while others wait, a channel has an equal share.
"""

from dataclasses import dataclass
from typing import Literal

_ALONE_SHARE = 0.8  # of the queue, for one channel: the rest is kept for those who come later
_BACKGROUND_SHARE = 0.5  # of the queue: what background rows may fill, so that they never crowd out a user
_SPARE_SHARE = 0.8  # of the time left: what is expected to take longer comes too late once in a while

Refusal = Literal["full", "share", "late"]
"""Why a request may not join: the queue is full, its channel has more than its share, it would be late."""


@dataclass(frozen=True)
class Waiting:
    """What waits at one moment."""

    n_rows: int
    """Sent and not yet answered."""
    n_own_rows: int
    """Of them, those of the channel that asks."""
    n_channels: int
    """With rows that wait, the one that asks included."""
    rows_per_s: float | None
    """What all workers together answer when busy; None: not known yet."""


def refusal(waiting: Waiting, n_rows: int, *, limit: int, time_left_s: float, background: bool) -> Refusal | None:
    """Why `n_rows` more rows of a channel may not join the queue of at most `limit`; None: they may.

    An idle server takes any request, however long.
    """
    if waiting.n_rows == 0:
        return None
    n_then, n_own_then = waiting.n_rows + n_rows, waiting.n_own_rows + n_rows
    if background:
        return "full" if n_then > limit * _BACKGROUND_SHARE else None
    others_wait = waiting.n_channels > 1
    if n_own_then > (limit / waiting.n_channels if others_wait else limit * _ALONE_SHARE):
        return "share" if others_wait else "full"
    if n_then > limit:
        return "full"
    return "late" if wait_s(waiting, n_rows) > time_left_s * _SPARE_SHARE else None


def wait_s(waiting: Waiting, n_rows: int) -> float:
    """About how long until `n_rows` more rows of the channel are answered; 0 when nothing is known.

    Channels take turns, so a channel waits for its own rows as often as there are channels, and never for more rows
    than there are.
    """
    if not waiting.rows_per_s:
        return 0.0
    turns = (waiting.n_own_rows + n_rows) * waiting.n_channels
    return min(waiting.n_rows + n_rows, turns) / waiting.rows_per_s
