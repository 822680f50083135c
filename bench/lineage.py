"""How long does it take to say where a training row came from and what used it, when snapshots hold a million rows?

Target: under 1 s, as a person waits for it: `headrace history row ID` as a process of its own, over all snapshots.
Real store and files, synthetic rows: three channels, a label each, predictions and feedback behind every hundredth row,
several snapshots of all rows with a run and a version each.

Beside it, what was chosen among: how a row is found in a snapshot (all of a column; row groups passed over by their
statistics; a table of the store that lists the rows of every snapshot), what erasures, a backup and a restore take, and
how soon a killed server of this workspace, whose model loads at once, is ready again.

Run: python -m bench.lineage [--rows 1000000] [--snapshots 5]
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from sqlalchemy import update

from bench.reporting import Measured, write
from headrace import backups
from headrace.data import channels, parquet
from headrace.ids import new_id
from headrace.lineage import erasing, tracing
from headrace.records import Artifact, Snapshot, SnapshotRow
from headrace.store import channels as channel_rows
from headrace.store import examples, imports, predictions, runs, schema, snapshots
from headrace.store.noun import insert_many, origin
from headrace.workspace import Workspace, init

SEED = 1
CHANNELS = ("app", "mail", "web")
LABELS = ("negative", "neutral", "positive")
_CHUNK = 20_000
_ASKED_EVERY = 100  # rows for one with a prediction and feedback
_N_ASKED = 30
_TARGET_S = 1.0
_READY_S, _N_KILLS = 5.0, 5
_GROUP_ROWS = (1_000_000, 200_000, 50_000, 10_000)
_FEEDBACK = ("id", "prediction_id", "kind", "correction", "labeller", "used", "at")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--snapshots", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "ws"
        with init(root, task="tone", labels=LABELS) as ws:
            rows = fill(ws, given.rows)
            versions = plant_versions(ws, given.snapshots)
            freeze(ws, rows, versions)
            ids = asked_ids(ws, rows)
            measured = [
                Measured("rows of each snapshot", given.rows, "rows"),
                Measured("snapshots", given.snapshots, "snapshots"),
                *in_process(ws, ids),
            ]
        by_process = [one_process(root, row_id) for row_id in ids["example"][:9]]
        slowest = max(took for took, _ in by_process)
        measured += [
            Measured("history row, the process, median", statistics.median(took for took, _ in by_process), "s"),
            Measured("history row, the process, slowest", slowest, "s", "target", slowest / _TARGET_S),
            Measured("history row, its work, slowest", max(worked for _, worked in by_process), "s of processor"),
            *ways_to_find(Path(name), rows),
        ]
        measured += ready_again(root)
        measured += erased(root, rows)
    write("lineage", measured, [SEED])
    return 0 if slowest < _TARGET_S else 1


def fill(ws: Workspace, n_rows: int) -> list[SnapshotRow]:
    """Examples with a label each, some that were asked about, and the rows that a snapshot makes of them."""
    rng, now, found = random.Random(SEED), ws.clock(), list[SnapshotRow]()
    for number, name in enumerate(CHANNELS):
        channel = channels.add(ws, name)
        import_id = new_id("import")
        facts = {"channel_id": channel.id, "task": "tone", "source": f"{name}.jsonl", "now": now}
        with ws.store.write() as conn:
            imports.start(conn, import_id, **facts, config_hash=ws.config_hash)
            labeller = channel_rows.labeller_ids(conn, channel.id, {"import"}, now)["import"]
        mine = range(n_rows * number // len(CHANNELS), n_rows * (number + 1) // len(CHANNELS))
        for start in range(mine.start, mine.stop, _CHUNK):
            part = range(start, min(start + _CHUNK, mine.stop))
            ids, label_ids = examples.new_ids("example", len(part)), examples.new_ids("label", len(part))
            made = [
                SnapshotRow(i, name, f"{n:08d}", text_of(n), rng.choice(LABELS), side_of(n), 1.0, "import")
                for i, n in zip(ids, part, strict=True)
            ]
            new = [examples.NewExample(r.example_id, r.key, r.text, hash_of(r.text), r.key) for r in made]
            labels = [
                examples.NewLabel(label_id, row.example_id, labeller, row.target, None, "import")
                for label_id, row in zip(label_ids, made, strict=True)
            ]
            with ws.store.write(durable=False) as conn:
                examples.add_examples(conn, new, channel_id=channel.id, import_id=import_id, now=now)
                examples.add_labels(conn, labels, task="tone", import_id=import_id, now=now)
            found += made
        with ws.store.write() as conn:
            imports.finish(conn, import_id, {"channel": name}, now)
    return found


def text_of(n: int) -> str:
    return f"row {n} says: the {n % 977}th thing that came {n % 89} days late was {n % 7} times as good as its picture"


def hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def side_of(n: int) -> Any:
    return "test" if n % 10 < 2 else "validation" if n % 10 == 2 else "train"


def plant_versions(ws: Workspace, n: int) -> list[Any]:
    """Versions with what they refer to."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import planted

    return [planted.plant_version(ws) for _ in range(n)]


def freeze(ws: Workspace, rows: list[SnapshotRow], versions: Sequence[Any]) -> None:
    """One snapshot for each version: all rows but a few, so that no two are the same; and answers that were given."""
    for number, version in enumerate(versions):
        mine = rows[: len(rows) - 10 * number]
        folder = ws.artifacts.new_folder()
        parquet.write_rows(folder, mine)
        digest, n_bytes = ws.artifacts.put(folder)
        n_by_channel = {name: sum(row.channel == name for row in mine) for name in CHANNELS}
        one = Snapshot(
            new_id("snapshot"), "tone", f"sha256:{number:064d}", digest, len(mine), {}, n_by_channel, 0, ws.clock()
        )
        with ws.store.write() as conn:
            runs.add_artifact(conn, Artifact(digest, "snapshot", n_bytes, {}), ws.clock())
            snapshots.add(conn, one, config_hash=ws.config_hash)
            for table, row_id in ((schema.runs, version.run_id), (schema.model_versions, version.id)):
                conn.execute(update(table).where(table.c.id == row_id).values(snapshot_id=one.id))
    ask(ws, rows, replace(versions[0]))


def ask(ws: Workspace, rows: Sequence[SnapshotRow], version: Any) -> None:
    with ws.store.read() as conn:
        channel_ids = {one.name: one.id for one in channel_rows.listing(conn)}
    asked = rows[::_ASKED_EVERY]
    log = [
        predictions.LogRow(
            new_id("prediction"), new_id("request"), 0, "tone", channel_ids[row.channel], f"user-{n % 1000}",
            "control", None, version.id, version.artifact, None, row.text, None, hash_of(row.text),
            {"label": row.target, "confidence": 0.9}, 1.0, None, ws.clock(),
        )
        for n, row in enumerate(asked)
    ]  # fmt: skip
    said = [
        [new_id("feedback"), line.id, "correction", line.output["label"], f"user-{n % 1000}", True, line.at]
        for n, line in enumerate(log)
    ]
    with ws.store.write() as conn:
        predictions.add_rows(conn, log, config_hash=ws.config_hash)
        insert_many(conn, schema.feedback, _FEEDBACK, said, origin(ws.config_hash))
        for row, line, feedback in zip(asked, log, said, strict=True):
            label = schema.labels
            conn.execute(update(label).where(label.c.example_id == row.example_id).values(feedback_id=feedback[0]))
            conn.execute(
                update(schema.examples).where(schema.examples.c.id == row.example_id).values(prediction_id=line.id)
            )


def asked_ids(ws: Workspace, rows: Sequence[SnapshotRow]) -> dict[str, list[str]]:
    """Ids of several kinds, of rows by chance that have all there is to tell."""
    chosen = random.Random(SEED).sample(rows[::_ASKED_EVERY], _N_ASKED)
    found: dict[str, list[str]] = {"example": [row.example_id for row in chosen]}
    for row in chosen:
        told = tracing.trace(ws, row.example_id)
        assert len(told.versions) == len(told.snapshots) > 0
        for kind, lines in (("label", told.labels), ("feedback", told.feedback), ("prediction", told.predictions)):
            found.setdefault(kind, []).append(lines[0]["id"])
    return found


def in_process(ws: Workspace, ids: dict[str, list[str]]) -> list[Measured]:
    measured = []
    for kind, some in ids.items():
        taken = [seconds(tracing.trace, ws, row_id) for row_id in some]
        measured.append(Measured(f"trace of one {kind}, the call, median", 1000 * statistics.median(taken), "ms"))
        measured.append(Measured(f"trace of one {kind}, the call, slowest", 1000 * max(taken), "ms"))
    return measured


def one_process(root: Path, row_id: str) -> tuple[float, float]:
    """Seconds until a command ended, and seconds of processor that it took."""
    command = [sys.executable, "-m", "headrace", "history", "row", row_id, "--json", "--workspace", str(root)]
    started, before = time.perf_counter(), os.times()
    said = subprocess.run(command, check=True, capture_output=True, timeout=60)
    took, after = time.perf_counter() - started, os.times()
    assert json.loads(said.stdout)["id"] == row_id
    worked = after.children_user - before.children_user + after.children_system - before.children_system
    return took, worked


def ways_to_find(folder: Path, rows: list[SnapshotRow]) -> list[Measured]:
    """What finding one row of one snapshot costs, by row groups of several sizes and by a table that lists all rows."""
    measured = []
    parquet.write_rows(folder, rows)
    table = pq.read_table(folder / parquet.FILE)
    chosen = [row.example_id for row in random.Random(SEED).sample(rows, _N_ASKED)]
    for n in _GROUP_ROWS:
        took = seconds(pq.write_table, table, folder / parquet.FILE, compression="zstd", row_group_size=n)
        found = statistics.median(seconds(parquet.find_row, folder, row_id) for row_id in chosen)
        n_bytes = (folder / parquet.FILE).stat().st_size
        measured += [
            Measured(f"row groups of {n}: one row found", 1000 * found, "ms"),
            Measured(f"row groups of {n}: written", took, "s"),
            Measured(f"row groups of {n}: size", n_bytes / 1e6, "MB"),
        ]
    return measured + table_of_rows(folder, rows, chosen)


def table_of_rows(folder: Path, rows: Sequence[SnapshotRow], chosen: Sequence[str]) -> list[Measured]:
    path = folder / "rows.db"
    conn = sqlite3.connect(path)
    conn.execute("CREATE TABLE used (example_id TEXT, snapshot_id TEXT, PRIMARY KEY (example_id, snapshot_id)) "
                 "WITHOUT ROWID")  # fmt: skip
    snapshot_id = new_id("snapshot")
    started = time.perf_counter()
    conn.executemany("INSERT INTO used VALUES (?, ?)", ((row.example_id, snapshot_id) for row in rows))
    conn.commit()
    took = time.perf_counter() - started

    def find(row_id: str) -> object:
        return conn.execute("SELECT snapshot_id FROM used WHERE example_id = ?", (row_id,)).fetchall()

    found = statistics.median(seconds(find, row_id) for row_id in chosen)
    conn.close()
    return [
        Measured("a table of all rows: one row found", 1000 * found, "ms"),
        Measured("a table of all rows: written, for each snapshot", took, "s"),
        Measured("a table of all rows: size, for each snapshot", path.stat().st_size / 1e6, "MB"),
    ]


def ready_again(root: Path) -> list[Measured]:
    """Seconds from the start of a server's process to its first word that it is ready, after it was killed at work."""
    import stub_model  # beside planted
    from headrace.release import releases
    from headrace.workspace import open_workspace

    site = root.with_name("site")
    site.mkdir()
    env, taken = stub_model.install_plugin(site), []
    with open_workspace(root) as ws:
        releases.promote(ws, stub_model.plant_stub(ws).name, task="tone")
    n_bytes = (root / ".headrace" / "headrace.db").stat().st_size
    for _ in range(1 + _N_KILLS):
        started = time.perf_counter()
        with stub_model.running(root, env) as server:
            taken.append(time.perf_counter() - started)
            server.stop(signal.SIGKILL)
    slowest = max(taken[1:])  # the first had not been killed before
    return [
        Measured("database", n_bytes / 1e6, "MB"),
        Measured("a killed server is ready again after, median", statistics.median(taken[1:]), "s"),
        Measured("a killed server is ready again after, slowest", slowest, "s", "target", slowest / _READY_S),
    ]


def erased(root: Path, rows: Sequence[SnapshotRow]) -> list[Measured]:
    """What erasing takes, the file of the database written anew included."""
    from headrace.workspace import open_workspace

    with open_workspace(root) as ws:
        n_bytes = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        copied = seconds(backups.backup, ws, root.with_name("backup"))
        restored = seconds(backups.restore, root.with_name("backup"), root.with_name("again"))
        planned = seconds(erasing.plan, ws, example=rows[-1].example_id)
        of_example = seconds(erasing.erase, ws, example=rows[0].example_id)
        of_labeller = seconds(erasing.erase, ws, labeller="user-7", channel=CHANNELS[0])
    return [
        Measured("size of the workspace", n_bytes / 1e6, "MB"),
        Measured("backup, every byte hashed", copied, "s"),
        Measured("restore, every byte checked", restored, "s"),
        Measured("plan of an erasure, one example", planned, "s"),
        Measured("erasure of one example, with all snapshots", of_example, "s"),
        Measured("erasure of a labeller, after that", of_labeller, "s"),
    ]


def seconds(call: Callable[..., object], *args: object, **options: object) -> float:
    started = time.perf_counter()
    call(*args, **options)
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
