"""The queue of background work."""

from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection

from headrace.records import Job
from headrace.store import schema
from headrace.store.noun import as_records, one_or_none, origin

_JOBS = schema.jobs


def add(conn: Connection, job: Job, *, pid_started: float | None, config_hash: str) -> None:
    conn.execute(insert(_JOBS).values(**vars(job), pid_started=pid_started, n_attempts=0, **origin(config_hash)))


def find(conn: Connection, job_id: str) -> Job | None:
    return one_or_none(Job, conn.execute(select(_JOBS).where(_JOBS.c.id == job_id)).mappings().first())


def listing(conn: Connection) -> list[Job]:
    return as_records(Job, conn.execute(select(_JOBS).order_by(_JOBS.c.created_at.desc())).mappings().all())


def change(conn: Connection, job_id: str, *, only_if: tuple[str, ...] = (), **values: Any) -> bool:
    """Set columns of a job; with `only_if`, just when its state is one of those. True when it did."""
    query = update(_JOBS).where(_JOBS.c.id == job_id)
    if only_if:
        query = query.where(_JOBS.c.state.in_(only_if))
    return conn.execute(query.values(**values)).rowcount == 1


def claim(conn: Connection, job_id: str, *, pid: int, pid_started: float, now: datetime) -> bool:
    """Take a queued job for a process; False when another took it or it was cancelled."""
    return change(
        conn,
        job_id,
        only_if=("queued",),
        state="running",
        pid=pid,
        pid_started=pid_started,
        started_at=now,
        n_attempts=_JOBS.c.n_attempts + 1,
    )


def process_of(conn: Connection, job_id: str) -> tuple[int | None, float | None]:
    """Process number and its start time, as claimed."""
    row = conn.execute(select(_JOBS.c.pid, _JOBS.c.pid_started).where(_JOBS.c.id == job_id)).first()
    return (None, None) if row is None else (row.pid, row.pid_started)
