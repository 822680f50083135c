"""Clients that are slow, silent, many or malformed. Catches: a connection held for ever, a body read without end, a
request that two servers would read in two ways, bad JSON that ends as a fault of the server or keeps it busy."""

import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import psutil
import pytest

from server.loading import address, connect, eventually, exchange, post, raw_request, read_answer, read_to_end, request
from stub_model import Server, running

HEAD_S, BODY_S = 0.6, 2.0
LOOK_S = 0.5  # the server looks every quarter of a second, and cuts one look before it must
SLACK_S = 3.0  # of a busy machine
START = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, plugin_env: dict[str, str]) -> Iterator[Server]:
    from server.conftest import new_workspace

    pytest.importorskip("httptools")  # without it uvicorn reads by h11, which takes more
    root = new_workspace(tmp_path_factory.mktemp("slow") / "ws")
    limits = {"serve__header_timeout_s": HEAD_S, "serve__body_timeout_s": BODY_S, "serve__max_connections": 150}
    with running(root, plugin_env, **limits) as started:
        yield started


def drip(link: socket.socket, sent: bytes, *, every_s: float = 0.15) -> tuple[int, float]:
    """Send byte after byte until the server closes: (status, seconds that took)."""
    began_at = time.monotonic()
    link.settimeout(every_s)
    came = b""
    for n in range(10**6):
        try:
            link.sendall(sent[n % len(sent) : n % len(sent) + 1])
            more = link.recv(4096)
        except TimeoutError:
            continue
        except ConnectionError:
            break
        if not more:
            break
        came += more
        if b"\r\n\r\n" in came:
            break
    return int(came.split()[1]) if came.startswith(b"HTTP/") else 0, time.monotonic() - began_at


def test_a_silent_connection_is_closed(server: Server) -> None:
    began_at = time.monotonic()
    with connect(server) as link:
        status, came = read_to_end(link)
    assert status == 408
    assert json.loads(came.partition(b"\r\n\r\n")[2])["error"]["code"] == "too_late"
    assert HEAD_S - LOOK_S <= time.monotonic() - began_at < HEAD_S + SLACK_S


@pytest.mark.parametrize(
    ("before", "drops", "limit_s"),
    [
        (b"", b"GET / HTTP/1.1\r\nX-A: " + b"a" * 1000, HEAD_S),
        (b"", b"\r\n", HEAD_S),
        (START + b"Content-Length: 1000\r\n\r\n", b" ", BODY_S),
        (START + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n", BODY_S),
        (b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n", b" ", BODY_S),
    ],
    ids=["head", "empty lines", "body", "chunks", "body that nobody reads"],
)
def test_a_slow_request_is_cut(server: Server, before: bytes, drops: bytes, limit_s: float) -> None:
    with connect(server) as link:
        link.sendall(before)
        status, seconds = drip(link, drops)
        if b"/live" in before:  # answered at once, and cut afterwards
            assert status == 200
            status, seconds = drip(link, drops)
            assert (status, seconds < limit_s + SLACK_S) == (0, True)
        else:
            assert status == 408
            assert limit_s - LOOK_S <= seconds < limit_s + SLACK_S


def test_a_second_request_on_a_connection_has_its_own_time(server: Server) -> None:
    with connect(server) as link:
        link.sendall(raw_request(request("positive")))
        assert read_answer(link).startswith(b"HTTP/1.1 200")
        status, seconds = drip(link, b"GET /" + b"a" * 1000)
        assert status == 408
        assert seconds >= HEAD_S - LOOK_S


def test_who_does_not_read_is_cut(server: Server) -> None:
    before = server.figure("cut_connections_total", why="slow reader")
    with socket.socket() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link.connect(address(server))
        left = memoryview(raw_request(request(["positive"] * 1000)) * 60)  # answers beyond what the kernel keeps
        link.setblocking(False)

        def is_cut() -> bool:
            nonlocal left
            with suppress(BlockingIOError, ConnectionError):
                left = left[link.send(left) :]
            return server.figure("cut_connections_total", why="slow reader") > before

        eventually(is_cut)


def test_many_slow_clients_leave_room_for_others_and_nothing_behind(server: Server) -> None:
    process = psutil.Process(server.process.pid)
    post(server, request("positive"))
    n_files, rss = process.num_fds(), process.memory_info().rss
    with ExitStack() as links:
        for n in range(100):
            link = links.enter_context(connect(server))
            link.sendall((b"", b"GET / HT", START + b"Content-Length: 9\r\n\r\n1")[n % 3])
        for _ in range(10):
            good = post(server, request("positive"))
            assert good.status == 200
        eventually(lambda: process.num_fds() <= n_files + 3)
    assert process.memory_info().rss < rss + 100 * 2**20


def test_more_connections_than_allowed_are_told_so(server: Server) -> None:
    with ExitStack() as links:
        held = [links.enter_context(connect(server)) for _ in range(150)]
        status, came = read_to_end(links.enter_context(connect(server)))
        assert status == 503
        assert b"retry-after: 1" in came
        del held
    eventually(lambda: post_or_none(server) == 200)


def post_or_none(server: Server) -> int:
    return exchange(server, raw_request(request("positive"), extra="Connection: close\r\n"))[0]


def test_a_reset_connection_harms_nobody(server: Server) -> None:
    for _ in range(20):
        with connect(server) as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.sendall(raw_request(request("positive")))
    assert post(server, request("positive")).status == 200
    assert "Traceback" not in server.log.read_text()


BAD_HTTP = {
    "two encodings": START + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "odd encoding": START + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two lengths": START + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "negative length": START + b"Content-Length: -5\r\n\r\nabc",
    "huge length": START + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "signed length": START + b"Content-Length: +3\r\n\r\nabc",
    "two hosts": b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "no host": b"GET /v2/health/live HTTP/1.1\r\n\r\n",
    "space before colon": b"GET /v2/health/live HTTP/1.1\r\nHost : a\r\n\r\n",
    "NUL in a value": b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n",
    "bad chunk": START + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "length and chunks": START + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "line feed alone": b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nX: b\n\r\n",
    "folded header": b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nX: b\r\n c\r\n\r\n",
    "line feed in chunks": START + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10 + b"\r\n\r\n",
}


@pytest.mark.parametrize("sent", BAD_HTTP.values(), ids=BAD_HTTP.keys())
def test_what_two_servers_may_read_in_two_ways_is_refused(server: Server, sent: bytes) -> None:
    status, came = exchange(server, sent + b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert status in (400, 422), came
    assert came.count(b"HTTP/1.1 ") == 1 or b"hosts" in came or b"one host" in came


def test_a_long_head_is_refused(server: Server) -> None:
    status, _ = exchange(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: b\r\n" * 40_000)
    assert status in (400, 431)


@pytest.mark.parametrize("kind", ["told", "chunks"])
def test_a_long_body_is_refused_before_it_is_read(server: Server, kind: str) -> None:
    with connect(server) as link:
        if kind == "told":
            link.sendall(START + b"Content-Length: 17000000\r\n\r\n{")
        else:
            link.sendall(START + b"Transfer-Encoding: chunked\r\n\r\n")
            for _ in range(17):
                link.sendall(b"100000\r\n" + b" " * 2**20 + b"\r\n")
        assert link.recv(12) == b"HTTP/1.1 413"


def test_a_body_in_tiny_chunks_costs_little(server: Server) -> None:
    process = psutil.Process(server.process.pid)
    before = sum(process.cpu_times()[:2])
    chunks = b"".join(b"1\r\n \r\n" for _ in range(100_000))
    status, _ = exchange(
        server, START + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    )
    assert status == 422
    assert sum(process.cpu_times()[:2]) - before < 2


BAD_BODIES: dict[str, bytes] = {
    "deep": b"[" * 100_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"a":' * 50_000,
    "a million keys": b"{" + b",".join(b'"k%d":1' % n for n in range(1_000_000)) + b"}",
    "many lists": b'{"task":"tone","channel":"web","inputs":[' + b"[]," * 300_000 + b"[]]}",
    "the same key": b'{"task":"tone","task":"tone","channel":"web","inputs":[{"text":"x"}]}',
    "a long number": b'{"task":' + b"9" * 10_000 + b"}",
    "beyond a float": b'{"task":"tone","channel":"web","inputs":[{"text":1e999}]}',
    "NaN": b'{"task":NaN}',
    "Infinity": b'{"task":-Infinity}',
    "half a surrogate": b'{"task":"tone","channel":"web","inputs":[{"text":"\\ud800"}]}',
    "NUL": b'{"task":"tone","channel":"web","inputs":[{"text":"a\\u0000b"}]}',
    "overlong UTF-8": b'{"task":"\xc0\xaf"}',
    "byte order mark": b'\xef\xbb\xbf{"task":"tone"}',
    "UTF-16": '{"task":"tone"}'.encode("utf-16"),
    "one long word": b'{"task":"tone","channel":"web","inputs":[{"text":"' + b"a" * 1_000_000 + b'"}]}',
    "empty text": b'{"task":"tone","channel":"web","inputs":[{"text":""}]}',
    "many items": b'{"task":"tone","channel":"web","inputs":[' + b",".join([b'{"text":"x"}'] * 100_000) + b"]}",
    "half": b'{"task":"tone"',
    "nothing": b"",
}


@pytest.mark.parametrize("content", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_bad_body_is_the_clients_error_and_costs_little(server: Server, content: bytes) -> None:
    process = psutil.Process(server.process.pid)
    before = sum(process.cpu_times()[:2])
    head = START + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(content)
    status, came = exchange(server, head + content)
    assert 400 <= status < 500, came[:300]
    assert json.loads(came.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_input"
    assert sum(process.cpu_times()[:2]) - before < 2  # 1 on a quiet machine


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip"])
def test_packed_bodies_are_refused(server: Server, encoding: str) -> None:
    reply = post(server, request("x"), {"Content-Encoding": encoding})
    assert reply.status == 415


def test_a_range_is_not_read(server: Server) -> None:
    reply = post(server, request("positive"), {"Range": "bytes=" + "0-1," * 5000 + "2-3"})
    assert reply.status == 200
