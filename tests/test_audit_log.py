"""The audit log: whatever is done to its lines is found, and each act that matters writes one.

Catches: a change, deletion, swap or cut that verifies; a line that is written although its act was not; numbers with
gaps or twice under several writers; an order that hangs on the clock; a new verb that changes something and says
nothing; names of people in a log that no erasure reaches.
"""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import auditing
from headrace.errors import BadInput
from headrace.store import audit_log, chain, schema
from headrace.store.chain import Checked
from headrace.workspace import Workspace, init, open_workspace
from planted import NOON

TABLE = schema.audit_log
N_LINES = 8
CHANGES: dict[str, list[Any]] = {  # column -> values that were never written there
    "actor": ["user:eve", ""],
    "action": ["key.create"],
    "object": ["another"],
    "before_hash": ["0" * 64],
    "after_hash": ["0" * 64],
    "request_id": ["req_1"],
    "facts": [{"n": -1}, {}, [], {"n": {"n": 1}}],
    "at": [NOON + timedelta(microseconds=1)],
    "config_hash": ["f" * 16],
    "code_version": ["9.9"],
    "prev_hash": ["sha256:0"],
    "hash": ["sha256:0", ""],
}
RAW = ["'garbage'", "x'ff00'", "12", "cast(x'ff' as text)"]  # SQLite lets any column hold anything


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A log of a few lines that can be tampered with: no trigger stands in the way."""
    with init(tmp_path_factory.mktemp("audit") / "ws", task="tone", labels=("a", "b")) as ws:
        for n in range(1, N_LINES + 1):
            with ws.store.write() as conn:
                auditing.note(ws, conn, "channel.add", f"chn_{n}", after=[n], facts={"n": n})
        with ws.store.write() as conn:
            for verb in ("UPDATE", "DELETE"):
                conn.execute(sa.text(f"DROP TRIGGER audit_log_no_{verb}"))
        yield ws


def checked_after(ws: Workspace, tamper: Callable[[sa.Connection], object], anchors: list[tuple[int, str]]) -> Checked:
    """What a check finds after `tamper`, which is then taken back."""
    with ws.store.write() as conn:
        tried = conn.begin_nested()
        tamper(conn)
        found = audit_log.check(conn, anchors)
        tried.rollback()
    return found


seqs = st.integers(1, N_LINES)


@given(seq=seqs, column=st.sampled_from(sorted(CHANGES)), which=st.integers(0, 5))
@settings(deadline=None)
def test_a_changed_line_is_named(log: Workspace, seq: int, column: str, which: int) -> None:
    value = CHANGES[column][which % len(CHANGES[column])]
    change = sa.update(TABLE).where(TABLE.c.seq == seq).values({column: value})
    assert checked_after(log, lambda conn: conn.execute(change), []).first_broken == seq


@given(seq=seqs, column=st.sampled_from(sorted(set(CHANGES) - {"prev_hash"})), raw=st.sampled_from(RAW))
@settings(deadline=None)
def test_a_line_that_cannot_even_be_read_is_named(log: Workspace, seq: int, column: str, raw: str) -> None:
    statement = sa.text(f"UPDATE audit_log SET {column} = {raw} WHERE seq = {seq}")
    assert checked_after(log, lambda conn: conn.execute(statement), []).first_broken == seq


@given(doomed=st.sets(seqs, min_size=1, max_size=N_LINES))
@settings(deadline=None)
def test_deleted_lines_are_named(log: Workspace, doomed: set[int]) -> None:
    """All at the end, too: the newest line was noted somewhere else."""
    anchor = auditing.listing(log)[-1]
    delete = sa.delete(TABLE).where(TABLE.c.seq.in_(doomed))
    found = checked_after(log, lambda conn: conn.execute(delete), [(anchor.seq, anchor.hash)])
    assert found.first_broken == min(doomed)


@given(pair=st.sets(seqs, min_size=2, max_size=2), with_hashes=st.booleans())
@settings(deadline=None)
def test_swapped_lines_are_named(log: Workspace, pair: set[int], with_hashes: bool) -> None:
    first, second = sorted(pair)

    def swap(conn: sa.Connection) -> None:
        rows = {seq: dict(conn.execute(sa.select(TABLE).where(TABLE.c.seq == seq)).mappings().one()) for seq in pair}
        for seq, other in ((first, second), (second, first)):
            kept = {"seq"} if with_hashes else {"seq", "prev_hash", "hash"}
            content = {name: value for name, value in rows[other].items() if name not in kept}
            conn.execute(sa.update(TABLE).where(TABLE.c.seq == seq).values(content))

    assert checked_after(log, swap, []).first_broken == first


@given(seq=st.integers(1, N_LINES - 1))
@settings(deadline=None)
def test_a_forger_who_hashes_all_anew_is_found_by_an_anchor(log: Workspace, seq: int) -> None:
    """The whole rest of the chain is made again, as by somebody who has this code."""
    anchor = auditing.listing(log)[-1]

    def forge(conn: sa.Connection) -> None:
        rows = [dict(row) for row in conn.execute(sa.select(TABLE).order_by(TABLE.c.seq)).mappings()]
        conn.execute(sa.delete(TABLE).where(TABLE.c.seq >= seq))
        for row in rows[seq - 1 :]:
            content = {k: v for k, v in row.items() if k not in ("seq", "prev_hash", "hash")}
            chain.append(conn, TABLE, content | ({"actor": "user:eve"} if row["seq"] == seq else {}))

    assert checked_after(log, forge, []).first_broken is None
    assert checked_after(log, forge, [(anchor.seq, anchor.hash)]).first_broken == anchor.seq


def test_anchors_are_read_and_said(log: Workspace) -> None:
    lines = auditing.listing(log)
    sound = auditing.verify(log, [f"{line.seq}:{line.hash}" for line in lines])
    assert sound == {
        "n_lines": N_LINES, "first_broken": None, "problem": "", "anchor": f"{N_LINES}:{lines[-1].hash}"
    }  # fmt: skip
    twice = auditing.verify(log, [sound["anchor"], f"{N_LINES}:sha256:0"])  # of two, one is wrong
    assert twice["first_broken"] == N_LINES
    for text in ("", "7", "x:y", "0:sha256:0", ":sha256:0", "²:sha256:0", "9" * 5000 + ":a"):
        with pytest.raises(BadInput):
            auditing.verify(log, [text])


def test_the_database_refuses_to_change_or_delete(workspace: Workspace) -> None:
    with workspace.store.write() as conn:
        auditing.note(workspace, conn, "channel.add", "chn_1")
    for statement in (sa.delete(TABLE), sa.update(TABLE).values(actor="user:eve")):
        with pytest.raises(sa.exc.IntegrityError, match="append-only"), workspace.store.write() as conn:
            conn.execute(statement)


def test_a_line_is_there_only_if_its_act_is(workspace: Workspace) -> None:
    def write_and_fail() -> None:
        with workspace.store.write() as conn:
            auditing.note(workspace, conn, "channel.add", "chn_1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    assert auditing.verify(workspace)["n_lines"] == 0


def test_writers_at_once_leave_one_chain_without_gaps(workspace: Workspace) -> None:
    def write(who: int) -> None:
        ws = replace(workspace, actor=f"key_{who}")
        for _ in range(10):
            with ws.store.write(durable=False) as conn:
                auditing.note(ws, conn, "channel.add", "chn_1")

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = auditing.listing(workspace)
    assert [line.seq for line in lines] == list(range(1, 41))
    assert auditing.verify(workspace)["first_broken"] is None
    assert {line.actor for line in lines} == {f"key_{who}" for who in range(4)}


def test_the_order_is_that_of_the_acts_whatever_the_clock_says(workspace: Workspace) -> None:
    for place, jump in enumerate((0, 400 * 86400, -3600, 0, 3600)):
        ws = replace(workspace, clock=lambda jump=jump: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=jump))
        with ws.store.write() as conn:
            auditing.note(ws, conn, "channel.add", f"chn_{place}")
    assert [line.object for line in auditing.listing(workspace)] == [f"chn_{n}" for n in range(5)]
    assert [line.seq for line in auditing.listing(workspace, since=2, limit=2)] == [4, 5]
    assert auditing.verify(workspace)["first_broken"] is None


def test_a_server_with_other_settings_is_noted_once_and_says_no_value(tmp_path: Path) -> None:
    init(tmp_path / "ws", task="tone", labels=("a", "b")).close()
    seen = []
    for overrides in ({}, {}, {"feedback.audit_salt": "hush"}, {"feedback.audit_salt": "hush"}, {}):
        with open_workspace(tmp_path / "ws", overrides=overrides) as ws:
            seen.append(auditing.note_settings(ws))
    first, again, changed, again_changed, back = seen
    assert (again, again_changed) == (None, None)
    assert first is not None
    assert changed is not None
    assert back is not None
    assert changed.facts["settings"] == sorted([*first.facts["settings"], "feedback.audit_salt"])
    assert changed.before_hash == first.after_hash == back.after_hash != changed.after_hash
    assert "hush" not in json.dumps(changed.facts)
