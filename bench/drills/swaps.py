"""R10: versions that change while requests come: is any lost, answered by another version than it names, or late?"""

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import psutil

from bench.drills import Figure, served
from bench.drills.asking import Asker, Reply, arrivals, arrivals_during, n_bad, p99_ms, quantile, request

if TYPE_CHECKING:
    from stub_model import Server

SAYS = {"tone/1": "neutral", "tone/2": "positive"}
_TAKES_OVER_S = 20.0


def run(n_swaps: int = 1000) -> list[Figure]:
    with served(serve__n_workers=2) as server:
        return swaps(server, n_swaps)


def swaps(server: "Server", n_swaps: int, *, rate: float = 50.0, calm_s: float = 20.0) -> list[Figure]:
    """The version in charge changes `n_swaps` times between two that answer differently."""
    from headrace.workspace import open_workspace
    from stub_model import plant_stub

    with open_workspace(server.root) as ws:
        plant_stub(ws, answer=SAYS["tone/2"])
    return asyncio.run(_swapped(server, n_swaps, rate, calm_s))


async def _swapped(server: "Server", n_swaps: int, rate: float, calm_s: float) -> list[Figure]:
    asker, calm, replies = Asker(server.url), [], []

    async def ask(to: list[Reply]) -> None:
        to.append(await asker.post(request("well")))

    await arrivals(rate, calm_s, lambda _: ask(calm))
    rss = _rss(server)
    swapping = asyncio.create_task(asyncio.to_thread(_swap, server, n_swaps, replies))
    await arrivals_during(swapping, rate, lambda _: ask(replies), seed=2)
    visible_s = await swapping
    await asyncio.sleep(1)
    after = _rss(server)
    asker.close()
    good = [reply for reply in replies if reply.status == 200]
    n_wrong = sum(SAYS[said["model_version"]] != said["predictions"][0]["label"] for said in (r.body for r in good))
    return [
        Figure("changes of version", n_swaps, ""),
        Figure("requests meanwhile", len(replies), ""),
        Figure("not answered", n_bad(replies), "", at_most=0),
        Figure("answered by another version than they name", n_wrong, "", at_most=0),
        Figure("p99 before", p99_ms(calm), "ms"),
        Figure("p99 meanwhile", p99_ms(replies) / p99_ms(calm), "x", at_most=2),
        Figure("from the ledger to all workers, median", quantile(visible_s, 0.5), "s"),
        Figure("from the ledger to all workers, longest", max(visible_s), "s", at_most=1),
        Figure("memory after, of that before", after / rss, "x", at_most=1.05),
    ]


def _swap(server: "Server", n_swaps: int, replies: Sequence[Reply]) -> list[float]:
    """Promote in turn; how long each took until every answer was of the new version."""
    from headrace.release import releases
    from headrace.workspace import open_workspace

    took_s = []
    with open_workspace(server.root) as ws:
        for n in range(n_swaps):
            name = ("tone/2", "tone/1")[n % 2]
            releases.promote(ws, name, task="tone")
            began_at = time.monotonic()
            while (newest := _newest(replies)) is None or newest[1] != name or newest[0] < began_at:
                if time.monotonic() > began_at + _TAKES_OVER_S:
                    raise RuntimeError(f"{name} did not take over: {server.log.read_text()[-2000:]}")
                time.sleep(0.02)  # the requests come from this process too
            took_s.append(newest[0] - began_at)
    return took_s


def _newest(replies: Sequence[Reply]) -> tuple[float, str] | None:
    """When the newest answer came, and of which version it is."""
    if not replies or replies[-1].status != 200:
        return None
    reply = replies[-1]
    return reply.sent_at + reply.took_s, reply.body["model_version"]


def _rss(server: "Server") -> int:
    """Resident memory of the server and its workers."""
    process = psutil.Process(server.process.pid)
    return sum(one.memory_info().rss for one in (process, *process.children()))
