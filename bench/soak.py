"""What grows when a server runs for long? Memory, open files, threads, disk, and errors, over a mix of everything.

A real graph with room for adapters (a tiny base model with random weights) serves four channels. Clients ask and give
feedback at random moments; versions with other adapters, or none, take charge all the time; the log moves to files. A
sample of everything is taken each second; the slope is Theil's and Sen's with its 95 % interval, of the second half:
the first is the warm-up, and the slope of both stands beside it. At the end everything that was acknowledged must be
there: feedback, changes of version, and the chain of the ledger.

Run: python -m bench.soak [--minutes 60] [--rate 30] [--swap-every-s 5]      or: make soak
"""

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from scipy.stats import theilslopes

from bench.drills import Figure
from bench.drills.asking import Asker, Reply, arrivals, p99_ms
from bench.reporting import Measured, write

if TYPE_CHECKING:
    from headrace.workspace import Workspace
    from stub_model import Server

SEED = 1
CHANNELS = ("web", "phone", "mail", "shop")
_WARM_SHARE = 0.5  # an allocator that serves swapped models keeps what it was given once, and comes to that slowly
_MIB = 2**20
_FEEDBACK_SHARE = 0.1
_KEPT_ROWS = 5000  # of the prediction log in the store: the rest moves to files, whose room is bounded too
_LOG_BYTES = 20 * _MIB
_WORDS = ("the", "a", "service", "was", "it", "great", "lovely", "good", "awful", "broken", "bad", "table", "box")


@dataclass
class Samples:
    """Of a server and its workers, one a second."""

    at_s: list[float] = field(default_factory=list)
    server_rss: list[float] = field(default_factory=list)
    workers_rss: list[float] = field(default_factory=list)
    n_files: list[float] = field(default_factory=list)
    n_threads: list[float] = field(default_factory=list)
    disk_bytes: list[float] = field(default_factory=list)
    not_ready: int = 0
    not_alive: int = 0

    def per_hour(self, values: Sequence[float], warm_share: float = _WARM_SHARE) -> tuple[float, float, float]:
        """Slope after the warm-up, and the ends of its interval."""
        first = int(len(values) * warm_share)
        slope, _, low, high = theilslopes(values[first:], [at / 3600 for at in self.at_s[first:]])
        return float(slope), float(low), float(high)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=30, help="requests a second")
    parser.add_argument("--swap-every-s", type=float, default=5)
    given = parser.parse_args()
    with serving_a_bank() as (server, ws):
        rows = asyncio.run(Soak(server, ws, given.rate, given.swap_every_s).last(60 * given.minutes))
    write("soak", rows, [SEED])
    return 1 if any(row.vs is not None and row.vs.endswith("not met") for row in rows) else 0


@contextmanager
def serving_a_bank() -> "Iterator[tuple[Server, Workspace]]":
    """A server of a tiny bank: version 1 without adapters, 2 with one for each channel, 3 with others for two."""
    from bench.drills import banks
    from stub_model import running

    with tempfile.TemporaryDirectory(prefix="headrace-soak-") as name:
        root = Path(name)
        bank = banks.make(root, CHANNELS)
        kept = {"serve__log_keep_rows": _KEPT_ROWS, "serve__log_max_bytes": _LOG_BYTES}
        with bank.workspace() as ws:
            bank.version(ws, {})
            bank.version(ws, dict(zip(CHANNELS, itertools.count(1), strict=False)))
            bank.version(ws, {"web": 11, "phone": 12})
            with running(bank.root, bank.environment, **kept) as server:
                yield server, ws


class Soak:
    def __init__(self, server: "Server", ws: "Workspace", rate: float, swap_every_s: float) -> None:
        self._server, self._ws, self._rate, self._swap_every_s = server, ws, rate, swap_every_s
        self._asker, self._rng, self._samples = Asker(server.url), random.Random(SEED), Samples()
        self._counts: dict[str, int] = dict.fromkeys(("requests", "feedback", "failed", "swaps"), 0)
        self._failures: Counter[str] = Counter()
        """What failed requests got; 0: no answer."""
        self._recent: list[Reply] = []
        self._acknowledged: dict[str, set[str]] = {"feedback": set(), "ledger": set()}
        """Table to the ids that somebody was told are there."""

    async def last(self, seconds: float) -> list[Measured]:
        try:
            async with asyncio.TaskGroup() as group:  # a look or a swap that fails ends it at once
                beside = [group.create_task(work) for work in (self._watch(seconds), self._swap())]
                await arrivals(self._rate, seconds, self._ask)
                for task in beside:
                    task.cancel()
        finally:
            self._asker.close()
        return self._figures(seconds)

    async def _ask(self, _: int) -> None:
        texts = [
            " ".join(self._rng.choices(_WORDS, k=self._rng.randint(2, 20))) for _ in range(self._rng.randint(1, 4))
        ]
        body = {"task": "tone", "channel": self._rng.choice(CHANNELS), "inputs": [{"text": text} for text in texts]}
        reply = await self._asker.post(body)
        self._note(reply, "requests")
        self._recent = [*self._recent[-999:], reply]
        if reply.status == 200 and self._rng.random() < _FEEDBACK_SHARE:
            said = {"prediction_id": reply.body["predictions"][0]["id"], "correction": "neutral"}
            reply = await self._asker.post(said, path="/v1/feedback")
            self._note(reply, "feedback")
            if reply.status == 200:
                self._acknowledged["feedback"].add(reply.body["id"])

    def _note(self, reply: Reply, kind: str) -> None:
        self._counts[kind] += 1
        if reply.status != 200:
            self._counts["failed"] += 1
            said = reply.said.partition(b"\r\n\r\n")[2].decode()
            self._failures[f"{kind}: {reply.status} {said[:200]}"] += 1

    async def _swap(self) -> None:
        from headrace.release import releases

        for name in itertools.cycle(("tone/2", "tone/3", "tone/1")):
            await asyncio.sleep(self._swap_every_s)
            line = await asyncio.to_thread(releases.promote, self._ws, name, task="tone")
            self._acknowledged["ledger"].add(line.id)
            self._counts["swaps"] += 1

    async def _watch(self, seconds: float) -> None:
        began_at, process = time.monotonic(), psutil.Process(self._server.process.pid)
        for n in itertools.count(1):
            await asyncio.sleep(max(0.0, began_at + n - time.monotonic()))
            seen = self._samples
            seen.not_ready += (await self._asker.get("/v2/health/ready")).status != 200
            seen.not_alive += (await self._asker.get("/v2/health/live")).status != 200
            workers = list(_workers(process))
            seen.at_s.append(time.monotonic() - began_at)
            seen.server_rss.append(process.memory_info().rss)
            seen.workers_rss.append(sum(one.memory_info().rss for one in workers))
            seen.n_files.append(process.num_fds() + sum(one.num_fds() for one in workers))
            seen.n_threads.append(process.num_threads() + sum(one.num_threads() for one in workers))
            seen.disk_bytes.append(_disk_bytes(self._ws.state_folder))
            if n % 60 == 0:
                mib = seen.server_rss[-1] / _MIB, seen.workers_rss[-1] / _MIB, seen.disk_bytes[-1] / _MIB
                told = "server {:.1f} MiB, workers {:.1f} MiB, disk {:.1f} MiB".format(*mib)
                failures = f", {dict(self._failures.most_common(5))}" if self._failures else ""
                print(f"{n / 60:.0f} of {seconds / 60:.0f} min: {told}, {self._counts}{failures}", flush=True)

    def _figures(self, seconds: float) -> list[Measured]:
        seen, counts = self._samples, self._counts
        plain = [
            Figure("ran", seconds / 60, "min"),
            *(Figure(kind, counts[kind], "") for kind in ("requests", "feedback", "swaps")),
            Figure("failed", counts["failed"], "", at_most=0),
            Figure("looks at which it was not ready", seen.not_ready, f"of {len(seen.at_s)}", at_most=0),
            Figure("looks at which it was not alive", seen.not_alive, f"of {len(seen.at_s)}", at_most=0),
            *self._of_acknowledged(),
            Figure("p99 of the last thousand requests", p99_ms(self._recent), "ms"),
            Figure("disk at the end", seen.disk_bytes[-1] / _MIB, "MiB"),
            Figure("disk at most", max(seen.disk_bytes) / _MIB, "MiB"),
        ]
        slopes = [
            ("memory of the server", seen.server_rss, _MIB, "MiB/h", 1.0),
            ("memory of the workers", seen.workers_rss, _MIB, "MiB/h", 1.0),
            ("open files", seen.n_files, 1, "1/h", 1.0),
            ("threads", seen.n_threads, 1, "1/h", 1.0),
            ("disk", seen.disk_bytes, _MIB, "MiB/h", None),
        ]
        over_all = [
            self._slope(f"{what}, warm-up included", values, scale, unit, None, 0.0)
            for what, values, scale, unit, _ in slopes
        ]
        return [_measured(figure) for figure in plain] + [self._slope(*slope) for slope in slopes] + over_all

    def _of_acknowledged(self) -> list[Figure]:
        """Whether all of it is there, in the database as it is now."""
        from headrace import auditing
        from headrace.release import ledger

        n_lost = 0
        with self._ws.store.read() as conn:
            for table, ids in self._acknowledged.items():
                n_lost += len(ids - set(conn.exec_driver_sql(f"SELECT id FROM {table}").scalars()))
        broken = sum(verify(self._ws)["first_broken"] is not None for verify in (ledger.verify, auditing.verify))
        n_acknowledged = sum(len(ids) for ids in self._acknowledged.values())
        return [
            Figure("acknowledged writes", n_acknowledged, "", at_least=1),
            Figure("acknowledged writes that are lost", n_lost, "", at_most=0),
            Figure("broken chains", broken, "", at_most=0),
        ]

    def _slope(
        self, what: str, values: Sequence[float], scale: float, unit: str, limit: float | None,
        warm_share: float = _WARM_SHARE,
    ) -> Measured:  # fmt: skip
        slope, low, high = (end / scale for end in self._samples.per_hour(values, warm_share))
        figure = Figure(f"slope of {what}", slope, unit, at_most=limit)
        row = _measured(figure)
        return Measured(row.what, row.value, row.unit, row.vs, low=low, high=high)


def _workers(server: psutil.Process) -> Iterator[psutil.Process]:
    for child in server.children():
        with suppress(psutil.NoSuchProcess):  # upkeep ends whenever it is done
            if "headrace.serve.worker" in child.cmdline():
                yield child


def _measured(figure: Figure) -> Measured:
    asked = None if figure.asked is None else f"asked: {figure.asked}{'' if figure.is_met else ', not met'}"
    return Measured(figure.what, figure.value, figure.unit, asked)


def _disk_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue  # it was moved meanwhile
    return total


if __name__ == "__main__":
    sys.exit(main())
