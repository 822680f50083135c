"""R19: several processes write and read one database at once, beside a reader that stays. Who is refused, how long do
writers wait, and how long does the log get?
"""

import json
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from bench.drills import Figure

_N_WRITERS = 4
_TIMEOUT_S = 60
_LOG_BYTES = 64 << 20
_WRITER = """
    import json, sys, time
    from headrace import auditing
    from headrace.workspace import open_workspace

    until, n, slowest_s, failed = time.time() + float(sys.argv[3]), 0, 0.0, []
    with open_workspace(sys.argv[1]) as ws:
        while time.time() < until:
            began_at = time.monotonic()
            try:
                with ws.store.write(durable=n % 4 == 0) as conn:
                    auditing.note(ws, conn, "drill", f"{sys.argv[2]}-{n}", facts={"padding": "x" * 500})
                if n % 10 == 0:
                    auditing.listing(ws, limit=50)
            except Exception as error:
                failed.append(repr(error))
            n, slowest_s = n + 1, max(slowest_s, time.monotonic() - began_at)
    print(json.dumps({"n": n, "slowest_s": slowest_s, "failed": failed[:5], "n_failed": len(failed)}))
"""


def run(seconds: float = 60) -> list[Figure]:
    from conftest import LABELS
    from headrace import auditing
    from headrace.workspace import init

    with tempfile.TemporaryDirectory(prefix="headrace-drill-") as name:
        root = Path(name) / "ws"
        with init(root, task="tone", labels=LABELS) as ws:
            told, log_bytes, held_bytes = _hammered(root, seconds)
            with ws.store.write() as conn:  # the reader is gone: the next writes take the log in, and begin it anew
                auditing.note(ws, conn, "drill", "last")
            with ws.store.write() as conn:
                auditing.note(ws, conn, "drill", "last")
            after_bytes = _log_of(root).stat().st_size
            chain = auditing.verify(ws)
            with ws.store.read() as conn:
                faults = [row[0] for row in conn.exec_driver_sql("PRAGMA integrity_check") if row[0] != "ok"]
    n_written = sum(one["n"] - one["n_failed"] for one in told)
    return [
        Figure("writers", _N_WRITERS, "processes"),
        Figure("writes", n_written, ""),
        Figure("writes", n_written / seconds, "1/s"),
        Figure("refused", sum(one["n_failed"] for one in told), "", at_most=0),
        Figure("longest wait of a writer", max(one["slowest_s"] for one in told), "s", at_most=10),
        Figure("faults of the database", len(faults), "", at_most=0),
        Figure("lines of the chain more or fewer than writes", abs(chain["n_lines"] - 2 - n_written), "", at_most=0),
        Figure("the log at most", log_bytes / 2**20, "MiB", at_most=_LOG_BYTES / 2**20),
        Figure("the log beside a reader that stays", held_bytes / 2**20, "MiB"),
        Figure("the log when that reader is gone", after_bytes / 2**20, "MiB", at_most=_LOG_BYTES / 2**20),
    ]


def _hammered(root: Path, seconds: float) -> tuple[list[dict[str, Any]], int, int]:
    """What the writers say, and the log's length at most: without a reader that stays, and with one, at the end."""
    import sqlite3

    code = textwrap.dedent(_WRITER)
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(root), str(n), str(seconds)], stdout=subprocess.PIPE)
        for n in range(_N_WRITERS)
    ]
    try:
        began_at, log_bytes = time.monotonic(), 0
        while time.monotonic() < began_at + 0.8 * seconds:
            time.sleep(0.05)
            log_bytes = max(log_bytes, _log_of(root).stat().st_size)
        with closing(sqlite3.connect(root / ".headrace" / "headrace.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM audit_log").fetchone()
            told = [json.loads(writer.communicate(timeout=_TIMEOUT_S)[0]) for writer in writers]
            held_bytes = _log_of(root).stat().st_size
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
    return told, log_bytes, held_bytes


def _log_of(root: Path) -> Path:
    return root / ".headrace" / "headrace.db-wal"
