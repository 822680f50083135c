"""Load on a real server: many requests at once, raw connections, and what came of them."""

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from stub_model import Server

WAIT_S = 20


@dataclass(frozen=True)
class Reply:
    """What one request got; status 0: the connection failed."""

    status: int
    body: Any
    headers: dict[str, str]
    seconds: float


def request(text: str | Sequence[str], *, channel: str = "web") -> dict[str, Any]:
    texts = [text] if isinstance(text, str) else text
    return {"task": "tone", "channel": channel, "inputs": [{"text": one} for one in texts]}


def post(server: Server, body: object, headers: dict[str, str] | None = None) -> Reply:
    """One request, not tried again."""
    began_at = time.monotonic()
    response = httpx.post(f"{server.url}/v1/predict", json=body, headers=headers, timeout=WAIT_S, verify=False)
    return Reply(response.status_code, response.json(), dict(response.headers), time.monotonic() - began_at)


Send = Callable[..., Awaitable[Reply]]


def load(server: Server, work: Callable[[Send], Awaitable[None]]) -> None:
    """Run `work`, which sends requests by `await send(body, headers)` over connections that are kept."""

    async def run() -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        url = f"{server.url}/v1/predict"
        async with httpx.AsyncClient(limits=limits, timeout=WAIT_S, trust_env=False, verify=False) as client:

            async def send(body: object, headers: dict[str, str] | None = None) -> Reply:
                began_at = time.monotonic()
                try:
                    response = await client.post(url, json=body, headers=headers)
                except httpx.TransportError as error:
                    return Reply(0, repr(error), {}, time.monotonic() - began_at)
                seconds = time.monotonic() - began_at
                return Reply(response.status_code, response.json(), dict(response.headers), seconds)

            await work(send)

    asyncio.run(run())


def all_at_once(server: Server, sent: Sequence[tuple[object, dict[str, str] | None]]) -> list[Reply]:
    """Send all of (body, headers) at the same time."""
    replies: list[Reply] = []

    async def work(send: Send) -> None:
        replies.extend(await asyncio.gather(*(send(*one) for one in sent)))

    load(server, work)
    return replies


def address(server: Server) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


def connect(server: Server) -> socket.socket:
    return socket.create_connection(address(server), timeout=WAIT_S)


def raw_request(body: object, *, extra: str = "") -> bytes:
    content = json.dumps(body).encode()
    head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{extra}"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def exchange(server: Server, sent: bytes) -> tuple[int, bytes]:
    """Send bytes and read to the end; (status, all that came). The status is 0 when nothing did."""
    with connect(server) as link:
        link.sendall(sent)
        return read_to_end(link)


def read_to_end(link: socket.socket) -> tuple[int, bytes]:
    came = b""
    try:
        while more := link.recv(65536):
            came += more
    except ConnectionResetError:
        pass  # the server closed with bytes of ours unread
    return (int(came.split(b" ", 2)[1]) if came.startswith(b"HTTP/1.") else 0), came


def read_answer(link: socket.socket) -> bytes:
    """One answer of a connection that stays open."""
    came = b""
    while b"\r\n\r\n" not in came:
        came += link.recv(65536)
    head, _, body = came.partition(b"\r\n\r\n")
    (n_bytes,) = (
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < n_bytes:
        body += link.recv(65536)
    return head + b"\r\n\r\n" + body


def eventually(check: Callable[[], bool], *, within_s: float = WAIT_S) -> None:
    until = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < until
        time.sleep(0.02)
