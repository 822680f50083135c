"""R21: a machine that dies while a backup follows, its workspace busy. What of it is in the backup?

500 durable writes a second, a backup that follows, another one of one moment now and then, and a restore of each every
few seconds. In between an artifact is added and a person erased. At the end writer and follower are killed at once.
"""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bench.drills import Figure

if TYPE_CHECKING:
    from headrace.workspace import Workspace

_RATE = 500
_PATIENCE_S = 60
_WRITER = """
    import os, sys, time
    from headrace import auditing
    from headrace.workspace import open_workspace

    with open_workspace(sys.argv[1]) as ws:
        out, began_at, n = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND), time.monotonic(), 0
        while True:
            with ws.store.write() as conn:
                auditing.note(ws, conn, "drill", str(n), facts={"padding": "x" * 200})
            os.write(out, f"{n} {time.time()}\\n".encode())
            n += 1
            time.sleep(max(0.0, began_at + n / float(sys.argv[3]) - time.monotonic()))
"""


@dataclass
class _Seen:
    n_restores: int = 0
    unsound: list[str] = field(default_factory=list)
    lags_s: list[float] = field(default_factory=list)
    """How old the newest acknowledged row was that a restore did not have, as the restore began."""
    restores_s: list[float] = field(default_factory=list)


def run(seconds: float = 300, restore_every_s: float = 30, rate: float = _RATE) -> list[Figure]:
    from conftest import LABELS
    from furnished import furnish
    from headrace.workspace import init

    with tempfile.TemporaryDirectory(prefix="headrace-drill-") as name:
        root, seen = Path(name) / "ws", _Seen()
        with init(root, task="tone", labels=LABELS) as ws:
            furnish(ws, root)
            with _at_work(root, rate) as (acked, pids):
                began_at = time.monotonic()
                _add_artifact(ws)
                while time.monotonic() < began_at + seconds or seen.n_restores < 2:  # the second is after an erasure
                    time.sleep(restore_every_s)
                    _restore(root, seen, acked)
                    if seen.n_restores == 1:
                        _erase(ws)
                killed_at = time.time()
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
            return [*_of_the_end(ws, root, acked, killed_at), *_of_restores(seen)]


@contextmanager
def _at_work(root: Path, rate: float) -> Iterator[tuple[Path, list[int]]]:
    """A follower and a writer; the file of what was acknowledged, and their processes."""
    acked = root.parent / "acked"
    follower = subprocess.Popen(
        [sys.executable, "-m", "headrace", "backup", "--follow", str(root.parent / "f"), "--workspace", str(root)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    writer = None
    try:
        assert follower.stdout is not None
        if not follower.stdout.readline():
            raise RuntimeError("the backup did not begin to follow")
        writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(_WRITER), str(root), str(acked), str(rate)])
        until = time.monotonic() + _PATIENCE_S
        while not acked.exists() and time.monotonic() < until:
            time.sleep(0.01)
        yield acked, [writer.pid, follower.pid]
    finally:
        for process in (writer, follower):
            if process is not None:
                process.kill()
                process.wait()
        follower.stdout.close()  # type: ignore[union-attr]


def _acknowledged(acked: Path) -> dict[int, float]:
    """Number to the instant it was acknowledged at."""
    lines = [line.split() for line in acked.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return {int(number): float(at) for number, at in lines}


def _restore(root: Path, seen: _Seen, acked: Path) -> None:
    from headrace import backups
    from headrace.workspace import open_workspace

    folder, number = root.parent, seen.n_restores
    seen.n_restores += 1
    before = _acknowledged(acked)
    with open_workspace(root) as ws:
        backups.backup(ws, folder / f"b{number}")
    for kind, source in (("b", folder / f"b{number}"), ("f", folder / "f")):
        known, now = (before if kind == "b" else _acknowledged(acked)), time.time()
        made = backups.restore(source, folder / f"{kind}{number}-restored")
        seen.restores_s.append(made.seconds)
        found, faults = _look(folder / f"{kind}{number}-restored")
        seen.unsound += faults
        missing = [at for n, at in known.items() if n not in found]
        if kind == "b" and missing:
            seen.unsound.append(f"{len(missing)} rows of before a backup are not in it")
        if kind == "f":
            seen.lags_s.append(now - min(missing, default=now))


def _look(root: Path) -> tuple[set[int], list[str]]:
    """Rows of a restored workspace, and what is wrong with it."""
    from headrace import auditing
    from headrace.release import ledger
    from headrace.workspace import open_workspace

    with open_workspace(root) as ws:
        faults = [f"{one.__name__}" for one in (auditing, ledger) if one.verify(ws)["first_broken"] is not None]
        with ws.store.read() as conn:
            faults += [row[0] for row in conn.exec_driver_sql("PRAGMA integrity_check") if row[0] != "ok"]
            faults += [f"{row[0]} refers to nothing" for row in conn.exec_driver_sql("PRAGMA foreign_key_check")]
        return {int(line.object) for line in auditing.listing(ws, action="drill")}, faults


def _add_artifact(ws: "Workspace") -> None:
    from stub_model import plant_stub

    plant_stub(ws)


def _erase(ws: "Workspace") -> None:
    from furnished import NAME
    from headrace.lineage import erasing

    erasing.erase(ws, labeller=NAME, channel="web")


def _of_the_end(ws: "Workspace", root: Path, acked: Path, killed_at: float) -> list[Figure]:
    from furnished import NAME, holders
    from headrace import backups
    from headrace.workspace import open_workspace

    known, to = _acknowledged(acked), root.parent / "end"
    made = backups.restore(root.parent / "f", to)
    found, faults = _look(to)
    missing = [at for n, at in known.items() if n not in found]
    lost_s = killed_at - min(missing, default=killed_at)
    with open_workspace(to) as again:
        with ws.store.read() as conn:
            digests = list(conn.exec_driver_sql("SELECT digest FROM artifacts WHERE kind = 'stub'").scalars())
        differ = sum(bytes_below(ws.artifacts.get(one)) != bytes_below(again.artifacts.get(one)) for one in digests)
    seconds = max(known.values()) - min(known.values())
    return [
        Figure("durable writes", len(known) / seconds, "1/s", at_least=0.8 * _RATE),
        Figure("killed: oldest acknowledged write that is missing", lost_s, "s before", at_most=1),
        Figure("killed: acknowledged writes missing", len(missing), f"of {len(known)}"),
        Figure("killed: faults of database and chains", len(faults), "", at_most=0),
        Figure("killed: restored after", made.seconds, "s"),
        Figure("artifacts", len(digests), "", at_least=1),
        Figure("artifacts that are not the same byte by byte", differ, "", at_most=0),
        Figure("files of the backup that hold an erased person", len(holders(root.parent / "f", NAME)), "", at_most=0),
        Figure("files of the restored that do", len(holders(to, NAME)), "", at_most=0),
    ]  # fmt: skip


def _of_restores(seen: _Seen) -> list[Figure]:
    return [
        Figure("restores meanwhile", 2 * seen.n_restores, ""),
        Figure("restores meanwhile: faults", len(seen.unsound), "", at_most=0),
        Figure("restores meanwhile: oldest acknowledged write missing", max(seen.lags_s), "s before", at_most=1),
        Figure("restores meanwhile: longest", max(seen.restores_s), "s", at_most=60),
    ]


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
