"""R20: a database of an older headrace, with a million answers, is brought up to date. (R1 kills it at every call.)"""

import tempfile
import time
from pathlib import Path

from bench.drills import Figure

_AT = "2026-03-01 12:00:00.000000"
_FROM = "0005"


def run(n_rows: int = 1_000_000) -> list[Figure]:
    from conftest import LABELS
    from headrace.release import ledger
    from headrace.store import migrations
    from headrace.workspace import init, open_workspace

    with tempfile.TemporaryDirectory(prefix="headrace-drill-") as name:
        root = Path(name) / "ws"
        init(root, task="tone", labels=LABELS).close()
        _older(root / ".headrace", n_rows)
        n_bytes = (root / ".headrace" / "headrace.db").stat().st_size
        began_at = time.monotonic()
        with open_workspace(root) as ws:
            seconds = time.monotonic() - began_at
            with ws.store.read() as conn:
                count = conn.exec_driver_sql("SELECT count(*) FROM predictions WHERE probability = 1").scalar_one()
                revision = conn.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
                faults = [row[0] for row in conn.exec_driver_sql("PRAGMA integrity_check") if row[0] != "ok"]
                faults += [str(row) for row in conn.exec_driver_sql("PRAGMA foreign_key_check")]
            chain = ledger.verify(ws)
    return [
        Figure("rows", n_rows, ""),
        Figure("database before", n_bytes / 2**20, "MiB"),
        Figure(f"from revision {_FROM} to the newest", seconds, "s", at_most=120),
        Figure("rows lost", n_rows - count, "", at_most=0),
        Figure("revisions behind", int(migrations.NEWEST) - int(revision), "", at_most=0),
        Figure("faults of the database", len(faults), "", at_most=0),
        Figure("lines of the ledger that are not chained", 1000 - chain["n_lines"], "", at_most=0),
    ]


def _older(state: Path, n_rows: int) -> None:
    """A database of an older revision: answers, and a ledger without hashes."""
    from contextlib import nullcontext
    from types import SimpleNamespace

    from headrace.store import Store
    from planted import plant_version
    from store.test_migrations import migrate

    for path in state.glob("headrace.db*"):
        path.unlink()
    store = Store(f"sqlite:///{state / 'headrace.db'}", lock_path=state / "store.lock")
    with store.write() as conn:
        migrate(conn, _FROM)
        same = SimpleNamespace(store=SimpleNamespace(write=lambda: nullcontext(conn)))
        version = plant_version(same)  # type: ignore[arg-type]
        conn.exec_driver_sql(f"INSERT INTO channels VALUES ('chn_1', 'web', '', '', '', '{_AT}')")
        ledger = f"'tone', 'hold', '{version.id}', 'because', '{{}}', 'me', '{_AT}', 'c', '0'"
        columns = "seq, id, task, kind, version_id, reason, evidence, actor, at, config_hash, code_version"
        conn.exec_driver_sql(f"""
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
            INSERT INTO ledger ({columns}) SELECT i, 'led_' || i, {ledger} FROM n""")
        columns = "id, request_id, row, task, channel_id, arm, version_id, artifact, text, text_hash, output"
        values = f"0, 'tone', 'chn_1', 'control', '{version.id}', 'sha256:0', 'some text ' || i, 'h' || i"
        conn.exec_driver_sql(f"""
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n_rows})
            INSERT INTO predictions ({columns}, latency_ms, at, config_hash, code_version)
            SELECT printf('prd_%012d', i), 'req_' || i, {values}, '{{}}', 1.0, '{_AT}', 'c', '0' FROM n""")
    store.close()
