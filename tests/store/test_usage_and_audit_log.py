"""Usage and the audit log on every database. Catches: a dialect that adds counts up in another way, or groups by what
it may not; lines that can be changed where no trigger was made; two writers with one number."""

import threading
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from headrace.ids import new_id
from headrace.records import Channel
from headrace.store import Store, audit_log, chain, channels, schema, usage
from headrace.store.usage import Place, Used

AT = datetime(2026, 11, 2, 3, tzinfo=UTC)
DAY, NEXT = AT.replace(hour=0), AT.replace(day=3, hour=0)
SOME = Used(n_requests=1, n_refused=2, n_rows=3, n_tokens=4, seconds=0.5)


def line(conn: sa.Connection) -> int:
    content = {
        "actor": "user:me", "action": "channel.add", "object": "ch_1", "before_hash": None, "after_hash": None,
        "request_id": None, "facts": {"n": 1, "é": [None, 1.5]}, "at": AT,
    }  # fmt: skip
    return audit_log.append(conn, content, config_hash="0" * 16).seq


def test_counts_add_up_by_place_and_source(store: Store) -> None:
    channel = Channel(new_id("channel"), "web", "", "", "", AT)
    ours, refused = Place("k", channel.id, "tone", AT), Place("", "", "", AT)
    with store.write() as conn:
        channels.add(conn, channel)
    for source, counts in (("a", {ours: SOME, refused: SOME}), ("a", {ours: SOME}), ("b", {ours: SOME}), ("b", {})):
        with store.write() as conn:
            usage.add(conn, counts, source=source)
    with store.read() as conn:
        found = usage.totals(conn, ("key", "channel", "task"), since=DAY, until=NEXT)
        assert found == [
            ({"key": "", "key_name": "", "channel": "", "task": ""}, SOME),
            ({"key": "k", "key_name": "", "channel": "web", "task": "tone"}, SOME + SOME + SOME),
        ]
        assert usage.totals(conn, (), since=DAY, until=NEXT) == [({}, SOME + SOME + SOME + SOME)]
        assert usage.totals(conn, ("task",), since=NEXT, until=NEXT) == []
        assert usage.span(conn) == (AT, AT)
        assert usage.rows_by_key(conn, since=DAY, until=NEXT) == {"": 3, "k": 9}
        assert usage.rows_by_channel(conn, since=DAY, until=AT) == {}


def test_the_database_keeps_the_lines_of_the_audit_log_as_they_are(store: Store) -> None:
    with store.write() as conn:
        assert [line(conn) for _ in range(3)] == [1, 2, 3]
    for statement in ("UPDATE audit_log SET actor = 'eve'", "DELETE FROM audit_log WHERE seq = 3"):
        with pytest.raises(sa.exc.DatabaseError, match="append-only"), store.write() as conn:
            conn.execute(sa.text(statement))
    with store.read() as conn:
        assert audit_log.check(conn).n_lines == 3


def test_a_changed_line_is_found_on_every_database(store: Store) -> None:
    with store.write() as conn:
        for _ in range(3):
            line(conn)
    with store.write() as conn:
        assert audit_log.check(conn).first_broken is None
        assert chain.missing_guards(conn) == []
        if conn.dialect.name == "sqlite":
            conn.execute(sa.text("DROP TRIGGER audit_log_no_UPDATE"))
        else:
            conn.execute(sa.text("ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only"))
        assert len(chain.missing_guards(conn)) == 1
        conn.execute(sa.update(schema.audit_log).where(schema.audit_log.c.seq == 2).values(facts={"n": 2}))
        assert audit_log.check(conn).first_broken == 2


def test_writers_at_once_share_no_number(store: Store) -> None:
    found: list[int] = []

    def work() -> None:
        for _ in range(10):
            with store.write(durable=False) as conn:
                found.append(line(conn))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == list(range(1, 31))
