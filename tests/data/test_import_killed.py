"""kill -9 of an import at several moments, then the same command again: as if nothing had happened.

Catches: rows of a dead import that stay visible, are counted as known, or block the next import.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import LABELS, sentences, write_jsonl
from headrace.data import channels
from headrace.data.importing import import_rows
from headrace.store import examples
from headrace.workspace import Workspace, init, open_workspace

_IMPORT = """
import sys, time
from headrace.data import importing
from headrace.workspace import open_workspace
importing._CHUNK_ROWS = 100
def slowly(n_done, n_rows):
    print("read" if n_rows is None else "written", n_done, flush=True)
    time.sleep(0.05)
with open_workspace(sys.argv[1]) as ws:
    importing.import_rows(ws, "c", sys.argv[2], progress=slowly)
print("end", flush=True)
"""


def _content(ws: Workspace) -> list[tuple[object, ...]]:
    with ws.store.read() as conn:
        return sorted((r.key, r.text, r.value, r.origin, r.group_key) for r in examples.labelled_rows(conn, "tone"))


def _kill_after(root: Path, path: Path, shown: str, wait_s: float) -> None:
    process = subprocess.Popen([sys.executable, "-c", _IMPORT, str(root), str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.strip() == shown:
                break
        time.sleep(wait_s)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.wait(timeout=20)
        process.stdout.close()


@pytest.mark.slow
def test_a_killed_import_leaves_nothing_and_the_same_command_finishes(tmp_path: Path) -> None:
    rows = sentences(1000)
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with init(tmp_path / "clean", task="tone", labels=LABELS) as ws:
        channels.add(ws, "c")
        import_rows(ws, "c", path)
        expected = _content(ws)
    root = tmp_path / "killed"
    with init(root, task="tone", labels=LABELS) as ws:
        channels.add(ws, "c")
    for shown, wait_s in (("read 500", 0.0), ("written 100", 0.02), ("written 700", 0.06), ("written 1000", 0.01)):
        _kill_after(root, path, shown, wait_s)
        with open_workspace(root) as ws:
            assert _content(ws) in ([], expected)
    with open_workspace(root) as ws:
        report = import_rows(ws, "c", path)
        assert report.n_added + report.n_known == 1000
        assert report.n_quarantined == 0
        assert _content(ws) == expected
