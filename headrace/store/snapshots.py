"""Snapshots: what was frozen for a task, by the hash of its rows."""

from datetime import datetime

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection

from headrace.records import Snapshot
from headrace.store import schema
from headrace.store.noun import as_records, one_or_none, origin

_SNAPSHOTS = schema.snapshots


def add(conn: Connection, snapshot: Snapshot, *, config_hash: str) -> None:
    conn.execute(insert(_SNAPSHOTS).values(**vars(snapshot), **origin(config_hash)))


def find(conn: Connection, snapshot_id: str) -> Snapshot | None:
    query = select(_SNAPSHOTS).where(_SNAPSHOTS.c.id == snapshot_id)
    return one_or_none(Snapshot, conn.execute(query).mappings().first())


def with_hash(conn: Connection, task: str, content_hash: str) -> Snapshot | None:
    query = select(_SNAPSHOTS).where(_SNAPSHOTS.c.task == task, _SNAPSHOTS.c.content_hash == content_hash)
    return one_or_none(Snapshot, conn.execute(query).mappings().first())


def listing(conn: Connection, task: str) -> list[Snapshot]:
    """Oldest first."""
    query = select(_SNAPSHOTS).where(_SNAPSHOTS.c.task == task).order_by(_SNAPSHOTS.c.created_at, _SNAPSHOTS.c.id)
    return as_records(Snapshot, conn.execute(query).mappings().all())


def need(conn: Connection, digest: str) -> bool:
    """Whether a snapshot whose rows are there is made of these files."""
    query = select(_SNAPSHOTS.c.id).where(_SNAPSHOTS.c.artifact == digest, _SNAPSHOTS.c.erased_at.is_(None))
    return conn.execute(query).first() is not None


def mark_erased(conn: Connection, snapshot_id: str, at: datetime) -> None:
    conn.execute(update(_SNAPSHOTS).where(_SNAPSHOTS.c.id == snapshot_id).values(erased_at=at))


def revive(conn: Connection, snapshot_id: str, snapshot: Snapshot) -> None:
    """The same rows came again after an erasure: what is named here has their files."""
    again = {name: value for name, value in vars(snapshot).items() if name not in ("id", "task", "content_hash")}
    conn.execute(update(_SNAPSHOTS).where(_SNAPSHOTS.c.id == snapshot_id).values(**again))
