"""Model versions, numbered without gaps, and their evaluations."""

from sqlalchemy import func, insert, select
from sqlalchemy.engine import Connection

from headrace.records import Evaluation, ModelVersion
from headrace.store import schema
from headrace.store.noun import as_records, lock_table, one_or_none, origin

_VERSIONS = schema.model_versions
_EVALUATIONS = schema.evaluations


def next_number(conn: Connection, task: str) -> int:
    """The number of the next version; call it in the write transaction that adds the version."""
    lock_table(conn, _VERSIONS)
    return 1 + (conn.execute(select(func.max(_VERSIONS.c.number)).where(_VERSIONS.c.task == task)).scalar() or 0)


def add(conn: Connection, version: ModelVersion, *, config_hash: str) -> None:
    conn.execute(insert(_VERSIONS).values(**vars(version), **origin(config_hash)))


def find(conn: Connection, version_id: str) -> ModelVersion | None:
    query = select(_VERSIONS).where(_VERSIONS.c.id == version_id)
    return one_or_none(ModelVersion, conn.execute(query).mappings().first())


def numbered(conn: Connection, task: str, number: int) -> ModelVersion | None:
    query = select(_VERSIONS).where(_VERSIONS.c.task == task, _VERSIONS.c.number == number)
    return one_or_none(ModelVersion, conn.execute(query).mappings().first())


def of_run(conn: Connection, run_id: str, artifact: str) -> ModelVersion | None:
    query = select(_VERSIONS).where(_VERSIONS.c.run_id == run_id, _VERSIONS.c.artifact == artifact)
    return one_or_none(ModelVersion, conn.execute(query).mappings().first())


def listing(conn: Connection, task: str) -> list[ModelVersion]:
    query = select(_VERSIONS).where(_VERSIONS.c.task == task).order_by(_VERSIONS.c.number)
    return as_records(ModelVersion, conn.execute(query).mappings().all())


def names(conn: Connection) -> dict[str, str]:
    """Id to name, of the versions of all tasks."""
    rows = conn.execute(select(_VERSIONS.c.id, _VERSIONS.c.task, _VERSIONS.c.number))
    return {row.id: f"{row.task}/{row.number}" for row in rows}


def add_evaluation(conn: Connection, evaluation: Evaluation, *, config_hash: str) -> None:
    conn.execute(insert(_EVALUATIONS).values(**vars(evaluation), **origin(config_hash)))


def evaluations(conn: Connection, task: str, *, version_id: str | None = None) -> list[Evaluation]:
    query = select(_EVALUATIONS).where(_EVALUATIONS.c.task == task).order_by(_EVALUATIONS.c.created_at)
    if version_id is not None:
        query = query.where(_EVALUATIONS.c.version_id == version_id)
    return as_records(Evaluation, conn.execute(query).mappings().all())
