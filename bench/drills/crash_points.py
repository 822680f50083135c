"""R1: a process that is killed at any one of the system calls by which it writes. What is there afterwards?

Each script works on a copy of the same workspace and writes down what it was told is done. strace first lists its
calls, then the script runs once for each (kind of call, number), and the kernel kills it as it begins that call
(https://man7.org/linux/man-pages/man1/strace.1.html, --inject). Then the workspace must open and be sound, have all
that was acknowledged, and the same script must come to its end.

As a program it is the process that runs the scripts.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

from bench.drills import Figure

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from headrace.workspace import Workspace

_CALLS = ("pwrite64", "fdatasync", "fsync", "rename", "renameat2", "unlink", "ftruncate", "link")
_TIMEOUT_S = 60
_SEED = 1
_LATER = "said after the backup"

Tell = Callable[[str], None]


def run(n_points: int | None = None, scripts: tuple[str, ...] = ()) -> list[Figure]:
    """
    Args:
        n_points: of all scripts together, drawn at random; None: all.
    """
    rng, figures = random.Random(_SEED), []
    with tempfile.TemporaryDirectory(prefix="headrace-drill-") as name, Runner() as runner:
        template, n_all, n_run, faults = _template(Path(name)), 0, 0, []
        chosen = scripts or tuple(SCRIPTS)
        for script in chosen:
            points = _points(runner, template, script, Path(name))
            n_all += len(points)
            some = points if n_points is None else rng.sample(points, min(len(points), -(-n_points // len(chosen))))
            found = [fault for point in some for fault in _crash(runner, template, script, point, Path(name))]
            for fault in found:
                print(f"    {fault}", file=sys.stderr, flush=True)
            n_run, faults = n_run + len(some), faults + found
            figures.append(Figure(f"{script}: points", len(some), f"of {len(points)}"))
    return [
        *figures,
        Figure("points at which it was killed", n_run, f"of {n_all}", at_least=1),
        Figure("points after which something was wrong", len({fault.split(":")[0] for fault in faults}), "", at_most=0),
    ]


# --- What is killed -----------------------------------------------------------------------------------------------


def feedback(ws: "Workspace", tell: Tell) -> None:
    from headrace.feedback import intake

    (prediction,) = _facts(ws)["predictions"]
    for number in range(3):
        key = f"key-{number}"
        tell(intake.give(ws, prediction, comment=key, labeller="user", idempotency_key=key).id)


def publish(ws: "Workspace", tell: Tell) -> None:
    """A version, its artifact first, as a training does it."""
    from sqlalchemy import text

    from headrace.records import Artifact
    from headrace.store import runs, versions
    from planted import NOON, plant_version
    from stub_model import stub_artifact

    with ws.store.read() as conn:
        if len(versions.listing(conn, "tone")) > 2:
            return
    digest = stub_artifact(ws, answer="positive", of="publish")
    with ws.store.write() as conn:
        runs.add_artifact(conn, Artifact(digest, "stub", 1, {}), NOON)
        same = SimpleNamespace(store=SimpleNamespace(write=lambda: nullcontext(conn)))
        made = plant_version(same)  # type: ignore[arg-type]
        conn.execute(text("UPDATE model_versions SET artifact = :a WHERE id = :id"), {"a": digest, "id": made.id})
    tell(made.id)


def promote(ws: "Workspace", tell: Tell) -> None:
    from headrace.release import controls, releases

    if controls.serving(ws, "tone").control.name != "tone/2":
        tell(releases.promote(ws, "tone/2", task="tone").id)


def rollback(ws: "Workspace", tell: Tell) -> None:
    from headrace.release import controls, rollbacks

    promote(ws, tell)
    if controls.serving(ws, "tone").control.name != "tone/1":
        tell(rollbacks.rollback(ws, task="tone").id)


def keys(ws: "Workspace", tell: Tell) -> None:
    from headrace.access import keys as access_keys

    made = access_keys.create(ws, "shop", scopes=["predict"])
    tell(made.record.id)
    access_keys.revoke(ws, made.record.id)
    tell(f"revoked {made.record.id}")


def migrate(ws: "Workspace", tell: Tell) -> None:
    """Opening it did that: the copy's tables are of the first revision."""
    tell("migrated")


def backup(ws: "Workspace", tell: Tell) -> None:
    from headrace import backups

    if not ws.root.with_name("b").exists():
        backups.backup(ws, ws.root.with_name("b"))
    tell("backup")


def follow(ws: "Workspace", tell: Tell) -> None:
    """Two times, each with something new."""
    import threading

    from headrace import backups

    stop = threading.Event()
    stop.set()  # it copies what there is once more before it ends
    for _ in range(2):
        feedback(ws, tell)
        backups.follow(ws, ws.root.with_name("f"), stop=stop)
        tell("followed")


def restore(ws: "Workspace", tell: Tell) -> None:
    """Over a workspace that had more since."""
    from headrace import backups

    backups.restore(ws.root.with_name("b"), ws.root.with_name("r"), replace=True)
    tell("restored")


def erase(ws: "Workspace", tell: Tell) -> None:
    from furnished import NAME
    from headrace.errors import NotFound
    from headrace.lineage import erasing

    try:
        tell(erasing.erase(ws, labeller=NAME, channel="web", keep_files=False).id)
    except NotFound:  # it was done before the kill
        tell("erased")


SCRIPTS: dict[str, Callable[["Workspace", Tell], None]] = {
    "feedback": feedback, "publish": publish, "promote": promote, "rollback": rollback, "keys": keys,
    "migrate": migrate, "backup": backup, "follow": follow, "restore": restore, "erase": erase,
}  # fmt: skip


def _facts(ws: "Workspace") -> dict[str, Any]:
    return json.loads((ws.root / "facts.json").read_text())  # type: ignore[no-any-return]


# --- The workspace and the points -----------------------------------------------------------------------------------


def _template(folder: Path) -> Path:
    """Two workspaces: one of now, with two versions and something of a person; one of the first tables.

    Of the first a backup, and a copy that had feedback since.
    """
    from conftest import LABELS
    from furnished import furnish
    from headrace import backups
    from headrace.feedback import intake
    from headrace.lineage import receipts, tombstones
    from headrace.release import controls
    from headrace.workspace import init, open_workspace
    from stub_model import plant_stub

    root, later = folder / "template" / "now", folder / "template" / "later"
    with init(root, task="tone", labels=LABELS) as ws:
        made = furnish(ws, root)
        controls.ensure_control(ws, "tone")
        plant_stub(ws)
        tombstones.key_of(ws.state_folder)
        receipts.make_key(ws)
        (root / "facts.json").write_text(json.dumps({"predictions": [made.prediction]}))
    with open_workspace(root) as ws:
        backups.backup(ws, root.with_name("backup"))
    shutil.copytree(root, later)
    with open_workspace(later) as ws:
        intake.give(ws, made.prediction, comment=_LATER, labeller="user", idempotency_key="later")
    _old_workspace(folder / "template" / "old")
    return folder / "template"


def _old_workspace(root: Path) -> None:
    """Of the first tables, with a channel, examples and a ledger."""
    from sqlalchemy import text

    from conftest import LABELS
    from headrace.store import Store
    from headrace.workspace import init
    from store.test_migrations import migrate as to_revision

    init(root, task="tone", labels=LABELS).close()
    for path in (root / ".headrace").glob("headrace.db*"):
        path.unlink()
    store = Store(f"sqlite:///{root / '.headrace' / 'headrace.db'}", lock_path=root / ".headrace" / "store.lock")
    with store.write() as conn:
        to_revision(conn, "0001")
        conn.execute(text("insert into channels values ('chn_1', 'web', '', '', '', '2026-03-01 12:00:00')"))
        for n in range(200):
            values = f"'ex_{n}', 'chn_1', 'k{n}', 'so {n}', 'h{n}', 'web:k{n}', '2026-03-01 12:00:00'"
            columns = "id, channel_id, key, text, text_hash, group_key, created_at"
            conn.execute(text(f"insert into examples ({columns}) values ({values})"))
    store.close()


def _points(runner: "Runner", template: Path, script: str, folder: Path) -> list[tuple[str, int]]:
    """Every call of a run that nobody kills: kind, and number within the kind. strace counts by thread, so do we."""
    root, log = _copy(template, script, folder), folder / "calls"
    if runner.run(script, root, folder / "acked", ["-o", str(log), "-e", f"trace={','.join(_CALLS)}"]):
        raise RuntimeError(f"{script} fails where nobody kills it")
    counts, points, main_pid = Counter[str](), [], ""
    for line in log.read_text().splitlines():
        found = re.match(r"(\d+) +(\w+)\(", line)
        main_pid = main_pid or (found[1] if found else "")
        if found is not None and found[2] in _CALLS and found[1] == main_pid:
            counts[found[2]] += 1
            points.append((found[2], counts[found[2]]))
    return points


def _copy(template: Path, script: str, folder: Path) -> Path:
    root = folder / "ws"
    for one in (root, *(path for name in "bfr" for path in _places(root, name))):
        shutil.rmtree(one, ignore_errors=True)
    shutil.copytree(template / ("old" if script == "migrate" else "now"), root)
    if script == "restore":
        shutil.copytree(template / "backup", root.with_name("b"))
        shutil.copytree(template / "later", root.with_name("r"))
    (folder / "acked").unlink(missing_ok=True)
    return root


def _places(root: Path, name: str) -> list[Path]:
    """Folders of a name beside a workspace, and what of them a restore put aside or left."""
    return [*root.parent.glob(name), *root.parent.glob(f"{name}.b*"), *root.parent.glob(f".{name}.*")]


class Runner:
    """A process that has everything imported, and forks one for each run: starting Python anew would take a second."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "bench.drills.crash_points"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, script: str, root: Path, acked: Path, options: list[str] | None = None) -> int:
        """Its exit status, as waitpid gives it.

        Args:
            options: of strace; None: nobody traces it.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([script, str(root), str(acked), options]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def _crash(runner: Runner, template: Path, script: str, point: tuple[str, int], folder: Path) -> Iterator[str]:
    root, acked = _copy(template, script, folder), folder / "acked"
    call, number = point
    at = f"{script} at {call} {number}"
    options = ["-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
    if runner.run(script, root, acked, options) != signal.SIGKILL:
        yield f"{at}: it was not killed"
    told = acked.read_text().splitlines() if acked.exists() else []
    yield from (f"{at}: {fault}" for fault in _faults(root, script, told))
    if runner.run(script, root, acked):
        yield f"{at}: the same script fails afterwards"
    told = acked.read_text().splitlines()
    yield from (f"{at}, and run again: {fault}" for fault in [*_faults(root, script, told), *_of_the_end(root, script)])


# --- What must hold -------------------------------------------------------------------------------------------------


def _faults(root: Path, script: str, told: list[str]) -> Iterator[str]:
    from headrace.errors import HeadraceError
    from headrace.workspace import open_workspace

    try:
        with open_workspace(root) as ws:
            yield from _unsound(ws)
            with ws.store.read() as conn:
                yield from _of_acknowledged(conn, script, told)
            yield from _of_charge(ws, script)
            yield from _of_backups(ws, told)
        if script == "restore":
            yield from _of_restored(root, told)
    except HeadraceError as error:
        yield f"{error}"


def _unsound(ws: "Workspace") -> Iterator[str]:
    from headrace import auditing
    from headrace.release import ledger

    with ws.store.read() as conn:
        for check in ("integrity_check", "foreign_key_check"):
            yield from (str(row) for row in conn.exec_driver_sql(f"PRAGMA {check}") if tuple(row) != ("ok",))
        recorded = list(conn.exec_driver_sql("SELECT digest FROM artifacts WHERE kind = 'stub'").scalars())
    for name, verify in (("ledger", ledger.verify), ("audit log", auditing.verify)):
        if verify(ws)["first_broken"] is not None:
            yield f"the {name} is broken"
    for digest in {*recorded, *ws.artifacts.digests()}:
        ws.artifacts.get(digest)


def _of_acknowledged(conn: "Connection", script: str, told: list[str]) -> Iterator[str]:
    tables = {"feedback": "feedback", "follow": "feedback", "publish": "model_versions", "keys": "api_keys"}
    tables |= {"promote": "ledger", "rollback": "ledger"}
    if script == "migrate":
        n = conn.exec_driver_sql("SELECT count(*) FROM examples").scalar()
        if n != 200:
            yield f"{n} of 200 examples are there"
    if script not in tables:
        return
    there = set(conn.exec_driver_sql(f"SELECT id FROM {tables[script]}").scalars())
    for line in told:
        if line.startswith("revoked "):
            query = "SELECT revoked_at FROM api_keys WHERE id = ?"
            if conn.exec_driver_sql(query, (line.removeprefix("revoked "),)).scalar() is None:
                yield f"{line}: it counts again"
        elif line != "followed" and line not in there:
            yield f"acknowledged and not there: {line}"
    if script in ("feedback", "follow"):
        query = "SELECT count(*) FROM feedback WHERE idempotency_key LIKE 'key-%' GROUP BY idempotency_key"
        if any(n > 1 for n in conn.exec_driver_sql(query).scalars()):
            yield "feedback was written twice"


def _of_charge(ws: "Workspace", script: str) -> Iterator[str]:
    from headrace.release import controls

    if script != "migrate" and controls.serving(ws, "tone").control.name not in ("tone/1", "tone/2"):
        yield "nobody is in charge"


def _of_backups(ws: "Workspace", told: list[str]) -> Iterator[str]:
    """A backup that is there is whole; what was followed is in it."""
    from headrace import backups
    from headrace.workspace import open_workspace

    if ws.root.with_name("b").exists():
        backups.verify(ws.root.with_name("b"))
    if "followed" not in told:
        return
    with tempfile.TemporaryDirectory() as name:
        backups.restore(ws.root.with_name("f"), Path(name) / "again")
        with open_workspace(Path(name) / "again") as again, again.store.read() as conn:
            there = set(conn.exec_driver_sql("SELECT id FROM feedback").scalars())
    last = max(n for n, line in enumerate(told) if line == "followed")
    missing = {line for line in told[:last] if line != "followed"} - there
    if missing:
        yield f"followed, and not in the backup: {sorted(missing)}"


def _of_restored(root: Path, told: list[str]) -> Iterator[str]:
    """What is replaced is kept whole, wherever it is; a restore that said so took its place."""
    from headrace.workspace import open_workspace

    place, holders = root.with_name("r"), []
    for one in (path for path in _places(root, "r") if not path.name.startswith(".")):
        with open_workspace(one) as ws:
            yield from (f"{one.name}: {fault}" for fault in _unsound(ws))
            with ws.store.read() as conn:
                query = "SELECT 1 FROM feedback WHERE comment = ?"
                if conn.exec_driver_sql(query, (_LATER,)).first():
                    holders.append(one)
    if not holders:
        yield "what was to be replaced is gone"
    if "restored" in told and (place in holders or not place.exists()):
        yield "it said that it restored, and did not"


def _of_the_end(root: Path, script: str) -> Iterator[str]:
    from furnished import NAME, holders

    if script == "erase" and (found := holders(root, NAME)):
        yield f"erased, and in {found}"
    left = [*root.glob(".headrace/scratch/new-*"), *root.parent.glob(".[bfr].*"), *root.parent.glob("*.being-replaced")]
    yield from (f"left over: {path.name}" for path in left)


def serve_runs() -> None:
    """Fork for each line of the input, and say how that ended."""
    sys.path.append(str(Path(__file__).parents[2] / "tests"))
    for module in ("furnished", "stub_model", "headrace.backups", "headrace.lineage.erasing", "headrace.access.keys"):
        import_module(module)
    for line in sys.stdin:
        script, root, acked, options = json.loads(line)
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.read(read_end, 1)
            _work(script, root, acked)
        if options is None:
            os.write(write_end, b".")
            status = os.waitpid(pid, 0)[1]
        else:
            status = _traced(pid, write_end, options)
        os.close(read_end)
        os.close(write_end)
        print(status, flush=True)


def _traced(pid: int, write_end: int, options: list[str]) -> int:
    tracing = subprocess.Popen(["strace", "-f", *options, "-p", str(pid)], stderr=subprocess.PIPE, text=True)
    assert tracing.stderr is not None
    while "attached" not in (said := tracing.stderr.readline()):
        if not said:
            raise RuntimeError("strace did not attach")
    os.write(write_end, b".")
    status = os.waitpid(pid, 0)[1]
    tracing.communicate(timeout=_TIMEOUT_S)
    return status


def _work(script: str, root: str, acked: str) -> NoReturn:
    from headrace.workspace import open_workspace

    signal.alarm(_TIMEOUT_S)
    status = 1
    try:
        handle = os.open(acked, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        with open_workspace(root) as ws:
            SCRIPTS[script](ws, lambda line: (os.write(handle, f"{line}\n".encode()), None)[1])
        status = 0
    finally:  # no more of the parent's code may run in this process
        if status:
            traceback.print_exc()
        os._exit(status)


if __name__ == "__main__":
    serve_runs()
