"""What does the prediction log cost a server? Targets: 3 times cheaper than a statement a request, and 20,000 rows/s on
one core, so that a server of 1,000 rows/s spends at most a twentieth of a core on it.

Everything runs on one core, the caller and the writer's thread together, with requests of one row; the figure of a way
is the seconds of processor that a row costs. The other way, a statement and a savepoint a request, is what headrace did
before.

Run: python -m bench.prediction_log [--rows 100000]
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import insert

from bench.reporting import Measured, write
from headrace import retention
from headrace.data import channels
from headrace.ids import first_id, new_id
from headrace.records import Channel, ModelVersion
from headrace.serve.pool import Answer
from headrace.server.metrics import Metrics
from headrace.server.prediction_log import PredictionLog
from headrace.store import schema
from headrace.store.noun import origin
from headrace.store.writer import Writer
from headrace.tasks.inputs import text_hash
from headrace.workspace import Workspace, init

SEED = 1
LABELS = ("negative", "neutral", "positive")
_TEXT = "a sentence of about the length that people write when they are asked how it went with number "
_OUTPUT = {"label": "positive", "confidence": 0.912345, "scores": dict.fromkeys(LABELS, 0.333333)}
_TARGET_ROWS_S, _TARGET_TIMES = 20_000, 3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    n_rows = parser.parse_args().rows
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        before = seconds_a_row(Path(name) / "before", n_rows // 5, a_statement_a_request)
        after = seconds_a_row(Path(name) / "after", n_rows, by_the_log)
        with init(Path(name) / "moved", task="tone", labels=LABELS) as ws:
            move_rate, bytes_a_row = moved(ws, n_rows)
    times = before / after
    write(
        "prediction_log",
        [
            Measured("a row in the log, a statement a request", 1e6 * before, "us of one core"),
            Measured("a row in the log", 1e6 * after, "us of one core", "a statement a request", times),
            Measured("rows logged", 1 / after, "rows/s of one core", "target", 1 / after / _TARGET_ROWS_S),
            Measured("rows moved from the store to files", move_rate, "rows/s of one core"),
            Measured("a row in the files", bytes_a_row, "bytes"),
        ],
        [SEED],
    )
    return 0 if times >= _TARGET_TIMES and 1 / after >= _TARGET_ROWS_S else 1


Way = Callable[[Workspace, Channel, ModelVersion, int], None]


def seconds_a_row(root: Path, n_rows: int, way: Way) -> float:
    """Seconds of processor per row, with a warm start."""
    with init(root, task="tone", labels=LABELS) as ws:
        channel, version = channels.add(ws, "web"), plant_version(ws)
        way(ws, channel, version, 1000)
        started = time.process_time()
        way(ws, channel, version, n_rows)
        return (time.process_time() - started) / n_rows


def by_the_log(ws: Workspace, channel: Channel, version: ModelVersion, n_rows: int) -> None:
    log = PredictionLog(ws, Metrics())
    with log.writer:
        for n in range(n_rows):
            text = f"{_TEXT}{n}"
            kept = False
            while not kept:
                _, kept = log.add(
                    request_id=new_id("request"), task="tone", channel=channel, unit=None, version=version,
                    arm="control", release_id=None, inputs=[text], answer=Answer("sha256:0", [{"output": _OUTPUT}]),
                    latency_ms=2.5,
                )  # fmt: skip
                if not kept:
                    time.sleep(0.01)


def a_statement_a_request(ws: Workspace, channel: Channel, version: ModelVersion, n_rows: int) -> None:
    def add(row: dict[str, object], conn: object) -> None:
        conn.execute(insert(schema.predictions), [row])  # type: ignore[attr-defined]

    with Writer(ws.store) as writer:
        for n in range(n_rows):
            text = f"{_TEXT}{n}"
            row = {
                "id": new_id("prediction"), "request_id": new_id("request"), "row": 0, "task": "tone",
                "channel_id": channel.id, "unit": None, "arm": "control", "release_id": None, "version_id": version.id,
                "artifact": "sha256:0", "adapter": None, "text": text, "text_hash": text_hash(text), "output": _OUTPUT,
                "latency_ms": 2.5, "error": None, "at": ws.clock(), "text_pair": None, **origin(ws.config_hash),
            }  # fmt: skip
            future = writer.submit(partial(add, row), durable=False)
            if n % 1000 == 0:
                future.result(60)


def moved(ws: Workspace, n_rows: int) -> tuple[float, float]:
    """Rows a second of processor, and bytes of a row, of a move of rows that are all old."""
    channel, version = channels.add(ws, "web"), plant_version(ws)
    by_the_log(ws, channel, version, n_rows)
    old = first_id("prediction", datetime.now(UTC) - timedelta(days=365))[:-20]
    with ws.store.write() as conn:
        conn.exec_driver_sql(f"update predictions set id = '{old}' || substr(id, {len(old) + 1})")
    started = time.process_time()
    assert retention.move(ws).n_rows == n_rows
    seconds = time.process_time() - started
    n_bytes = sum(path.stat().st_size for path in (ws.state_folder / "predictions").glob("*/*/*"))
    return n_rows / seconds, n_bytes / n_rows


def plant_version(ws: Workspace) -> ModelVersion:
    """A version that rows can refer to, with what it refers to itself."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import planted

    return planted.plant_version(ws)


if __name__ == "__main__":
    sys.exit(main())
