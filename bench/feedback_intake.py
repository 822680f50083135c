"""How fast is feedback acknowledged as durable? Target: 2,000 a second from 64 clients, 99 % of them within 50 ms.

A real server of a stub model, SQLite with `synchronous=FULL`; every acknowledgement stands for a row that is on disk.
Each client sends its next feedback when the last is acknowledged: one by one (wrk, where it is installed, since the
load shares the cores with the server), in batches, and as streams of JSON lines. Corrections, each with a labeller of
its own, on predictions of one channel. At the end the rows of the store are counted against the acknowledgements.

Run: python -m bench.feedback_intake [--seconds 10]
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import numpy as np
from sqlalchemy import func, select

from bench.drills import served
from bench.reporting import Measured, write
from bench.serving_loads import WRK, Cell, by_wrk

if TYPE_CHECKING:
    from stub_model import Server

N_CLIENTS = 64
_TARGET_PER_S, _TARGET_P99_MS = 2000, 50.0
_N_PREDICTIONS = 2000
_WARM_S = 1.0
_LABELS = ("negative", "neutral", "positive")


@dataclass(frozen=True)
class Way:
    """How feedback is sent: `n_rows` in a request."""

    name: str
    path: str
    n_rows: int
    n_clients: int

    @property
    def content_type(self) -> str:
        return "application/x-ndjson" if self.path.endswith("stream") else "application/json"

    def body(self, said: Sequence[dict[str, str]]) -> bytes:
        if self.path.endswith("batch"):
            return json.dumps({"feedbacks": said}).encode()
        if self.path.endswith("stream"):
            return b"".join(json.dumps(one).encode() + b"\n" for one in said)
        return json.dumps(said[0]).encode()


@dataclass(frozen=True)
class Seen:
    """What came of a load."""

    per_s: float
    p50_ms: float
    p99_ms: float
    n_errors: int
    n_missing: int
    """Acknowledged and not in the store."""


WAYS = (
    Way("one by one", "/v1/feedback", 1, N_CLIENTS),
    Way("batches of 100", "/v1/feedback/batch", 100, 8),
    Way("streams of 1,000 lines", "/v1/feedback/stream", 1000, 4),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    seconds = parser.parse_args().seconds
    rows = [Measured("a small write and fsync of this disk, median", _fsync_ms(), "ms")]
    is_met = True
    with served() as server:
        ids = _predictions(server)
        for way in WAYS:
            seen = _put(way, server, ids, seconds)
            is_single = way.n_rows == 1
            target = seen.per_s / _TARGET_PER_S if is_single else None
            name = f"{way.name}, {way.n_clients} clients"
            rows += [
                Measured(f"{name}: acknowledged", seen.per_s, "/s", "target" if is_single else None, target),
                Measured(f"{name}: p50", seen.p50_ms, "ms"),
                Measured(f"{name}: p99", seen.p99_ms, "ms"),
                Measured(f"{name}: requests that failed", seen.n_errors, ""),
                Measured(f"{name}: acknowledged and not in the store", seen.n_missing, ""),
            ]
            is_met &= seen.n_missing == 0 and seen.n_errors == 0
            if is_single:
                is_met &= seen.per_s >= _TARGET_PER_S and seen.p99_ms <= _TARGET_P99_MS
    write("feedback_intake", rows)
    return 0 if is_met else 1


def _predictions(server: "Server") -> list[str]:
    asked = {"task": "tone", "channel": "web", "inputs": [{"text": "positive"}] * (_N_PREDICTIONS // 2)}
    answers = [httpx.post(f"{server.url}/v1/predict", json=asked, timeout=60).json() for _ in range(2)]
    return [row["id"] for answer in answers for row in answer["predictions"]]


def _put(way: Way, server: "Server", ids: Sequence[str], seconds: float) -> Seen:
    said = [
        {"prediction_id": name, "correction": _LABELS[n % 3], "labeller": f"user-{n}"} for n, name in enumerate(ids)
    ]
    bodies = [way.body(said[start : start + way.n_rows]) for start in range(0, len(said), way.n_rows)]
    url = f"{server.url}{way.path}"
    if way.n_rows > 1 or WRK is None:
        return _by_threads(way, server, bodies, seconds)
    by_wrk(Cell(1, way.n_clients), url, bodies, _WARM_S)
    before = _n_stored(server)
    loaded = by_wrk(Cell(1, way.n_clients), url, bodies, seconds)
    n_taken = loaded.by_status["200"]
    httpx.post(url, content=bodies[0], headers={"Content-Type": way.content_type})  # behind what wrk left
    n_missing = max(0, n_taken - (_n_stored(server) - before))
    return Seen(loaded.rows_per_s, loaded.p50_ms, loaded.p99_ms, loaded.n_errors, n_missing)


def _by_threads(way: Way, server: "Server", bodies: Sequence[bytes], seconds: float) -> Seen:
    """Requests of many, of which there are few a second: a thread for each client, its connection kept."""
    url, before, began_at = f"{server.url}{way.path}", _n_stored(server), time.perf_counter()
    waiting, took_ms, n_taken, n_failed = itertools.cycle(bodies), [], 0, 0

    def tell() -> None:
        nonlocal n_taken, n_failed
        with httpx.Client(headers={"Content-Type": way.content_type}, timeout=60) as client:
            while time.perf_counter() < began_at + seconds:
                started = time.perf_counter()
                answer = client.post(url, content=next(waiting))
                took_ms.append(1000 * (time.perf_counter() - started))
                n_found = answer.text.count('"id"')
                with counting:
                    n_taken += n_found
                    n_failed += n_found != way.n_rows

    counting = threading.Lock()
    threads = [threading.Thread(target=tell) for _ in range(way.n_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    per_s = n_taken / (time.perf_counter() - began_at)
    p50, p99 = (float(one) for one in np.percentile(took_ms, (50, 99)))
    return Seen(per_s, p50, p99, n_failed, max(0, n_taken - (_n_stored(server) - before)))


def _n_stored(server: "Server") -> int:
    from headrace.store import schema
    from headrace.workspace import open_workspace

    with open_workspace(server.root) as ws, ws.store.read() as conn:
        return conn.execute(select(func.count()).select_from(schema.feedback)).scalar_one()


def _fsync_ms(n: int = 200) -> float:
    """What durability costs on the disk of the workspace."""
    times = []
    with tempfile.NamedTemporaryFile(prefix="headrace-drill-") as file:
        for _ in range(n):
            started = time.perf_counter()
            file.write(os.urandom(4096))
            file.flush()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
