"""One writer at a time across processes. Catches: two writers at once, a lock that a dead process keeps, a lock that
waits for ever."""

import subprocess
import sys
from pathlib import Path

import pytest

from headrace.errors import Unavailable
from headrace.store import Store, ledger, open_store

WAIT_S = 60
ADD = """
import sys, time, sqlalchemy as sa
from pathlib import Path
from headrace.store import open_store
store = open_store(sys.argv[1], lock_path=Path(sys.argv[2]))
for _ in range(int(sys.argv[3])):
    with store.write(durable=False) as conn:
        n = conn.execute(sa.text("select n from counter")).scalar()
        conn.execute(sa.text("update counter set n = :n"), {"n": n + 1})
store.close()
"""
HOLD = """
import sys, time
from pathlib import Path
from headrace.store import open_store
store = open_store(sys.argv[1], lock_path=Path(sys.argv[2]))
with store.write() as conn:
    print("held", flush=True)
    time.sleep(60)
"""


def start(code: str, url: str, lock_path: Path, *args: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, url, str(lock_path), *args], stdout=subprocess.PIPE, text=True)


def test_writers_of_several_processes_take_turns(store: Store, store_url: str, tmp_path: Path) -> None:
    import sqlalchemy as sa

    with store.write() as conn:
        conn.execute(sa.text("create table counter (n integer)"))
        conn.execute(sa.text("insert into counter values (0)"))
    with_each = 40
    adders = [start(ADD, store_url, tmp_path / "store.lock", str(with_each)) for _ in range(3)]
    assert [adder.communicate(timeout=WAIT_S) and adder.returncode for adder in adders] == [0, 0, 0]
    with store.read() as conn:
        assert conn.execute(sa.text("select n from counter")).scalar() == 3 * with_each
        if store.url.startswith("sqlite"):
            assert conn.execute(sa.text("pragma integrity_check")).scalar() == "ok"


def test_a_writer_that_waits_too_long_is_told_and_a_killed_holder_lets_go(
    store: Store, store_url: str, tmp_path: Path
) -> None:
    holder = start(HOLD, store_url, tmp_path / "store.lock")
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with store.read() as conn:  # readers go on
            assert ledger.last_seq(conn) == 0
        hasty = Store(store_url, lock_path=tmp_path / "store.lock", busy_timeout_s=0.2)
        with pytest.raises(Unavailable, match="another process has been writing"), hasty.write():
            pass
    finally:
        holder.kill()
        holder.communicate(timeout=WAIT_S)
    with hasty.write() as conn:
        assert ledger.last_seq(conn) == 0
    hasty.close()


def test_closing_twice_is_closing_once(store_url: str, tmp_path: Path) -> None:
    opened = open_store(store_url, lock_path=tmp_path / "store.lock")
    opened.close()
    opened.close()
