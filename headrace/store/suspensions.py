"""Suspensions: whose feedback of which time does not count, and those that were lifted."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, insert, select, update
from sqlalchemy.engine import Connection

from headrace.records import Suspension
from headrace.store import schema
from headrace.store.noun import as_records, one_or_none

_SUSPENSIONS = schema.suspensions
_CHANNELS = schema.channels


def add(conn: Connection, suspensions: Sequence[Suspension], channel_ids: Mapping[str, str]) -> None:
    """
    Args:
        channel_ids: by name.
    """
    for one in suspensions:
        values: dict[str, Any] = {name: value for name, value in vars(one).items() if name != "channel"}
        conn.execute(insert(_SUSPENSIONS).values(**values, channel_id=channel_ids[one.channel]))


def find(conn: Connection, suspension_id: str) -> Suspension | None:
    return one_or_none(Suspension, conn.execute(_shown().where(_SUSPENSIONS.c.id == suspension_id)).mappings().first())


def listing(conn: Connection, task: str) -> list[Suspension]:
    """All of a task, lifted ones too, in the order of the time that they are about."""
    query = _shown().where(_SUSPENSIONS.c.task == task).order_by(_SUSPENSIONS.c.since, _SUSPENSIONS.c.id)
    return as_records(Suspension, conn.execute(query).mappings().all())


def lift(conn: Connection, suspension_id: str, *, at: datetime, by: str, because: str) -> bool:
    """Lift one; False if it was lifted already."""
    query = update(_SUSPENSIONS).where(_SUSPENSIONS.c.id == suspension_id, _SUSPENSIONS.c.lifted_at.is_(None))
    return conn.execute(query.values(lifted_at=at, lifted_by=by, lifted_because=because)).rowcount == 1


def _shown() -> Select[Any]:
    return select(_SUSPENSIONS, _CHANNELS.c.name.label("channel")).join(
        _CHANNELS, _CHANNELS.c.id == _SUSPENSIONS.c.channel_id
    )
