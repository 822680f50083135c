"""How long does it take to say who answered for a channel at an instant, in a ledger of a million lines?

Target: under 1 s, offline, as a person waits for it: `headrace history --at ... --channel ...` as a process of its own.
The ledger is as hard as it gets: three lines in ten put a version in charge, of one of 50 channels or now and then of
the whole task; one in ten belongs to a release. Beside it: what a server asks at every change, going back, a further
line, and the check of all hashes.

Run: python -m bench.history [--lines 1000000]
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.reporting import Measured, write
from headrace.data import channels
from headrace.ids import new_id
from headrace.records import Decision, ModelVersion, Release
from headrace.release import controls, ledger, releases, rollbacks
from headrace.store import ledger as lines
from headrace.store import releases as rows
from headrace.store import schema
from headrace.store.noun import insert_many, origin
from headrace.workspace import Workspace, init

SEED = 1
N_CHANNELS, N_VERSIONS, N_RELEASES = 50, 100, 10_000
START = datetime(2024, 1, 1, tzinfo=UTC)
KINDS = ("hold",) * 50 + ("promote",) * 20 + ("rollback",) * 10 + ("advance", "reject") * 10
_CHUNK = 20_000
_TARGET_S = 1.0
COLUMNS = [column.name for column in schema.ledger.c if column.name not in ("config_hash", "code_version")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=1_000_000)
    n_lines = parser.parse_args().lines
    with tempfile.TemporaryDirectory() as name:
        root = Path(name) / "ws"
        with init(root, task="tone", labels=("negative", "positive")) as ws:
            fill(ws, n_lines)
            measured = asked(ws) + changed(ws) + checked(ws)
        by_process = [one_process(root, when, channel) for when, channel in moments(9)]
    measured = [Measured("lines of the ledger", n_lines, "lines"), *of_processes(by_process), *measured]
    write("history", measured, [SEED])
    return 0 if max(took for took, _ in by_process) < _TARGET_S else 1


def fill(ws: Workspace, n_lines: int) -> None:
    """A ledger as if written from START on, one line a minute, with a sound chain."""
    ids: list[str | None] = [channels.add(ws, f"channel-{n}").id for n in range(N_CHANNELS)]
    versions = plant_versions(ws)
    with ws.store.write() as conn:
        tried = [a_release(versions, n) for n in range(N_RELEASES)]
        for release in tried:
            rows.add(conn, release, config_hash=ws.config_hash)
        chunk: list[list[Any]] = []
        for line in made(n_lines, ids, [v.id for v in versions], [r.id for r in tried], origin(ws.config_hash)):
            chunk.append([line[column] for column in COLUMNS])
            if len(chunk) == _CHUNK or line["seq"] == n_lines:
                insert_many(conn, schema.ledger, COLUMNS, chunk, origin(ws.config_hash))
                chunk = []


def made(
    n_lines: int, ids: list[str | None], versions: list[str], tried: list[str], constants: dict[str, str]
) -> Iterator[dict[str, Any]]:
    rng = random.Random(SEED)
    prev_hash = ""
    for seq in range(1, n_lines + 1):
        is_first = seq == 1
        kind = "promote" if is_first else rng.choice(KINDS)
        line = {
            "seq": seq,
            "id": new_id("ledger"),
            "task": "tone",
            "channel_id": None if is_first or rng.random() < 0.001 else rng.choice(ids),
            "kind": kind,
            "version_id": rng.choice(versions),
            "release_id": rng.choice(tried) if rng.random() < 0.1 else None,
            "reason": f"The candidate answers better than the control: {rng.randrange(500)} wins and 3 losses",
            "evidence": {"n_labelled": rng.randrange(1000), "alpha": 0.05, "channels": {"a": {"e_harm": rng.random()}}},
            "actor": "improve",
            "at": START + timedelta(minutes=seq),
            "prev_hash": prev_hash,
            **constants,
        }
        prev_hash = line["hash"] = lines.line_hash(line)
        yield line


def a_release(versions: list[ModelVersion], number: int) -> Release:
    at = START + timedelta(minutes=100 * number)
    control, candidate = versions[number % N_VERSIONS], versions[(number + 1) % N_VERSIONS]
    return Release(
        new_id("release"), "tone", control.id, candidate.id, "shadow", {"alpha": 0.05, "channels": []}, "stopped", at,
        at + timedelta(minutes=90), weights={"control": 0.9, "candidate": 0.1},
    )  # fmt: skip


def moments(n: int) -> list[tuple[datetime, str]]:
    """Instants and channels by chance; the first instant is the earliest there is."""
    rng = random.Random(SEED)
    earliest, spread_s = START + timedelta(minutes=1), timedelta(days=690).total_seconds()
    first = [(earliest, "channel-0")]
    return first + [
        (earliest + timedelta(seconds=rng.uniform(0, spread_s)), f"channel-{rng.randrange(N_CHANNELS)}")
        for _ in range(n - 1)
    ]


def asked(ws: Workspace) -> list[Measured]:
    """What only reads."""
    answers = [seconds(controls.served_at, ws, when, channel=channel) for when, channel in moments(100)]
    return [
        Measured("who answered at an instant, the call, median", 1000 * statistics.median(answers), "ms"),
        Measured("who answered at an instant, the call, slowest", 1000 * max(answers), "ms"),
        Measured("who answers now, in all channels", 1000 * _median(controls.serving, ws), "ms"),
        Measured("status of the task", 1000 * _median(releases.status, ws), "ms"),
    ]


def changed(ws: Workspace) -> list[Measured]:
    """What writes a line."""
    release = releases.start(ws, candidate=str(N_VERSIONS // 2), scope=["channel-0"])
    decided = _median(releases.decide, ws, release, Decision("hold", "wait", {"n": 1}))
    releases.stop(ws)
    return [
        Measured("a decision", 1000 * decided, "ms"),
        Measured("rollback of a channel", 1000 * going_back(ws, "channel-1"), "ms"),
        Measured("rollback of the whole task", 1000 * going_back(ws, None), "ms"),
    ]


def going_back(ws: Workspace, channel: str | None) -> float:
    """Median seconds of a rollback, each after a promotion."""
    taken = []
    now = controls.serving(ws, channel=channel).control.number
    for number in [number for number in range(1, 7) if number != now][:5]:
        releases.promote(ws, str(number), channel=channel)
        taken.append(seconds(rollbacks.rollback, ws, channel=channel))
    return statistics.median(taken)


def checked(ws: Workspace) -> list[Measured]:
    started = time.perf_counter()
    found = ledger.verify(ws)
    assert found["first_broken"] is None
    return [Measured("history --verify", time.perf_counter() - started, "s")]


def of_processes(taken: list[tuple[float, float]]) -> list[Measured]:
    what = "history --at --channel, the process"
    slowest = max(took for took, _ in taken)
    return [
        Measured(f"{what}, median", statistics.median(took for took, _ in taken), "s"),
        Measured(f"{what}, slowest", slowest, "s", "target", slowest / _TARGET_S),
        Measured(f"{what}, its work, slowest", max(worked for _, worked in taken), "s of processor"),
    ]


def one_process(root: Path, when: datetime, channel: str) -> tuple[float, float]:
    """Seconds until it ended, and seconds of processor that it took."""
    command = [sys.executable, "-m", "headrace", "history", "--at", when.isoformat(), "--channel", channel, "--json"]
    started, before = time.perf_counter(), os.times()
    subprocess.run([*command, "--workspace", str(root)], check=True, capture_output=True, timeout=60)
    after = os.times()
    worked = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - started, worked


def seconds(call: Callable[..., object], *args: object, **options: object) -> float:
    started = time.perf_counter()
    call(*args, **options)
    return time.perf_counter() - started


def _median(call: Callable[..., object], *args: object, **options: object) -> float:
    return statistics.median(seconds(call, *args, **options) for _ in range(5))


def plant_versions(ws: Workspace) -> list[ModelVersion]:
    """Versions that lines can refer to, with what they refer to themselves."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import planted

    return [planted.plant_version(ws) for _ in range(N_VERSIONS)]


if __name__ == "__main__":
    sys.exit(main())
