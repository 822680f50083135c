"""Load on an HTTP server: requests over connections that stay open, and how long each took.

Closed loop: N connections, each sends its next request when it has the answer to its last; says how much a server can
do. Open loop: requests arrive at random times (Poisson) at a given rate, whether the server keeps up or not, and a
request's time runs from when it should have been sent, so waiting for a free connection, or for a load that is behind,
counts; says what a user waits.

A connection that is refused with `Retry-After` waits for so long. One process with one thread.

Run: python -m bench.load http://127.0.0.1:8000/v1/predict --body '{"inputs": [{"text": "Great!"}]}' [--connections 16]
     [--rate 200] [--seconds 10]
"""

import argparse
import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np

_END = b"\r\n\r\n"
_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Loaded:
    """What a load saw. Times are those of answers with status 200."""

    requests_per_s: float
    rows_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    n_requests: int
    n_errors: int
    by_status: dict[str, int]
    """Answers by HTTP status; "lost" is a connection that broke, "late" one without an answer in a minute."""
    late_p99_ms: float
    """Open loop: how much later than they should requests were made; more than a few ms and the load is no open one."""
    n_given_up: int = 0
    """Requests without an answer at the end, whose age is among the times: then the percentiles are lower bounds."""


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection that carries one request at a time."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._answer: asyncio.Future[int] | None = None
        self._got = bytearray()
        self._n_wanted: int | None = None
        self.is_open = False
        self.retry_after_s = 0.0
        """What the last answer asked to wait."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport, self.is_open = transport, True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._got += data
        if self._n_wanted is None:
            end = self._got.find(_END)
            if end < 0:
                return
            self._n_wanted = self._n_bytes(end)
        is_whole = len(self._got) >= self._n_wanted if self._n_wanted else self._got.endswith(b"0" + _END)
        if is_whole and self._answer is not None and not self._answer.done():
            self._answer.set_result(int(self._got[9:12]))

    def _n_bytes(self, end: int) -> int:
        """Size of the answer with its head; 0 where it comes in chunks. Notes its Retry-After."""
        lines = [line.partition(b":") for line in bytes(self._got[:end]).lower().split(b"\r\n")]
        head = {name: value for name, _, value in lines}
        self.retry_after_s = float(head.get(b"retry-after", 0))
        return end + len(_END) + int(head[b"content-length"]) if b"content-length" in head else 0

    async def ask(self, request: bytes) -> int:
        """The status of the answer.

        Raises:
            ConnectionError: it broke before the answer was there.
            TimeoutError: no answer in a minute.
        """
        if not self.is_open:
            raise ConnectionError("the connection is closed")
        self._got.clear()
        self._n_wanted = None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await asyncio.wait_for(self._answer, _TIMEOUT_S)
        finally:
            self._answer = None

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


@dataclass
class Load:
    """Requests in turn to one server, and what came of them between `warm_s` and the end."""

    url: str
    bodies: Sequence[bytes]
    n_rows: int
    seconds: float
    warm_s: float = 1.0
    took_s: list[float] = field(default_factory=list)
    aged_s: list[float] = field(default_factory=list)
    """Of those that were given up."""
    late_s: list[float] = field(default_factory=list)
    by_status: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._requests: Iterator[bytes] = itertools.cycle(requests(self.url, self.bodies))
        self._from = self._until = 0.0

    async def closed(self, n_connections: int, *, gives_up: bool = False) -> Loaded:
        """Each of N connections sends again as soon as it has its answer.

        Args:
            gives_up: do not wait at the end for the answers that are still to come: for a server so full that it would
                take longer than the load itself.
        """
        self._begin()
        under_way = [asyncio.create_task(self._in_turn()) for _ in range(n_connections)]
        done, late = await asyncio.wait(under_way, timeout=self.warm_s + self.seconds if gives_up else None)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for task in done:
            task.result()
        return self._loaded()

    async def open(self, rate: float, *, n_connections: int, seed: int = 1) -> Loaded:
        """Requests arrive `rate` times a second on average; more than N at once wait for a connection."""
        rng, free = random.Random(seed), asyncio.LifoQueue[Connection]()
        for _ in range(n_connections):
            free.put_nowait(await _connected(self.url))
        self._begin()
        at, under_way = time.perf_counter(), set()
        while at < self._until:
            await asyncio.sleep(at - time.perf_counter())
            task = asyncio.create_task(self._from_arrival(free, at))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            at += rng.expovariate(rate)
        await asyncio.gather(*under_way)
        while not free.empty():
            free.get_nowait().close()
        return self._loaded()

    def _begin(self) -> None:
        self._from = time.perf_counter() + self.warm_s
        self._until = self._from + self.seconds

    async def _in_turn(self) -> None:
        connection = await _connected(self.url)
        try:
            while (started := time.perf_counter()) < self._until:
                connection = await self._ask(connection, started)
                if connection.retry_after_s:
                    await asyncio.sleep(max(0.0, min(connection.retry_after_s, self._until - time.perf_counter())))
        finally:
            connection.close()

    async def _from_arrival(self, free: "asyncio.LifoQueue[Connection]", planned: float) -> None:
        if planned >= self._from:
            self.late_s.append(time.perf_counter() - planned)
        connection = await free.get()
        free.put_nowait(await self._ask(connection, planned))

    async def _ask(self, connection: Connection, started: float) -> Connection:
        """Ask, and note what came of it; returns the connection to go on with."""
        try:
            status = str(await connection.ask(next(self._requests)))
        except ConnectionError:
            status = "lost"
        except TimeoutError:
            status = "late"
            connection.close()
        except asyncio.CancelledError:
            self.aged_s.append(time.perf_counter() - started)
            connection.close()
            raise
        done = time.perf_counter()
        if self._from <= done and (started < self._until):
            self.by_status[status] += 1
            if status == "200":
                self.took_s.append(done - started)
        while not connection.is_open and time.perf_counter() < self._until:
            with suppress(OSError):
                connection = await _connected(self.url)
            await asyncio.sleep(0 if connection.is_open else 0.05)
        return connection

    def _loaded(self) -> Loaded:
        span_s = max(time.perf_counter(), self._until) - self._from
        took_ms = np.asarray([*self.took_s, *self.aged_s] or [float("nan")]) * 1e3
        p50, p90, p99, longest = (float(np.percentile(took_ms, q)) for q in (50, 90, 99, 100))
        n_good = len(self.took_s)
        late_ms = float(np.percentile(self.late_s, 99)) * 1e3 if self.late_s else 0.0
        n_all = self.by_status.total()
        per_s = n_good / span_s
        statuses, n_given_up = dict(self.by_status), len(self.aged_s)
        return Loaded(
            per_s, per_s * self.n_rows, p50, p90, p99, longest, n_all, n_all - n_good, statuses, late_ms, n_given_up
        )


def requests(url: str, bodies: Sequence[bytes]) -> list[bytes]:
    """Whole HTTP requests, head and body."""
    parts = urlsplit(url)
    head = f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    return [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in bodies]


async def _connected(url: str) -> Connection:
    parts = urlsplit(url)
    _, protocol = await asyncio.get_running_loop().create_connection(Connection, parts.hostname, parts.port or 80)
    return protocol


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--body", required=True, action="append", help="JSON; several are sent in turn")
    parser.add_argument("--rows", type=int, default=1, help="rows in one body")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--rate", type=float, help="requests a second, arriving at random; without it: closed loop")
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    load = Load(options.url, [body.encode() for body in options.body], options.rows, options.seconds)
    if options.rate:
        loaded = asyncio.run(load.open(options.rate, n_connections=options.connections))
    else:
        loaded = asyncio.run(load.closed(options.connections))
    print(json.dumps(asdict(loaded), indent=1))
    return 0 if loaded.n_errors == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
