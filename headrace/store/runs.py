"""Runs and the artifacts that runs, exports and snapshots leave."""

from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection

from headrace.records import Artifact, Run
from headrace.store import schema
from headrace.store.noun import as_records, one_or_none, origin

_RUNS = schema.runs
_ARTIFACTS = schema.artifacts


def add(conn: Connection, run: Run, *, config_hash: str) -> None:
    conn.execute(insert(_RUNS).values(**vars(run), **origin(config_hash)))


def find(conn: Connection, run_id: str) -> Run | None:
    return one_or_none(Run, conn.execute(select(_RUNS).where(_RUNS.c.id == run_id)).mappings().first())


def with_fingerprint(conn: Connection, fingerprint: str) -> Run | None:
    query = select(_RUNS).where(_RUNS.c.fingerprint == fingerprint)
    return one_or_none(Run, conn.execute(query).mappings().first())


def listing(conn: Connection, task: str) -> list[Run]:
    query = select(_RUNS).where(_RUNS.c.task == task).order_by(_RUNS.c.created_at)
    return as_records(Run, conn.execute(query).mappings().all())


def change(conn: Connection, run_id: str, **values: Any) -> None:
    conn.execute(update(_RUNS).where(_RUNS.c.id == run_id).values(**values))


def add_artifact(conn: Connection, artifact: Artifact, now: datetime) -> None:
    """Record an artifact; the same bytes twice are one row."""
    if find_artifact(conn, artifact.digest) is None:
        conn.execute(insert(_ARTIFACTS).values(**vars(artifact), created_at=now))


def artifacts_of_version(conn: Connection, version_id: str, *, kind: str) -> list[Artifact]:
    """Artifacts of a kind whose facts name a version, newest first."""
    query = select(_ARTIFACTS).where(_ARTIFACTS.c.kind == kind, _ARTIFACTS.c.facts["version"].as_string() == version_id)
    return as_records(Artifact, conn.execute(query.order_by(_ARTIFACTS.c.created_at.desc())).mappings().all())


def find_artifact(conn: Connection, digest: str) -> Artifact | None:
    query = select(_ARTIFACTS).where(_ARTIFACTS.c.digest == digest)
    return one_or_none(Artifact, conn.execute(query).mappings().first())
