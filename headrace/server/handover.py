"""What a thread finished, handed to the event loop: all of a group at one wake-up.

`asyncio.wrap_future` wakes the loop for every future, by a system call that lets the loop's thread in between; of a
group of writes that is most of what their acknowledgement costs, and of a batch of answers much of their wait.
"""

import asyncio
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Any


class Handover:
    """Futures of threads as futures of the running loop."""

    def __init__(self) -> None:
        self._done: deque[tuple[asyncio.Future[Any], Future[Any]]] = deque()
        self._is_woken = False

    def awaited(self, written: "Future[Any]") -> "asyncio.Future[Any]":
        """A future of the running loop that ends as `written` does; cancelling it cancels `written`, if that can be."""
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[Any] = loop.create_future()
        mine.add_done_callback(lambda ended: written.cancel() if ended.cancelled() else None)
        written.add_done_callback(partial(self._note, loop, mine))
        return mine

    def _note(self, loop: asyncio.AbstractEventLoop, mine: "asyncio.Future[Any]", written: "Future[Any]") -> None:
        """Called by the thread that finished it."""
        self._done.append((mine, written))
        if not self._is_woken and not loop.is_closed():
            self._is_woken = True
            loop.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        self._is_woken = False  # first: what is finished from here on wakes the loop again
        while self._done:
            mine, written = self._done.popleft()
            if mine.done():
                continue
            if written.cancelled():
                mine.cancel()
            elif (error := written.exception()) is not None:
                mine.set_exception(error)
            else:
                mine.set_result(written.result())
