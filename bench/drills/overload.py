"""R12 and R13: more than the workers can do. What is answered in time, who is refused and how soon, and does it come
back by itself when the crowd is gone, though the crowd tries again and again?"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.drills import Figure, served
from bench.drills.asking import Asker, Reply, arrivals, p99_ms, request

if TYPE_CHECKING:
    from stub_model import Server

_REFUSED = (429, 503)
_LATE = 504
_MAX_ATTEMPTS = 3
_WINDOW_S = 2.0
_SLACK = 2.0  # p99 of a window of few requests varies by as much


@dataclass(frozen=True)
class Size:
    """A crowd ten times as large as the server can answer, between two calm times."""

    deadline_ms: int = 2000
    times: float = 10.0
    calm_share: float = 0.7
    """Of what the server can do: the load before and after."""
    calm_s: float = 20.0
    crowd_s: float = 60.0
    after_s: float = 20.0
    pause_s: float = 1.0
    """Before the second try, about; twice that before the third."""


def run() -> list[Figure]:
    with served({"row_s": 0.02}, serve__batch_tokens=64) as server:
        return overload(server, Size())


def overload(server: "Server", size: Size) -> list[Figure]:
    """1x, then ten times what it can do, with clients that try three times, then 1x again."""
    return asyncio.run(_Crowd(server, size).come_and_go())


class _Crowd:
    def __init__(self, server: "Server", size: Size) -> None:
        self._server, self._size = server, size
        self._asker = Asker(server.url)
        self._rng = random.Random(7)
        self._depths: list[float] = []

    async def come_and_go(self) -> list[Figure]:
        size, calm, crowd, after = self._size, [], [], []  # type: ignore[var-annotated]
        peak = await self._peak(size.calm_s / 2)
        await arrivals(peak * size.calm_share, size.calm_s, lambda _: self._ask(calm))
        watching = asyncio.create_task(self._watch())
        began_at = time.monotonic()
        rushing = asyncio.create_task(
            arrivals(peak * size.times, size.crowd_s, lambda _: self._ask_again_and_again(crowd), seed=2)
        )
        await asyncio.sleep(size.crowd_s)
        ended_at = time.monotonic()
        watching.cancel()
        await arrivals(peak * size.calm_share, size.after_s, lambda _: self._ask(after), seed=3)
        await rushing  # those who tried once more
        self._asker.close()
        n_late_rows = await asyncio.to_thread(self._server.figure, "late_rows_total")
        during = [reply for reply in crowd if reply.sent_at < ended_at]
        return [
            Figure("it can do", peak, "requests/s"),
            Figure("attempts while overloaded", len(during) / (ended_at - began_at), "requests/s"),
            *self._useful(during, peak, ended_at - began_at),
            Figure("rows that waited, most", max(self._depths, default=0.0), "", at_most=5000),
            Figure("rows begun after their deadline", n_late_rows, "", at_most=0),
            Figure("all answered again after", _well_after_s(after, ended_at, float("inf")), "s", at_most=10),
            Figure("as fast as before after", _well_after_s(after, ended_at, _SLACK * p99_ms(calm)), "s", at_most=10),
        ]

    def _useful(self, during: Sequence[Reply], peak: float, seconds: float) -> list[Figure]:
        good = [reply for reply in during if reply.status == 200]
        refused = [reply for reply in during if reply.status in _REFUSED]
        n_odd = sum(reply.status not in (200, _LATE, *_REFUSED) for reply in during)
        return [
            Figure("answered, of what it can do", len(good) / seconds / peak, "x", at_least=0.85),
            Figure("answered: p99", p99_ms(good), "ms", at_most=self._size.deadline_ms),
            Figure("refused: p99", p99_ms(refused), "ms", at_most=50),
            Figure("refused without Retry-After", sum(not reply.says_when for reply in refused), "", at_most=0),
            Figure("neither answered, refused nor late", n_odd, "", at_most=0),
        ]

    async def _ask(self, replies: list[Reply]) -> Reply:
        headers = {"X-Request-Timeout-Ms": str(self._size.deadline_ms)}
        reply = await self._asker.post(request("positive"), headers=headers)
        replies.append(reply)
        return reply

    async def _ask_again_and_again(self, replies: list[Reply]) -> None:
        for attempt in range(_MAX_ATTEMPTS):
            if (await self._ask(replies)).status == 200:
                return
            await asyncio.sleep(self._size.pause_s * 2.0**attempt * self._rng.uniform(0.5, 1.5))

    async def _peak(self, seconds: float) -> float:
        """Requests a second where there is always something to do and nobody is refused."""
        n_done, began_at = 0, time.monotonic()

        async def in_turn() -> None:
            nonlocal n_done
            while time.monotonic() < began_at + seconds:
                reply = await self._asker.post(request("positive"))
                n_done += reply.status == 200

        await asyncio.gather(*(in_turn() for _ in range(16)))
        return n_done / (time.monotonic() - began_at)

    async def _watch(self) -> None:
        while True:
            self._depths.append(await asyncio.to_thread(self._server.figure, "queue_rows"))
            await asyncio.sleep(1)


def _well_after_s(after: Sequence[Reply], ended_at: float, limit_ms: float) -> float:
    """When the first window of time begins from which on everything is answered, p99 within `limit_ms`."""
    since_s = float("nan")
    for n in range(int(max(reply.sent_at for reply in after) - ended_at) // int(_WINDOW_S)):
        from_s = n * _WINDOW_S
        window = [reply for reply in after if from_s <= reply.sent_at - ended_at < from_s + _WINDOW_S]
        is_well = all(reply.status == 200 for reply in window) and not p99_ms(window) > limit_ms
        since_s = float("nan") if not is_well else from_s if since_s != since_s else since_s
    return since_s


def run_deadlines(n_requests: int = 10_000) -> list[Figure]:
    with served({"row_s": 0.002}, serve__batch_tokens=64) as server:
        return random_deadlines(server, n_requests, rate=700)


def random_deadlines(server: "Server", n_requests: int, *, rate: float) -> list[Figure]:
    """R13: more than it can do, each request with a deadline of its own."""
    return asyncio.run(_with_deadlines(server, n_requests, rate))


async def _with_deadlines(server: "Server", n_requests: int, rate: float) -> list[Figure]:
    asker, rng, replies = Asker(server.url), random.Random(1), []

    async def ask(_: int) -> None:
        headers = {"X-Request-Timeout-Ms": str(rng.randint(1, 800))}
        replies.append(await asker.post(request("positive"), headers=headers))

    await arrivals(rate, n_requests / rate, ask)
    asker.close()
    n_odd = sum(reply.status not in (200, _LATE, *_REFUSED) for reply in replies)
    n_late_rows, n_left = (server.figure(name) for name in ("late_rows_total", "queue_rows"))
    return [
        Figure("requests with deadlines of 1 to 800 ms", len(replies), ""),
        Figure("answered", sum(reply.status == 200 for reply in replies), ""),
        Figure("refused", sum(reply.status in _REFUSED for reply in replies), ""),
        Figure("late", sum(reply.status == _LATE for reply in replies), ""),
        Figure("neither answered, refused nor late", n_odd, "", at_most=0),
        Figure("rows begun after their deadline", n_late_rows, "", at_most=0),
        Figure("rows left in the queue", n_left, "", at_most=0),
    ]
