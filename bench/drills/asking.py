"""Requests over connections that are kept: what came back, how long it took, and arrivals that wait for nobody."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from bench.load import Connection

LOST = 0
"""Status of a request whose connection broke."""
_IDLE_S = 4.0  # the server closes idle connections after 5 s


class _Link(Connection):
    """A connection that keeps what was said last."""

    @property
    def said(self) -> bytes:
        return bytes(self._got)


@dataclass(frozen=True)
class Reply:
    """What one request got, and when. Times are on the monotonic clock."""

    status: int
    said: bytes
    sent_at: float
    took_s: float

    @property
    def body(self) -> Any:
        return json.loads(self.said.partition(b"\r\n\r\n")[2])

    @property
    def says_when(self) -> bool:
        """Whether a refusal says when to come back."""
        return b"\r\nretry-after:" in self.said.partition(b"\r\n\r\n")[0].lower()


class Asker:
    """As many connections to a server as are under way at once; each is used again while it is warm."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._free: list[tuple[_Link, float]] = []

    async def post(self, body: object, *, path: str = "/v1/predict", headers: Mapping[str, str] | None = None) -> Reply:
        """Ask once."""
        content = json.dumps(body).encode()
        given = {"Content-Type": "application/json", "Content-Length": str(len(content)), **(headers or {})}
        return await self._ask(f"POST {path}", given, content)

    async def get(self, path: str) -> Reply:
        return await self._ask(f"GET {path}", {}, b"")

    def close(self) -> None:
        for link, _ in self._free:
            link.close()
        self._free.clear()

    async def _ask(self, line: str, headers: Mapping[str, str], content: bytes) -> Reply:
        head = f"{line} HTTP/1.1\r\nHost: {self._url.netloc}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        sent_at = time.monotonic()
        link = None
        try:
            link = await self._link()
            status = await link.ask(head.encode() + b"\r\n" + content)
            said, ended_at = link.said, time.monotonic()
            self._free.append((link, ended_at))
            link = None
        except (OSError, TimeoutError):  # a ConnectionError is one
            return Reply(LOST, b"", sent_at, time.monotonic() - sent_at)
        finally:
            if link is not None:  # it owes an answer, so nothing else can be asked on it
                link.close()
        return Reply(status, said, sent_at, ended_at - sent_at)

    async def _link(self) -> _Link:
        while self._free:
            link, since = self._free.pop()
            if link.is_open and time.monotonic() - since < _IDLE_S:
                return link
            link.close()
        loop = asyncio.get_running_loop()
        _, link = await loop.create_connection(_Link, self._url.hostname, self._url.port)
        return link


def request(text: str | Sequence[str], *, channel: str = "web") -> dict[str, Any]:
    """A body of POST /v1/predict."""
    texts = [text] if isinstance(text, str) else text
    return {"task": "tone", "channel": channel, "inputs": [{"text": one} for one in texts]}


async def arrivals(rate: float, seconds: float, ask: Callable[[int], Awaitable[None]], *, seed: int = 1) -> None:
    """Have `ask` called `rate` times a second on average, at random moments (Poisson), and wait for all that began.

    Nobody waits for the one before: what a server cannot keep up with piles up, as it does with users.
    """
    until = time.monotonic() + seconds
    await _arrivals(rate, lambda at: at >= until, ask, seed)


async def arrivals_during(
    work: "asyncio.Future[Any]", rate: float, ask: Callable[[int], Awaitable[None]], *, seed: int = 1
) -> None:
    """The same until some work is done."""
    await _arrivals(rate, lambda _: work.done(), ask, seed)


async def _arrivals(
    rate: float, is_over: Callable[[float], bool], ask: Callable[[int], Awaitable[None]], seed: int
) -> None:
    rng, under_way = random.Random(seed), set()
    at, n = time.monotonic(), 0
    while not is_over(at := at + rng.expovariate(rate)):
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        task = asyncio.ensure_future(ask(n))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        n += 1
    await asyncio.gather(*under_way)


def p99_ms(replies: Sequence[Reply]) -> float:
    """Of how long they took; not a number where there are none."""
    return quantile([reply.took_s for reply in replies], 0.99) * 1000


def quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else float("nan")


def n_bad(replies: Sequence[Reply]) -> int:
    """How many were not answered."""
    return sum(reply.status != 200 for reply in replies)
