"""R16: workers that are killed, end by themselves, have no memory left, hang, or die again and again."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from bench.drills import Figure, served
from bench.drills.asking import Asker, Reply, arrivals, request

if TYPE_CHECKING:
    from stub_model import Server

_UNAVAILABLE, _LATE = 503, 504
_SILENCE_S = 4.0  # serve.timeout_s of the drill: after so long a worker that says nothing is replaced
_AGAIN_S = 10.0


def run(seconds: float = 10.0) -> list[Figure]:
    kinds: dict[str, Callable[[Server], str | None]] = {
        "killed": lambda server: os.kill(server.worker_pids()[0], signal.SIGKILL),
        "ends by itself": lambda _: "stub:exit",
        "no memory left": lambda _: "stub:eat",
        "hangs": lambda server: os.kill(server.worker_pids()[0], signal.SIGSTOP),
    }
    limits = {"serve__timeout_s": _SILENCE_S, "serve__n_workers": 2, "serve__worker_memory_bytes": 8 * 2**30}
    figures = []
    with served(**limits) as server:
        for kind, strike in kinds.items():
            figures += asyncio.run(_struck(server, kind, strike, seconds))
    with served(**limits | {"serve__n_workers": 1}) as server:
        return figures + first_answer(server) + again_and_again(server)


def one_death(server: "Server", kind: str, strike: Callable[["Server"], str | None], seconds: float) -> list[Figure]:
    """`strike` brings a worker down, or says the text that does."""
    return asyncio.run(_struck(server, kind, strike, seconds))


async def _struck(
    server: "Server", kind: str, strike: Callable[["Server"], str | None], seconds: float
) -> list[Figure]:
    asker, replies = Asker(server.url), []
    n_workers, n_starts = (server.figure(name) for name in ("workers", "worker_starts"))

    async def ask(_: int) -> None:
        replies.append(await asker.post(request("positive")))

    loading = asyncio.create_task(arrivals(30, seconds, ask))
    await asyncio.sleep(1)
    struck_at = time.monotonic()
    text = strike(server)
    if text is not None:
        await asker.post(request(text))
    back_s = await asyncio.to_thread(_back_s, server, n_workers, n_starts, struck_at, seconds)
    await loading
    asker.close()
    failed = [reply for reply in replies if reply.status != 200]
    late = (_LATE,) if kind == "hangs" else ()  # what it had is late when the time is over that it may be silent
    n_unsaid = sum(
        not (reply.status == _UNAVAILABLE and reply.says_when) and reply.status not in late for reply in failed
    )
    survives = text == "stub:eat"  # one text too large for it is an error of that text
    asked_s = _SILENCE_S + 2 if kind == "hangs" else 2
    return [
        Figure(f"{kind}: failed", len(failed), f"of {len(replies)}"),
        Figure(
            f"{kind}: failed otherwise than by 503 with Retry-After{', or late' if late else ''}",
            n_unsaid,
            "",
            at_most=0,
        ),
        *([] if survives else [Figure(f"{kind}: a new process runs after", back_s, "s", at_most=asked_s)]),
    ]


def _back_s(server: "Server", n_workers: float, n_starts: float, since: float, seconds: float) -> float:
    """When there are as many workers as before, one of them new."""
    while time.monotonic() < since + seconds:
        if server.figure("worker_starts") > n_starts and server.figure("workers") == n_workers:
            return time.monotonic() - since
        time.sleep(0.02)
    return float("nan")


def first_answer(server: "Server", load_s: float = 3.0) -> list[Figure]:
    """The only worker dies, while the version in charge and the one before are at hand: when is it answered again?

    Args:
        load_s: what each of the two takes to load.
    """
    from headrace.release import releases
    from headrace.workspace import open_workspace
    from stub_model import plant_stub

    async def answered_by(name: str) -> float:
        asker, began_at = Asker(server.url), time.monotonic()
        while time.monotonic() < began_at + load_s + _AGAIN_S:
            reply = await asker.post(request("positive"))
            if reply.status == 200 and reply.body["model_version"] == name:
                asker.close()
                return time.monotonic() - began_at
            await asyncio.sleep(0.05)
        raise RuntimeError(f"{name} does not answer: {server.log.read_text()[-2000:]}")

    with open_workspace(server.root) as ws:
        for _ in range(2):
            name = plant_stub(ws, load_s=load_s).name
            releases.promote(ws, name, task="tone")
            asyncio.run(answered_by(name))
    os.kill(server.worker_pid(), signal.SIGKILL)
    back_s = asyncio.run(answered_by(name))
    what = f"killed, with two models that take {load_s:g} s each: answers after"
    return [Figure(what, back_s, "s", at_most=load_s + 2)]


def again_and_again(server: "Server", seconds: float = _AGAIN_S) -> list[Figure]:
    """Texts that kill the worker, one after the other: how often is a process started?"""
    return asyncio.run(_again_and_again(server, seconds))


async def _again_and_again(server: "Server", seconds: float) -> list[Figure]:
    asker, replies, n_starts = Asker(server.url), [], server.figure("worker_starts")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        replies.append(await asker.post(request("stub:die")))
        await asyncio.sleep(0.02)
    n_started = server.figure("worker_starts") - n_starts
    lives = (await asker.get("/v2/health/live")).status
    back = await _answered_again(asker)
    asker.close()
    n_unsaid = sum(reply.status != _UNAVAILABLE or not reply.says_when for reply in replies)
    return [
        Figure(f"dies again and again: started in {seconds:g} s", n_started, "", at_most=10),
        Figure("dies again and again: failed otherwise than by 503 with Retry-After", n_unsaid, "", at_most=0),
        Figure("dies again and again: server alive", float(lives == 200), "", at_least=1),
        Figure("dies again and again: answers after the last", back, "s", at_most=7),
    ]


async def _answered_again(asker: Asker) -> float:
    began_at = time.monotonic()
    while time.monotonic() < began_at + _AGAIN_S:
        reply: Reply = await asker.post(request("positive"))
        if reply.status == 200:
            return time.monotonic() - began_at
        await asyncio.sleep(0.05)
    return float("nan")
