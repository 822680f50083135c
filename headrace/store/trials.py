"""Trials of searches for settings."""

from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection

from headrace.records import Trial
from headrace.store import schema
from headrace.store.noun import as_records, origin

_TRIALS = schema.trials


def add(conn: Connection, trial: Trial, *, config_hash: str) -> None:
    conn.execute(insert(_TRIALS).values(**vars(trial), **origin(config_hash)))


def change(conn: Connection, trial_id: str, **values: Any) -> None:
    conn.execute(update(_TRIALS).where(_TRIALS.c.id == trial_id).values(**values))


def listing(conn: Connection, search: str) -> list[Trial]:
    """The trials of a search, in the order they were drawn."""
    query = select(_TRIALS).where(_TRIALS.c.search == search).order_by(_TRIALS.c.number)
    return as_records(Trial, conn.execute(query).mappings().all())
