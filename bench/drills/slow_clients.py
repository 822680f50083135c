"""R7: many clients that send nothing, or a byte now and then, or read nothing, while others want their answers."""

import asyncio
import json
import resource
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from bench.drills import Figure, served
from bench.drills.asking import Asker, Reply, arrivals, arrivals_during, n_bad, p99_ms, request

if TYPE_CHECKING:
    from stub_model import Server

_HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
_BEGINNINGS = {"silent": b"", "slow head": _HEAD + b"X-A: ", "slow body": _HEAD + b"Content-Length: 100000\r\n\r\n"}
_LONG = 500  # rows whose answer is more than the kernel keeps for somebody who reads nothing
_SMALL_BUFFER = 2048
_READER_EVERY_S = 0.1  # no flood: they are to be answered, not refused
_FILES = 8192
_AT_ONCE = 50  # connections begun together: this is no test of the queue of those that wait to be accepted


@dataclass(frozen=True)
class Crowd:
    """How many of each kind, how often they send a byte, and the limits that the server says it keeps to."""

    n_each: int = 500
    n_readers: int = 200
    byte_every_s: float = 5.0
    head_s: float = 10.0
    body_s: float = 30.0
    good_rate: float = 40.0
    calm_s: float = 20.0
    seconds: float = 45.0


@dataclass
class _Slow(asyncio.Protocol):
    """One slow client; when it began and when it was closed."""

    kind: str
    began_at: float = field(default_factory=time.monotonic)
    closed_at: float | None = None
    transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.began_at = transport, time.monotonic()
        transport.write(_BEGINNINGS[self.kind])

    def data_received(self, data: bytes) -> None:
        """What it is told is of no interest to it."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed_at = time.monotonic()

    def drip(self) -> None:
        if self.kind != "silent" and self.closed_at is None and self.transport is not None:
            self.transport.write(b"a" if self.kind == "slow head" else b" ")


@dataclass
class _Seen:
    """The server's process while all this goes on."""

    process: psutil.Process
    n_files: list[tuple[float, int]] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)

    def look(self) -> None:
        self.n_files.append((time.monotonic(), self.process.num_fds()))
        self.rss.append(self.process.memory_info().rss)


def run() -> list[Figure]:
    with served() as server:
        return slow_clients(server, Crowd())


def slow_clients(server: "Server", crowd: Crowd) -> list[Figure]:
    """Good clients alone, then beside the crowd: how they fare, and when everybody in it was closed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(_FILES, hard)), hard))
    return asyncio.run(_beside(server, crowd))


async def _beside(server: "Server", crowd: Crowd) -> list[Figure]:
    asker, calm, good = Asker(server.url), [], []

    async def ask(to: list[Reply]) -> None:
        to.append(await asker.post(request("positive")))

    await arrivals(crowd.good_rate, crowd.calm_s, lambda _: ask(calm))
    seen = _Seen(psutil.Process(server.process.pid))
    seen.look()
    readers = [await _reader(server) for _ in range(crowd.n_readers)]
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asking = asyncio.create_task(arrivals_during(over, crowd.good_rate, lambda _: ask(good), seed=2))
    began_at, until = time.monotonic(), time.monotonic() + crowd.seconds
    slow = await _gather(server, crowd)
    ticks = 0
    while time.monotonic() < until:
        await asyncio.sleep(0.25)
        seen.look()
        ticks += 1
        if ticks % max(1, round(crowd.byte_every_s / 0.25)) == 0:
            for client in slow:
                client.drip()
    over.set_result(None)
    await asking
    figures = _figures(crowd, calm, good, slow, seen, began_at)
    for reader in readers:
        reader.close()
    for client in slow:
        if client.transport is not None:
            client.transport.close()
    asker.close()
    return figures


async def _gather(server: "Server", crowd: Crowd) -> list[_Slow]:
    host, port = server.url.removeprefix("http://").split(":")
    loop, slow = asyncio.get_running_loop(), list[_Slow]()
    kinds = [kind for kind in _BEGINNINGS for _ in range(crowd.n_each)]
    for first in range(0, len(kinds), _AT_ONCE):
        some = kinds[first : first + _AT_ONCE]
        connecting = (loop.create_connection(lambda kind=kind: _Slow(kind), host, int(port)) for kind in some)
        slow += [client for _, client in await asyncio.gather(*connecting)]
        await asyncio.sleep(0.05)
    return slow


async def _reader(server: "Server") -> socket.socket:
    """A client that asks for a long answer and has no room for it."""
    host, port = server.url.removeprefix("http://").split(":")
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
    link.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(link, (host, int(port)))
    content = json.dumps(request(["positive"] * _LONG, channel="phone")).encode()
    await loop.sock_sendall(link, _HEAD + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
    await asyncio.sleep(_READER_EVERY_S)
    return link


def _figures(
    crowd: Crowd,
    calm: list[Reply],
    good: list[Reply],
    slow: list[_Slow],
    seen: _Seen,
    began_at: float,
) -> list[Figure]:
    n_calm, alone, beside = seen.n_files[0][1], p99_ms(calm), p99_ms(good)
    back_at = next((at for at, n in seen.n_files if at > began_at + 1 and n <= n_calm + 10), float("nan"))

    def longest(kind: str) -> float:
        return max((_lived(client) for client in slow if client.kind == kind), default=float("nan"))

    return [
        Figure("good clients: p99 alone", alone, "ms"),
        Figure("good clients: p99 beside slow ones", beside / alone, "x", at_most=2),
        Figure("good clients: not answered", n_bad(good), f"of {len(good)}", at_most=0),
        Figure("silent: closed after", longest("silent"), "s", at_most=crowd.head_s),
        Figure("slow head: closed after", longest("slow head"), "s", at_most=crowd.head_s),
        Figure("slow body: closed after", longest("slow body"), "s", at_most=crowd.body_s),
        Figure("memory of the server: more at most", (max(seen.rss) - seen.rss[0]) / 2**20, "MiB", at_most=100),
        Figure(
            "all gone, those who read nothing too, and open files as before after", back_at - began_at, "s", at_most=35
        ),
    ]


def _lived(client: _Slow) -> float:
    return float("nan") if client.closed_at is None else client.closed_at - client.began_at
