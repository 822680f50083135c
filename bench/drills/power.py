"""R3: the power goes. Of what was written and not synced, any part may be on the disk: is the database sound?

A real writer runs under strace, which records every write, truncation and sync of the database and its log, and every
acknowledgement. A state of the disk is: a moment of that run, all that was synced before it, and of the rest a random
part, torn at sectors of 512 bytes. SQLite must open it, find it sound, and have every row that was acknowledged as
durable; rows that were not asked to be durable may be gone, the newest first.
"""

import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from bench.drills import Figure

_SECTOR = 512
_SEED = 1
_TIMEOUT_S = 300
_ACKED = "acked"
_WRITER = """
    import os, sys
    from headrace import auditing
    from headrace.store import engine
    from headrace.workspace import open_workspace

    engine._CHECKPOINT_PAGES = 40  # often, so that many moments lie within one
    with open_workspace(sys.argv[1]) as ws:
        handle, at = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT), 0
        for n in range(int(sys.argv[3])):
            durable = n % 3 != 1
            with ws.store.write(durable=durable) as conn:
                for m in range(1 + n % 4):
                    auditing.note(ws, conn, "drill", f"{n}.{m}", facts={"padding": "x" * (n * 37 % 3000)})
            if durable:
                at += os.pwrite(handle, f"{n}\\n".encode(), at)
"""


@dataclass(frozen=True)
class _Call:
    """A write (with its place), a truncation (with the length), a sync, or an acknowledgement (with its number)."""

    kind: str
    file: str
    place: int = 0
    content: bytes = b""


@dataclass
class _File:
    """What is surely on the disk, and what was asked for since."""

    synced: bytearray = field(default_factory=bytearray)
    since: list[_Call] = field(default_factory=list)

    def sync(self) -> None:
        for call in self.since:
            _apply(self.synced, call)
        self.since.clear()

    def after_a_cut(self, rng: random.Random) -> bytes:
        """As it may be when the power goes now."""
        found, share = bytearray(self.synced), rng.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        for call in self.since:
            if call.kind == "truncate":
                if rng.random() < share:
                    _apply(found, call)
                continue
            for start in range(0, len(call.content), _SECTOR):
                if rng.random() < share:
                    part = call.content[start : start + _SECTOR]
                    _apply(found, _Call("write", call.file, call.place + start, part))
        return bytes(found)


def run(n_states: int = 2000, n_writes: int = 150) -> list[Figure]:
    rng, faults, n_missing, n_within = random.Random(_SEED), [], 0, 0
    with tempfile.TemporaryDirectory(prefix="headrace-drill-") as name:
        calls, before = _recorded(Path(name), n_writes)
        moments = sorted(rng.choices(range(1, len(calls) + 1), k=n_states))
        for number, (files, acked, is_within) in enumerate(_states(calls, before, moments, rng)):
            found, some_missing = _look(files, acked, Path(name))
            faults += [f"state {number}: {fault}" for fault in found]
            n_missing, n_within = n_missing + some_missing, n_within + is_within
    for fault in faults[:5]:
        print(f"    {fault}", file=sys.stderr, flush=True)
    return [
        Figure("calls of the run", len(calls), ""),
        Figure("syncs among them", sum(call.kind == "sync" for call in calls), "", at_least=1),
        Figure("states of the disk", n_states, ""),
        Figure("states with something written and not synced", n_within, "", at_least=1),
        Figure("states that are not sound", len(faults), "", at_most=0),
        Figure("acknowledged rows that are not there", n_missing, "", at_most=0),
    ]


def _recorded(folder: Path, n_writes: int) -> tuple[list[_Call], dict[str, bytes]]:
    """The calls of a run, and the files before it."""
    from conftest import LABELS
    from headrace.workspace import init

    init(folder / "ws", task="tone", labels=LABELS).close()
    database = folder / "ws" / ".headrace" / "headrace.db"
    before = {path.name: path.read_bytes() for path in database.parent.glob("headrace.db*") if path.suffix != ".db-shm"}
    log = folder / "calls"
    options = ["-y", "-xx", "-s", "1000000", "-e", "trace=pwrite64,fdatasync,fsync,ftruncate"]
    writer = [sys.executable, "-c", textwrap.dedent(_WRITER), str(folder / "ws"), str(folder / _ACKED), str(n_writes)]
    subprocess.run(["strace", "-o", str(log), *options, *writer], check=True, timeout=_TIMEOUT_S)
    return list(_parsed(log)), before


def _parsed(log: Path) -> Iterator[_Call]:
    with log.open() as lines:
        for line in lines:
            found = re.match(r"(\w+)\(\d+<([^>]*)>(?:, (.*))?\) += (\d+)", line)
            if found is None:
                continue
            path = bytes.fromhex(found[2].replace("\\x", "")).decode() if "\\x" in found[2] else found[2]
            name, rest = Path(path).name, found[3] or ""
            if found[1] == "pwrite64":
                text, _, place = rest.rpartition(", ")
                content = bytes.fromhex(text.partition('"')[2].partition('"')[0].replace("\\x", ""))[: int(found[4])]
                if name == _ACKED:
                    yield from (_Call("acked", "", int(number)) for number in content.split())
                elif name.startswith("headrace.db"):
                    yield _Call("write", name, int(place), content)
            elif name.startswith("headrace.db"):
                yield _Call("truncate", name, int(rest)) if found[1] == "ftruncate" else _Call("sync", name)


def _states(
    calls: list[_Call], before: dict[str, bytes], moments: list[int], rng: random.Random
) -> Iterator[tuple[dict[str, bytes], set[int], bool]]:
    """Files, what was acknowledged until then, and whether anything was not synced."""
    files = {name: _File(bytearray(before.get(name, b""))) for name in ("headrace.db", "headrace.db-wal")}
    acked: set[int] = set()
    left = iter(moments)
    moment = next(left, None)
    for number, call in enumerate(calls, start=1):
        if call.kind == "acked":
            acked.add(call.place)
        elif call.file in files:
            if call.kind == "sync":
                files[call.file].sync()
            else:
                files[call.file].since.append(call)
        while moment == number:
            state = {name: file.after_a_cut(rng) for name, file in files.items()}
            yield state, set(acked), any(file.since for file in files.values())
            moment = next(left, None)


def _look(files: dict[str, bytes], acked: set[int], folder: Path) -> tuple[list[str], int]:
    """What is wrong with a state, and how many acknowledged rows it lacks."""
    for path in folder.glob("headrace.db*"):
        path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    try:
        with closing(sqlite3.connect(folder / "headrace.db")) as conn:
            faults = [row[0] for row in conn.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]
            rows = conn.execute("SELECT seq, object FROM audit_log WHERE action = 'drill' ORDER BY seq").fetchall()
            (n_lines,) = conn.execute("SELECT count(*) FROM audit_log").fetchone()
            (last,) = conn.execute("SELECT coalesce(max(seq), 0) FROM audit_log").fetchone()
    except sqlite3.DatabaseError as error:
        return [str(error)], 0
    if n_lines != last:
        faults.append(f"{n_lines} lines, and the last is number {last}")
    whole = {f"{n}.{m}" for n in acked for m in range(1 + n % 4)}
    return faults, len(whole - {row[1] for row in rows})


def _apply(content: bytearray, call: _Call) -> None:
    if call.kind == "truncate":
        del content[call.place :]
        return
    if len(content) < call.place:
        content.extend(bytes(call.place - len(content)))
    content[call.place : call.place + len(call.content)] = call.content
