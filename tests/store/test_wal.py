"""The log of SQLite. Catches: a database that is flushed once more by every write, once its log was long."""

from pathlib import Path

import pytest

from headrace.ids import new_id
from headrace.records import Channel
from headrace.store import channels, engine, open_store
from planted import NOON


def test_the_log_is_taken_into_the_database_when_it_is_long_and_begins_anew(
    tmp_path: Path, sqlite_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_CHECKPOINT_PAGES", 50)
    store = open_store(f"sqlite:///{sqlite_path}", lock_path=tmp_path / "store.lock")
    wal, sizes = Path(f"{sqlite_path}-wal"), []
    for n in range(200):
        with store.write(durable=False) as conn:
            channels.add(conn, Channel(new_id("channel"), f"channel-{n}", "", "", "", NOON))
        sizes.append(wal.stat().st_size)
    store.close()
    n_long = sum(size > 50 * 4096 for size in sizes)
    assert 3 <= n_long <= 20  # each asks for a checkpoint; four pages or so are written at a time
    assert max(sizes) < 100 * 4096
