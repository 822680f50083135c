"""R4 and R5: a disk that does not keep what it was given, or has no room, and a server that may open no more files.

System calls of a live server are made to fail: by strace (--inject), which says to each write or sync what a broken or
full disk says, and by limits of the process (prlimit). Predictions go on; feedback is refused, and taken again soon
after; what was acknowledged is there.
"""

import asyncio
import itertools
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

from bench.drills import Figure, served
from bench.drills.asking import Asker, Reply, request

if TYPE_CHECKING:
    from stub_model import Server

_PATIENCE_S = 20
_FEEDBACK_S = 0.05
_REFUSED = (503, 507)
FAILING = {
    "syncs fail": "inject=fdatasync,fsync:error=EIO",
    "one sync fails": "inject=fdatasync,fsync:error=EIO:when=1",
    "no room": "inject=pwrite64:error=ENOSPC",
    "read only": "inject=pwrite64,ftruncate:error=EROFS",
}


def run(seconds: float = 5) -> list[Figure]:
    """
    Args:
        seconds: of each kind.
    """
    with served() as server:
        figures = [figure for kind in FAILING for figure in failing(server, kind, seconds)]
        return [*figures, *files_too_long(server, seconds), *no_more_files(server, seconds)]


def failing(server: "Server", kind: str, seconds: float) -> list[Figure]:
    """Its disk fails in one way for some seconds."""
    with Trial(server, kind) as trial:
        with traced(server, FAILING[kind]):
            asyncio.run(trial.ask(seconds, is_failing=True))
        return trial.figures()


def files_too_long(server: "Server", seconds: float) -> list[Figure]:
    """No file of it may grow: what a quota does."""
    with Trial(server, "a quota") as trial:
        process = psutil.Process(server.process.pid)
        before = process.rlimit(resource.RLIMIT_FSIZE)
        process.rlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            asyncio.run(trial.ask(seconds, is_failing=True))
        finally:
            process.rlimit(resource.RLIMIT_FSIZE, before)
        return trial.figures()


def no_more_files(server: "Server", seconds: float) -> list[Figure]:
    """It may open nothing more: those who are connected go on to be answered."""
    process = psutil.Process(server.process.pid)
    before = process.rlimit(resource.RLIMIT_NOFILE)
    return asyncio.run(_without_files(process, server, before, seconds))


async def _without_files(
    process: psutil.Process, server: "Server", before: tuple[int, int], seconds: float
) -> list[Figure]:
    asker, replies = Asker(server.url), []
    try:
        assert (await asker.post(request("positive"))).status == 200
        process.rlimit(resource.RLIMIT_NOFILE, (process.num_fds(), before[1]))
        others = Asker(server.url)
        try:
            until = time.monotonic() + seconds
            asking = asyncio.ensure_future(others.post(request("positive")))  # waits until it is let in
            while time.monotonic() < until:
                replies.append(await asker.post(request("positive")))
                await asyncio.sleep(_FEEDBACK_S)
            process.rlimit(resource.RLIMIT_NOFILE, before)
            let_in_at = time.monotonic()
            late = await asyncio.wait_for(asking, _PATIENCE_S)
            while late.status != 200 and time.monotonic() < let_in_at + _PATIENCE_S:
                late = await others.post(request("positive"))
        finally:
            others.close()
    finally:
        asker.close()
    return [
        Figure("no more files: not answered on open connections", _n_not(replies), f"of {len(replies)}", at_most=0),
        Figure("no more files: others answered after", time.monotonic() - let_in_at, "s", at_most=10),
    ]


@contextmanager
def traced(server: "Server", what: str) -> Iterator[None]:
    """Have system calls of a server fail meanwhile. Its workers write nothing."""
    options = ["-f", "-o", "/dev/null", "-e", f"trace={what.partition('=')[2].partition(':')[0]}", "-e", what]
    tracing = subprocess.Popen(
        ["strace", *options, "-p", str(server.process.pid)], stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        assert tracing.stderr is not None
        if "attached" not in (said := tracing.stderr.readline()):
            raise RuntimeError(f"strace did not attach: {said}")
        yield
    finally:
        tracing.terminate()
        tracing.communicate(timeout=_PATIENCE_S)


class Trial:
    """Requests and feedback before, during and after; what was acknowledged must be in the store, once."""

    def __init__(self, server: "Server", kind: str) -> None:
        self._server, self._kind = server, kind
        self._asked: list[Reply] = []
        self._fed: dict[bool, list[tuple[str, Reply]]] = {True: [], False: []}
        self._numbers = itertools.count()
        self._prediction = ""
        self._recovered_s = float("nan")
        self._gauge = float("nan")

    def __enter__(self) -> "Trial":
        asyncio.run(self.ask(0.5, is_failing=False))
        return self

    def __exit__(self, *_: object) -> None:
        return

    async def ask(self, seconds: float, *, is_failing: bool) -> None:
        asker, until = Asker(self._server.url), time.monotonic() + seconds
        try:
            while time.monotonic() < until:
                self._asked.append(await asker.post(request("positive")))
                if not self._prediction:
                    self._prediction = self._asked[-1].body["predictions"][0]["id"]
                self._fed[is_failing].append(await self._give(asker))
                await asyncio.sleep(_FEEDBACK_S)
        finally:
            asker.close()
        if is_failing:
            self._gauge = await asyncio.to_thread(self._server.figure, "writes_failing")

    async def _give(self, asker: Asker) -> tuple[str, Reply]:
        key = f"{self._kind}-{next(self._numbers)}"
        body = {"prediction_id": self._prediction, "comment": key}
        return key, await asker.post(body, path="/v1/feedback", headers={"Idempotency-Key": key})

    async def _recover(self) -> None:
        """Until feedback is taken again; each that was refused is sent once more, as a client does."""
        asker, began_at = Asker(self._server.url), time.monotonic()
        try:
            while time.monotonic() < began_at + _PATIENCE_S:
                key, reply = await self._give(asker)
                self._fed[False].append((key, reply))
                if reply.status == 200:
                    self._recovered_s = time.monotonic() - began_at
                    return
                await asyncio.sleep(_FEEDBACK_S)
        finally:
            asker.close()

    def figures(self) -> list[Figure]:
        from headrace.workspace import open_workspace

        asyncio.run(self._recover())
        during = [reply for _, reply in self._fed[True]]
        refused = [reply for reply in during if reply.status != 200]
        acknowledged = [key for some in self._fed.values() for key, reply in some if reply.status == 200]
        with open_workspace(self._server.root) as ws, ws.store.read() as conn:
            query = "SELECT idempotency_key FROM feedback WHERE idempotency_key LIKE ?"
            there = list(conn.exec_driver_sql(query, (f"{self._kind}-%",)).scalars())
            faults = [row[0] for row in conn.exec_driver_sql("PRAGMA integrity_check") if row[0] != "ok"]
        otherwise = sum(reply.status not in _REFUSED for reply in refused)
        fails_for_long = self._kind != "one sync fails"
        return [
            Figure(f"{self._kind}: predictions not answered", _n_not(self._asked), f"of {len(self._asked)}", at_most=0),
            Figure(f"{self._kind}: feedback refused", len(refused), f"of {len(during)}", at_least=1),
            Figure(f"{self._kind}: feedback refused otherwise than by 503 or 507", otherwise, "", at_most=0),
            Figure(f"{self._kind}: the gauge says so", self._gauge, "", at_least=1 if fails_for_long else 0),
            Figure(f"{self._kind}: feedback is taken again after", self._recovered_s, "s", at_most=10),
            Figure(f"{self._kind}: acknowledged and not there", len(set(acknowledged) - set(there)), "", at_most=0),
            Figure(f"{self._kind}: written twice", len(there) - len(set(there)), "", at_most=0),
            Figure(f"{self._kind}: faults of the database", len(faults), "", at_most=0),
        ]


def _n_not(replies: list[Reply]) -> int:
    return sum(reply.status != 200 for reply in replies)
