"""The load that benches put on servers. Catches: requests that are lost or counted twice, errors that are taken for
answers, and waiting that is not counted where a server cannot keep up (coordinated omission)."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from bench.load import Load, Loaded

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def with_server(handle: Handler, use: Callable[[str], Awaitable[Loaded]]) -> Loaded:
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        loaded = await use(f"http://127.0.0.1:{port}/predict")
        await asyncio.sleep(0.1)  # both ends see that connections are closed
    return loaded


def answering(
    seen: Counter[bytes],
    *,
    status: bytes = b"200 OK",
    takes_s: float = 0.0,
    is_chunked: bool = False,
    more: bytes = b"",
) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            n_bytes = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            seen[await reader.readexactly(n_bytes)] += 1
            await asyncio.sleep(takes_s)
            size = b"Transfer-Encoding: chunked" if is_chunked else b"Content-Length: 2"
            body = b"2\r\nok\r\n0\r\n\r\n" if is_chunked else b"ok"
            writer.write(b"HTTP/1.1 " + status + b"\r\n" + more + size + b"\r\n\r\n")
            await writer.drain()
            writer.write(body)
        writer.close()

    return handle


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_closed_loop_counts_every_answer_once(is_chunked: bool) -> None:
    seen: Counter[bytes] = Counter()

    async def run() -> Loaded:
        return await with_server(
            answering(seen, is_chunked=is_chunked), lambda url: Load(url, [b"one", b"other"], 3, 0.3, 0.0).closed(4)
        )

    loaded = asyncio.run(run())
    assert loaded.n_errors == 0
    assert loaded.n_requests == loaded.by_status["200"] == seen.total() > 20
    assert abs(seen[b"one"] - seen[b"other"]) <= 4
    assert loaded.rows_per_s == pytest.approx(3 * loaded.requests_per_s)
    assert 0 < loaded.p50_ms <= loaded.p99_ms <= loaded.max_ms


def test_refusals_and_broken_connections_are_errors() -> None:
    async def run(handle: Handler) -> Loaded:
        return await with_server(handle, lambda url: Load(url, [b"x"], 1, 0.2, 0.0).closed(2))

    refused = asyncio.run(run(answering(Counter(), status=b"503 Service Unavailable")))
    assert refused.n_errors == refused.n_requests == refused.by_status["503"] > 0
    assert refused.requests_per_s == 0

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    assert asyncio.run(run(hang_up)).by_status["lost"] > 0


def test_a_refused_connection_waits_as_long_as_it_is_asked_to() -> None:
    async def run() -> Loaded:
        handle = answering(Counter(), status=b"503 Service Unavailable", more=b"Retry-After: 1\r\n")
        return await with_server(handle, lambda url: Load(url, [b"x"], 1, 0.3, 0.0).closed(2))

    assert asyncio.run(run()).n_requests == 2


def test_what_is_given_up_counts_with_its_age() -> None:
    async def run() -> Loaded:
        handle = answering(Counter(), takes_s=0.3)
        return await with_server(handle, lambda url: Load(url, [b"x"], 1, 0.25, 0.0).closed(3, gives_up=True))

    loaded = asyncio.run(run())
    assert (loaded.n_requests, loaded.n_given_up) == (0, 3)
    assert 100 < loaded.p50_ms < 400


def test_waiting_counts_where_a_server_cannot_keep_up() -> None:
    # One connection, 20 ms an answer: 50 requests a second at most. At 200 a second the queue grows all the time.
    async def run() -> Loaded:
        handle = answering(Counter(), takes_s=0.02)
        return await with_server(handle, lambda url: Load(url, [b"x"], 1, 0.5, 0.0).open(200, n_connections=1))

    loaded = asyncio.run(run())
    assert loaded.p50_ms > 200
    assert loaded.n_errors == 0
    assert 60 < loaded.n_requests < 150


def test_arrivals_are_as_many_as_asked_for() -> None:
    async def run() -> Loaded:
        return await with_server(
            answering(Counter()), lambda url: Load(url, [b"x"], 1, 0.5, 0.0).open(400, n_connections=8)
        )

    loaded = asyncio.run(run())
    assert 140 < loaded.n_requests < 260
    assert loaded.p50_ms < 50
