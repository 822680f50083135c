"""A disk that loses what it was given, is full or read only, and a process that may open no more files.

Catches: feedback that is acknowledged and gone; predictions that wait for a disk; a server that does not come back.
"""

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bench.drills import disks
from headrace import auditing
from headrace.errors import Unusable
from headrace.store import engine
from headrace.workspace import Workspace


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, which has system calls fail")
def test_predictions_go_on_and_no_acknowledged_feedback_is_lost() -> None:
    assert [figure for figure in disks.run(0.5) if not figure.is_met] == []


def test_after_a_failed_sync_nothing_rests_on_the_log(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the log holds is written to the database before anything else is acknowledged."""
    log = workspace.state_folder / "headrace.db-wal"

    def write() -> None:
        with workspace.store.write() as conn:
            auditing.note(workspace, conn, "drill", "x")

    failed = sqlite3.OperationalError("disk I/O error")
    failed.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    write()
    assert log.stat().st_size > 0
    with pytest.raises(Unusable, match="I/O"), workspace.store.write():
        raise sa.exc.OperationalError("COMMIT", {}, failed)
    emptied = []
    empty = engine.Store._empty_log

    def watched(self: engine.Store, raw: Any) -> None:
        empty(self, raw)
        emptied.append(log.stat().st_size)

    monkeypatch.setattr(engine.Store, "_empty_log", watched)
    write()
    write()
    assert emptied == [0]
    assert auditing.verify(workspace)["n_lines"] == 3


def test_a_log_that_cannot_be_taken_in_does_not_fail_what_was_written(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(engine, "_CHECKPOINT_PAGES", 0)
    store = workspace.store

    class Failing:
        def execute(self, statement: str) -> None:
            failed = sqlite3.OperationalError("database or disk is full")
            failed.sqlite_errorname = "SQLITE_IOERR_WRITE"
            raise failed

    class Conn:
        class connection:  # noqa: N801
            driver_connection = Failing()

    store._checkpoint_if_long(Conn())  # type: ignore[arg-type]
    assert store._log_in_doubt
    with store.write() as conn:
        auditing.note(workspace, conn, "drill", "x")
    assert not store._log_in_doubt
