"""Releases. Who is in charge is in the ledger: store/ledger.py."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import insert, or_, select, update
from sqlalchemy.engine import Connection

from headrace.records import Release
from headrace.store import schema
from headrace.store.noun import as_record, origin

_RELEASES = schema.releases


def add(conn: Connection, release: Release, *, config_hash: str) -> None:
    conn.execute(insert(_RELEASES).values(**vars(release), **origin(config_hash)))


def find(conn: Connection, release_id: str) -> Release | None:
    return _release(conn.execute(select(_RELEASES).where(_RELEASES.c.id == release_id)).mappings().first())


def open_release(conn: Connection, task: str) -> Release | None:
    """The one release of a task that still takes traffic."""
    query = select(_RELEASES).where(_RELEASES.c.task == task, _RELEASES.c.state == "open")
    return _release(conn.execute(query).mappings().first())


def open_at(conn: Connection, task: str, at: datetime) -> Release | None:
    """The release of a task that took traffic at an instant."""
    query = select(_RELEASES).where(
        _RELEASES.c.task == task,
        _RELEASES.c.started_at <= at,
        or_(_RELEASES.c.ended_at.is_(None), _RELEASES.c.ended_at > at),
    )
    return _release(conn.execute(query.order_by(_RELEASES.c.started_at.desc()).limit(1)).mappings().first())


def listing(conn: Connection, task: str) -> list[Release]:
    query = select(_RELEASES).where(_RELEASES.c.task == task).order_by(_RELEASES.c.started_at, _RELEASES.c.id)
    return [found for row in conn.execute(query).mappings() if (found := _release(row))]


def close(conn: Connection, release_id: str, *, state: str, ended_at: datetime) -> bool:
    """End an open release; False when it is not open (any more)."""
    query = update(_RELEASES).where(_RELEASES.c.id == release_id, _RELEASES.c.state == "open")
    return conn.execute(query.values(state=state, ended_at=ended_at)).rowcount == 1


def advance(conn: Connection, release: Release, weights: Mapping[str, float]) -> bool:
    """Give the arms of an open release other shares, in its next stage; False when it has left the stage it was in."""
    query = update(_RELEASES).where(
        _RELEASES.c.id == release.id, _RELEASES.c.state == "open", _RELEASES.c.stage == release.stage
    )
    return conn.execute(query.values(weights=dict(weights), stage=release.stage + 1)).rowcount == 1


def _release(row: Any) -> Release | None:
    if row is None:
        return None
    scope = None if row["scope"] is None else tuple(row["scope"])
    return as_record(Release, {**row, "others": tuple(row["others"]), "scope": scope})
