"""Imports and the rows that they put aside. An import is `running` until one transaction makes it `done`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Connection

from headrace.store import schema
from headrace.store.noun import insert_many, origin

_IMPORTS = schema.imports
_QUARANTINE = schema.quarantine
_EXAMPLES = schema.examples
_LABELS = schema.labels
_CACHE_KIB = 128 * 1024


class Quarantined(NamedTuple):
    """A row that was put aside: where it was, why, and its text in short."""

    line: int
    reason: str
    detail: str
    raw: str


def start(
    conn: Connection, import_id: str, *, channel_id: str, task: str, source: str, now: datetime, config_hash: str
) -> None:
    values = {"id": import_id, "channel_id": channel_id, "task": task, "source": source, "started_at": now}
    conn.execute(insert(_IMPORTS).values(**values, state="running", **origin(config_hash)))


def finish(conn: Connection, import_id: str, report: dict[str, Any], now: datetime) -> None:
    """Make everything the import added visible."""
    done = update(_IMPORTS).where(_IMPORTS.c.id == import_id)
    conn.execute(done.values(state="done", report=report, finished_at=now))


def reports(conn: Connection, task: str) -> list[dict[str, Any]]:
    """What the finished imports of a task reported, oldest first."""
    query = select(_IMPORTS.c.report).where(_IMPORTS.c.task == task, _IMPORTS.c.state == "done")
    return list(conn.execute(query.order_by(_IMPORTS.c.started_at, _IMPORTS.c.id)).scalars())


def unfinished(conn: Connection) -> list[str]:
    return list(conn.execute(select(_IMPORTS.c.id).where(_IMPORTS.c.state == "running")).scalars())


def exists(conn: Connection, import_id: str) -> bool:
    return conn.execute(select(_IMPORTS.c.id).where(_IMPORTS.c.id == import_id)).first() is not None


def remove_some(conn: Connection, import_id: str, n: int) -> bool:
    """Take back up to `n` rows of an import that never finished; False once the import itself is gone."""
    for table, key in ((_LABELS, _LABELS.c.id), (_QUARANTINE, _QUARANTINE.c.seq), (_EXAMPLES, _EXAMPLES.c.id)):
        some = select(key).where(table.c.import_id == import_id).limit(n)
        if conn.execute(delete(table).where(key.in_(some))).rowcount:
            return True
    conn.execute(delete(_IMPORTS).where(_IMPORTS.c.id == import_id))
    return False


def add_quarantined(conn: Connection, import_id: str, rows: Sequence[Quarantined]) -> None:
    insert_many(conn, _QUARANTINE, Quarantined._fields, rows, {"import_id": import_id})


def quarantined(conn: Connection, import_id: str) -> list[Quarantined]:
    query = (
        select(_QUARANTINE.c.line, _QUARANTINE.c.reason, _QUARANTINE.c.detail, _QUARANTINE.c.raw)
        .where(_QUARANTINE.c.import_id == import_id)
        .order_by(_QUARANTINE.c.line, _QUARANTINE.c.seq)
    )
    return [Quarantined(*row) for row in conn.execute(query)]


def widen_cache(conn: Connection) -> None:
    """Let SQLite keep more pages: an import touches the whole index of keys, in no order."""
    if conn.dialect.name == "sqlite":
        conn.exec_driver_sql(f"PRAGMA cache_size=-{_CACHE_KIB}")
