"""R24: feedback is written, and its answer is lost on the way back. Is it written once, however often it is sent?"""

import asyncio
import random
import time
from typing import TYPE_CHECKING

from bench.drills import Figure, served

if TYPE_CHECKING:
    from stub_model import Server

_N_AT_ONCE = 64
_END = b"\r\n\r\n"
_LOSES = 0.1


def run(n_posts: int = 10_000) -> list[Figure]:
    with served() as server:
        return lost_answers(server, n_posts)


def lost_answers(server: "Server", n_posts: int) -> list[Figure]:
    """`n_posts` pieces of feedback through a proxy that loses a tenth of the answers, each sent until one arrives."""
    return asyncio.run(_sent(server, n_posts))


async def _sent(server: "Server", n_posts: int) -> list[Figure]:
    from headrace.client import AsyncClient
    from headrace.errors import TooLate, Unavailable
    from headrace.store import predictions
    from headrace.workspace import open_workspace

    proxy = _Proxy(server.url)
    numbers, ids, n_calls = iter(range(n_posts)), {}, 0
    async with AsyncClient(server.url) as straight:
        prediction_id = (await straight.predict("tone", "web", ["positive"]))["predictions"][0]["id"]
    listening = await asyncio.start_server(proxy.carry, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"

    async def give(client: AsyncClient) -> None:
        nonlocal n_calls
        for n in numbers:
            while n not in ids:
                n_calls += 1
                try:
                    ids[n] = await client.feedback(prediction_id, comment=f"c{n}", idempotency_key=f"k{n}")
                except (Unavailable, TooLate):  # its attempts are used up: the caller asks again, under the same key
                    await asyncio.sleep(0.05)

    began_at = time.monotonic()
    async with listening:
        async with AsyncClient(url) as client:
            await asyncio.gather(*(give(client) for _ in range(_N_AT_ONCE)))
        seconds = time.monotonic() - began_at
        await asyncio.sleep(0.2)  # the proxy sees that its connections are closed
    with open_workspace(server.root) as ws, ws.store.read() as conn:
        rows = predictions.feedback_on(conn, prediction_id)
    return [
        Figure("pieces of feedback", n_posts, ""),
        Figure("answers lost on the way", proxy.n_lost, ""),
        Figure("calls of the client", n_calls, ""),
        Figure("rows more or fewer than pieces", abs(len(rows) - n_posts), "", at_most=0),
        Figure(
            "acknowledged under an id that is not in the store",
            len({*ids.values()} - {r.id for r in rows}),
            "",
            at_most=0,
        ),
        Figure("acknowledged", n_posts / seconds, "1/s"),
    ]


class _Proxy:
    """Carries requests to a server, and a tenth of the answers nowhere: the connection closes instead."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._to = host, int(port)
        self._rng = random.Random(3)
        self.n_lost = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind_reader, behind = await asyncio.open_connection(*self._to)
        try:
            while request := await _message(reader):
                behind.write(request)
                answer = await _message(behind_reader)
                if not answer:
                    return
                if self._rng.random() < _LOSES:
                    self.n_lost += 1
                    return
                writer.write(answer)
                await writer.drain()
        except ConnectionError:
            return  # either side is gone: so is the other, then
        finally:
            for one in (behind, writer):
                one.close()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """A request or an answer with its body; nothing at the end of a connection."""
    try:
        head = await reader.readuntil(_END)
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                return head + await reader.readexactly(int(line.partition(b":")[2]))
    except asyncio.IncompleteReadError:
        return b""
    return head
