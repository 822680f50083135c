"""R14: one channel asks for twenty times its share. Does another one notice?"""

import asyncio
from typing import TYPE_CHECKING

from bench.drills import Figure, served
from bench.drills.asking import Asker, Reply, arrivals, n_bad, p99_ms, request

if TYPE_CHECKING:
    from stub_model import Server

_ROW_S = 0.02
_TIMES = 20.0
_TEXT = "positive, " + "and as long as the paragraph of somebody who has to say something about it " * 3


def run() -> list[Figure]:
    with served({"row_s": _ROW_S}) as server:
        return noisy_neighbour(server, seconds=60.0)


def noisy_neighbour(server: "Server", *, seconds: float, row_s: float = _ROW_S) -> list[Figure]:
    """`phone` asks for a fifth of its share; `web` for nothing, then for all of its own, then for twenty times that."""
    return asyncio.run(_beside(server, seconds, 0.5 / row_s))


async def _beside(server: "Server", seconds: float, share: float) -> list[Figure]:
    """`share`: requests a second that each of the two channels may expect."""
    asker = Asker(server.url)

    async def ask(channel: str, to: list[Reply]) -> None:
        to.append(await asker.post(request(_TEXT, channel=channel)))

    async def both(web_rate: float) -> tuple[list[Reply], list[Reply]]:
        web: list[Reply] = []
        phone: list[Reply] = []
        coming = [arrivals(share / 5, seconds, lambda _: ask("phone", phone))]
        if web_rate:
            coming.append(arrivals(web_rate, seconds, lambda _: ask("web", web), seed=2))
        await asyncio.gather(*coming)
        return web, phone

    _, alone = await both(0)
    _, fair = await both(share)
    web, beside = await both(_TIMES * share)
    asker.close()
    return [
        Figure("p99 alone", p99_ms(alone), "ms"),
        Figure("p99 beside a neighbour that keeps to its share", p99_ms(fair), "ms"),
        Figure("p99 beside one at 20 times its share", p99_ms(beside), "ms"),
        Figure("the same, of that beside one that keeps to it", p99_ms(beside) / p99_ms(fair), "x", at_most=1.5),
        Figure("not answered", n_bad(beside), f"of {len(beside)}", at_most=0),
        Figure("the neighbour: p99 of what was answered", p99_ms([one for one in web if one.status == 200]), "ms"),
        Figure("the neighbour: refused", sum(reply.status in (429, 503) for reply in web), f"of {len(web)}"),
    ]
