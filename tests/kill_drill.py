"""The kill drill: kill -9 headrace at random moments of what takes long, then look and go on.

    python tests/kill_drill.py --points 10 [--only import|train|export|improve|loop] [--seed 1]

Each point starts from a copy of the same small workspace, runs the command, and kills it: before its work begins, or
at a random moment of it. `train`, `improve` and `loop run` work in a job, a process of its own, so they are killed in
three ways: the command (its job must go on), the job, or both. Then

- the workspace must open, its database must be sound, and nothing half there may be seen;
- the same command must finish, and leave what a run that nobody killed leaves.

Prints a table; exit status 1 on any fault.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from conftest import LABELS, TINY_TRAINING, make_tiny_base, sentences, write_jsonl
from headrace import jobs
from headrace.data import snapshot
from headrace.errors import HeadraceError
from headrace.feedback import intake
from headrace.ids import new_id
from headrace.records import ModelVersion, Prediction
from headrace.release import controls
from headrace.store import channels, examples, imports, predictions, runs, versions
from headrace.store import ledger as ledger_rows
from headrace.store import releases as release_rows
from headrace.workspace import Workspace, open_workspace
from planted import log_row

KINDS = ("import", "train", "export", "improve", "loop")
TIMEOUT_S = 180
N_IMPORTED = 30_000
SETTINGS = (
    TINY_TRAINING
    + """epochs = 4
learning_rate = 0.005
patience = 6

[export]
precision = "fp32"

[feedback]
min_new_labels = 10

[release]
max_drop_share = 1.0
"""
)


@dataclass(frozen=True)
class Drill:
    """One command to kill: where it starts from, what shows that its work began, and what it leaves."""

    kind: str
    template: Path
    command: tuple[str, ...]
    """`{root}` stands for the copy of the workspace."""
    sign: str
    """A pattern of files in the copy that appear when the work begins."""
    outcome: Callable[[Path], dict[str, Any]]


@dataclass(frozen=True)
class Reference:
    """A run that nobody killed."""

    outcome: dict[str, Any]
    begins_s: float
    lasts_s: float
    """From the first sign of work to the end."""


# --- Workspaces to start from -------------------------------------------------------------------------------------


def make_drills(folder: Path, kinds: tuple[str, ...] = KINDS) -> list[Drill]:
    """Build the workspaces, each from the one before, as far as the kinds need them."""
    base = make_tiny_base(folder / "base")
    stages = [_empty(folder / "empty", base)]
    if set(kinds) - {"import"}:
        stages.append(_next(stages[-1], folder / "imported", _import_some))
    if {"export", "improve", "loop"} & set(kinds):
        stages.append(_next(stages[-1], folder / "trained", _train))
    if {"improve", "loop"} & set(kinds):
        stages.append(_next(stages[-1], folder / "answered", _collect_feedback))
    source = write_jsonl(folder / "many.jsonl", [*sentences(N_IMPORTED, channel="a"), {"id": "bad", "text": ""}])
    known = {
        "import": (0, ("import", "a", str(source)), ".headrace/headrace.db-wal", _imported),
        "train": (1, ("train",), ".headrace/runs/run_*/", _made),
        "export": (2, ("export", "1", "{root}/out"), ".headrace/scratch/new-*", _exported),
        "improve": (3, ("improve",), ".headrace/runs/run_*/", _made),
        "loop": (3, ("loop", "run", "--once"), ".headrace/runs/run_*/", _made),
    }
    return [
        Drill(kind, stages[stage], command, sign, outcome)
        for kind, (stage, command, sign, outcome) in known.items()
        if kind in kinds
    ]


def _empty(root: Path, base: Path) -> Path:
    _run(root, "init", str(root), "--task", "tone", "--labels", ",".join(LABELS))
    with (root / "headrace.toml").open("a") as file:
        file.write(SETTINGS.format(base=json.dumps(str(base))))
    for name in ("a", "b"):
        _run(root, "channel", "add", name)
    return root


def _next(before: Path, root: Path, change: Callable[[Path], None]) -> Path:
    shutil.copytree(before, root)
    change(root)
    return root


def _import_some(root: Path) -> None:
    for name in ("a", "b"):
        _run(root, "import", name, str(write_jsonl(root / f"{name}.jsonl", sentences(160, channel=name))))


def _train(root: Path) -> None:
    _run(root, "train")


def _collect_feedback(root: Path) -> None:
    """Answers and corrections as a server would have logged them."""
    with open_workspace(root) as ws:
        version = controls.ensure_control(ws, "tone")
        with ws.store.write() as conn:
            channel = channels.find(conn, "a")
            assert channel is not None
            rows = sentences(80, seed=1, channel="a")
            answers = [_answer(ws, version, row["text"]) for row in rows]
            logged = [log_row(answer, channel.id, row) for row, answer in enumerate(answers)]
            predictions.add_rows(conn, logged, config_hash=ws.config_hash)
        for answer, row in zip(answers, rows, strict=True):
            intake.give(ws, answer.id, correction=row["label"], labeller="user")


def _answer(ws: Workspace, version: ModelVersion, text: str) -> Prediction:
    return Prediction(
        id=new_id("prediction"), request_id="req_1", task="tone", channel="a", unit=None, arm="control",
        release_id=None, version_id=version.id, artifact=version.artifact, adapter=None, text=text,
        text_hash=hashlib.sha256(text.encode()).hexdigest(), output={"label": "neutral"}, latency_ms=1.0, error=None,
        at=ws.clock(),
    )  # fmt: skip


# --- What a command leaves ----------------------------------------------------------------------------------------


def _imported(root: Path) -> dict[str, Any]:
    with open_workspace(root) as ws, ws.store.read() as conn:
        rows = sorted((row.channel, row.key, row.text, row.value) for row in examples.labelled_rows(conn, "tone"))
        reports = imports.reports(conn, "tone")
        quarantined = sum(len(imports.quarantined(conn, report["id"])) for report in reports)
    return {"n_rows": len(rows), "rows": _hash(rows), "has_quarantined": quarantined > 0}


def _made(root: Path) -> dict[str, Any]:
    with open_workspace(root) as ws, ws.store.read() as conn:
        made = versions.listing(conn, "tone")
        ledger = ledger_rows.listing(conn, "tone")
        return {
            "numbers": [version.number for version in made],
            "checkpoints": [version.checkpoint for version in made],
            "artifacts": [version.artifact for version in made],
            "snapshots": [snapshot.find(ws, version.snapshot_id).content_hash for version in made],
            "metrics": [_metrics(conn, version) for version in made],
            # `hold` says that improve was run once more, with no new evidence
            "ledger": [line.kind for line in ledger if line.kind != "hold"],
            "release": getattr(release_rows.open_release(conn, "tone"), "state", None),
        }


def _metrics(conn: Any, version: ModelVersion) -> dict[str, float]:
    found = versions.evaluations(conn, version.task, version_id=version.id)
    return {one.predictor: one.results["overall"]["macro_f1"] for one in found}


def _exported(root: Path) -> dict[str, Any]:
    files = sorted(path for path in (root / "out").rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


# --- What must hold at every moment -------------------------------------------------------------------------------


def faults_in(root: Path, drill: Drill, expected: dict[str, Any]) -> list[str]:
    """What is wrong with a workspace in which something was killed; empty when it is sound."""
    try:
        with open_workspace(root) as ws:
            faults = [*_store_faults(ws), *_import_faults(ws), *_artifact_faults(ws), *_version_faults(ws)]
            faults += _release_faults(ws)
    except HeadraceError as error:
        return [f"does not open: {error}"]
    if drill.kind == "import" and (n := _imported(root)["n_rows"]) not in (0, expected["n_rows"]):
        faults.append(f"{n} of {expected['n_rows']} rows are seen")
    if drill.kind == "export" and (root / "out").exists() and _exported(root) != expected:
        faults.append("a half export is seen")
    return faults


def _store_faults(ws: Workspace) -> Iterator[str]:
    with ws.store.read() as conn:
        for check in ("integrity_check", "foreign_key_check"):
            for row in conn.exec_driver_sql(f"PRAGMA {check}").all():
                if tuple(row) != ("ok",):
                    yield f"{check}: {tuple(row)}"


def _import_faults(ws: Workspace) -> Iterator[str]:
    with ws.store.read() as conn:
        seen = {row.example_id for row in examples.labelled_rows(conn, "tone")}
        for import_id in imports.unfinished(conn):
            query = "SELECT id FROM examples WHERE import_id = ?"
            n = sum(row.id in seen for row in conn.exec_driver_sql(query, (import_id,)))
            if n:
                yield f"{n} examples of the running import {import_id} are seen"


def _artifact_faults(ws: Workspace) -> Iterator[str]:
    with ws.store.read() as conn:
        digests = conn.exec_driver_sql("SELECT digest FROM artifacts").scalars().all()
    for digest in digests:
        try:
            ws.artifacts.get(digest)
        except HeadraceError as error:
            yield str(error)


def _version_faults(ws: Workspace) -> Iterator[str]:
    with ws.store.read() as conn:
        made = versions.listing(conn, "tone")
        if [version.number for version in made] != list(range(1, len(made) + 1)):
            yield f"version numbers {[version.number for version in made]}"
        for version in made:
            found = set(_metrics(conn, version))
            if not {"version", "majority", "centroid"} <= found:
                yield f"{version.name} has the evaluations {sorted(found)} only"
            run = runs.find(conn, version.run_id)
            if run is None or run.state != "done":
                yield f"{version.name} is of a run that is not done"


def _release_faults(ws: Workspace) -> Iterator[str]:
    with ws.store.read() as conn:
        lines = {(line.release_id, line.kind) for line in ledger_rows.listing(conn, "tone")}
        for release_id, state in conn.exec_driver_sql("SELECT id, state FROM releases").all():
            end = {"open": "start", "promoted": "promote", "rejected": "reject", "stopped": "stop"}[state]
            if (release_id, "start") not in lines or (release_id, end) not in lines:
                yield f"release {release_id} is {state} without its line in the ledger"


# --- Running and killing ------------------------------------------------------------------------------------------


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "HEADRACE_WORKSPACE": str(root), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def _start(root: Path, *command: str) -> "subprocess.Popen[str]":
    words = [word.format(root=root) for word in command]
    return subprocess.Popen(
        [sys.executable, "-m", "headrace", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_environment(root),
    )  # fmt: skip


def _run(root: Path, *command: str) -> str:
    process = _start(root, *command)
    out, err = process.communicate(timeout=TIMEOUT_S)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {err[-2000:]}{out[-2000:]}")
    return out


@contextmanager
def _copy_of(drill: Drill) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kill-drill-") as folder:
        root = Path(folder) / "ws"
        shutil.copytree(drill.template, root)
        try:
            yield root
        finally:
            _end_jobs(root)


def _end_jobs(root: Path) -> None:
    with open_workspace(root) as ws:
        for job in jobs.listing(ws):
            if job.state in ("queued", "running") and job.pid is not None:
                os.kill(job.pid, signal.SIGKILL)


def _wait_for_sign(root: Path, drill: Drill, process: "subprocess.Popen[str]") -> None:
    until = time.monotonic() + TIMEOUT_S
    there = set(root.glob(drill.sign)) if drill.kind != "import" else set()
    while process.poll() is None and set(root.glob(drill.sign)) <= there and time.monotonic() < until:
        time.sleep(0.005)


def reference_of(drill: Drill) -> Reference:
    with _copy_of(drill) as root:
        started = time.monotonic()
        process = _start(root, *drill.command)
        _wait_for_sign(root, drill, process)
        begun = time.monotonic()
        _, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, err[-2000:]
        return Reference(drill.outcome(root), begun - started, time.monotonic() - begun)


def kill_once(drill: Drill, reference: Reference, *, share: float, before: bool, whom: str) -> list[str]:
    """Kill at `share` of the time before the work begins, or of the work; returns the faults."""
    with _copy_of(drill) as root:
        process = _start(root, *drill.command)
        try:
            if not before:
                _wait_for_sign(root, drill, process)
            time.sleep(share * (reference.begins_s if before else reference.lasts_s))
            faults = _kill(root, process, whom)
        finally:
            process.kill()
            process.communicate()
        faults += faults_in(root, drill, reference.outcome)
        try:
            _run(root, *drill.command)
        except RuntimeError as error:
            if drill.kind != "export" or "not an empty directory" not in str(error):  # it was done before the kill
                return [*faults, f"run again: {error}"]
        faults += faults_in(root, drill, reference.outcome)
        found = drill.outcome(root)
        faults += [
            f"{key}: {found.get(key)} instead of {value}"
            for key, value in reference.outcome.items()
            if found.get(key) != value
        ]
        return faults + [f"left over: {path.name}" for path in _leftovers(root)]


def _kill(root: Path, process: "subprocess.Popen[str]", whom: str) -> list[str]:
    """Kill the command, its job, or both; what came of it that should not have."""
    job = _job_of(process)
    if whom in ("job", "both") and job is not None:
        job.kill()
    if whom in ("command", "both") or job is None:
        process.kill()
        process.wait()
    if whom == "command" and job is not None:
        time.sleep(0.2)
        return [] if job.is_running() or _is_done(root) else ["the job ended with its command"]
    if whom == "job" and job is not None:
        _, err = process.communicate(timeout=TIMEOUT_S)
        told = process.returncode == 0 or (process.returncode == 1 and "Run the same command to go on" in err)
        return [] if told and "Traceback" not in err else [f"the command ended with {process.returncode}: {err[-500:]}"]
    return []


def _job_of(process: "subprocess.Popen[str]") -> psutil.Process | None:
    try:
        return next((c for c in psutil.Process(process.pid).children() if "headrace.jobs.process" in c.cmdline()), None)
    except psutil.NoSuchProcess:
        return None


def _is_done(root: Path) -> bool:
    with open_workspace(root) as ws:
        return all(job.state == "done" for job in jobs.listing(ws))


def _leftovers(root: Path) -> list[Path]:
    """Unfinished folders that nobody will remove."""
    found = [*root.glob(".headrace/scratch/new-*"), *root.glob(".headrace/runs/run_*/"), *root.glob(".out*")]
    return found


def drill_points(
    drill: Drill, reference: Reference, n_points: int, rng: random.Random
) -> Iterator[tuple[str, list[str]]]:
    """(description, faults) of each point: three in ten before the work begins, the others spread over it."""
    n_before = round(0.3 * n_points)
    for i in range(n_points):
        before = i < n_before
        part, n_parts = (i, n_before) if before else (i - n_before, n_points - n_before)
        share = (part + rng.random()) / n_parts
        whom = ("command", "job", "both")[i % 3] if drill.kind in ("train", "improve", "loop") else "command"
        when = f"{share:.0%} of the way to its work" if before else f"{share:.0%} of its work"
        yield f"{whom} at {when}", kill_once(drill, reference, share=share, before=before, whom=whom)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=10)
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    n_faulty = 0
    with tempfile.TemporaryDirectory(prefix="kill-drill-") as folder:
        for drill in make_drills(Path(folder), (given.only,) if given.only else KINDS):
            reference = reference_of(drill)
            print(f"{drill.kind}: begins after {reference.begins_s:.1f} s, lasts {reference.lasts_s:.1f} s", flush=True)
            for at, faults in drill_points(drill, reference, given.points, rng):
                n_faulty += bool(faults)
                print(f"  {drill.kind:8} {at:44} {'; '.join(faults) or 'sound, and finished'}", flush=True)
    print(f"{n_faulty} faulty points")
    return int(n_faulty > 0)


if __name__ == "__main__":
    sys.exit(main())
