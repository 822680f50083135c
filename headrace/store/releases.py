"""Releases and the append-only ledger."""

from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection

from headrace.records import LedgerEntry, Release
from headrace.store import schema
from headrace.store.noun import as_record, as_records, one_or_none, origin

_RELEASES = schema.releases
_LEDGER = schema.ledger


def add(conn: Connection, release: Release, *, config_hash: str) -> None:
    conn.execute(insert(_RELEASES).values(**vars(release), **origin(config_hash)))


def find(conn: Connection, release_id: str) -> Release | None:
    query = select(_RELEASES).where(_RELEASES.c.id == release_id)
    return one_or_none(Release, conn.execute(query).mappings().first())


def open_release(conn: Connection, task: str) -> Release | None:
    """The one release of a task that still takes traffic."""
    query = select(_RELEASES).where(_RELEASES.c.task == task, _RELEASES.c.state == "open")
    return one_or_none(Release, conn.execute(query).mappings().first())


def listing(conn: Connection, task: str) -> list[Release]:
    query = select(_RELEASES).where(_RELEASES.c.task == task).order_by(_RELEASES.c.started_at)
    return as_records(Release, conn.execute(query).mappings().all())


def close(conn: Connection, release_id: str, *, state: str, ended_at: datetime) -> bool:
    """End an open release; False when it is not open (any more)."""
    query = update(_RELEASES).where(_RELEASES.c.id == release_id, _RELEASES.c.state == "open")
    return conn.execute(query.values(state=state, ended_at=ended_at)).rowcount == 1


def append(conn: Connection, *, config_hash: str, **entry: Any) -> None:
    """Write one ledger line; the database refuses to change or delete it later."""
    conn.execute(insert(_LEDGER).values(**entry, **origin(config_hash)))


def ledger_entry(conn: Connection, entry_id: str) -> LedgerEntry:
    return as_record(LedgerEntry, conn.execute(select(_LEDGER).where(_LEDGER.c.id == entry_id)).mappings().one())


def ledger(conn: Connection, task: str | None = None) -> list[LedgerEntry]:
    query = select(_LEDGER).order_by(_LEDGER.c.seq)
    if task is not None:
        query = query.where(_LEDGER.c.task == task)
    return as_records(LedgerEntry, conn.execute(query).mappings().all())


def control_id(conn: Connection, task: str) -> str | None:
    """The version in charge: the one that the latest `promote` or `rollback` line names."""
    query = (
        select(_LEDGER.c.version_id)
        .where(_LEDGER.c.task == task, _LEDGER.c.kind.in_(("promote", "rollback")))
        .order_by(_LEDGER.c.seq.desc())
        .limit(1)
    )
    found: str | None = conn.execute(query).scalar()
    return found


def last_seq(conn: Connection) -> int:
    """Number of the newest ledger line; a server watches it for changes of release."""
    return conn.execute(select(func.max(_LEDGER.c.seq))).scalar() or 0
