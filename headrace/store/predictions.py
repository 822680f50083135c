"""The prediction log and the feedback on it."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, delete, exists, func, select
from sqlalchemy.engine import Connection

from headrace.ids import first_id
from headrace.records import Feedback, Input, Prediction
from headrace.store import schema
from headrace.store.noun import as_record, in_parts, insert_many, one_or_none, origin

_PREDICTIONS = schema.predictions
_FEEDBACK = schema.feedback
_CHANNELS = schema.channels


class LogRow(NamedTuple):
    """One answered input on its way to the log, as the columns of the table; `row` is its place in the request."""

    id: str
    request_id: str
    row: int
    task: str
    channel_id: str
    unit: str | None
    arm: str
    release_id: str | None
    version_id: str
    artifact: str
    adapter: str | None
    text: str | None
    text_pair: str | None
    text_hash: str
    output: dict[str, Any]
    latency_ms: float
    error: str | None
    at: datetime
    probability: float = 1.0
    audit_probability: float | None = None


def add_rows(conn: Connection, rows: Sequence[LogRow], *, config_hash: str) -> None:
    """Log answers, of any number of requests."""
    insert_many(conn, _PREDICTIONS, LogRow._fields, rows, origin(config_hash))


def find(conn: Connection, prediction_id: str) -> Prediction | None:
    return one_or_none(
        Prediction, conn.execute(_with_channel().where(_PREDICTIONS.c.id == prediction_id)).mappings().first()
    )


def find_all(conn: Connection, ids: Collection[str]) -> dict[str, Prediction]:
    """Those of the ids that are in the store."""
    found: dict[str, Prediction] = {}
    for part in in_parts(ids):
        query = _with_channel().where(_PREDICTIONS.c.id.in_(part))
        found.update((row["id"], as_record(Prediction, row)) for row in conn.execute(query).mappings())
    return found


def oldest(conn: Connection) -> str | None:
    """The least id in the store."""
    found: str | None = conn.execute(select(func.min(_PREDICTIONS.c.id))).scalar()
    return found


def of_request(conn: Connection, request_id: str, arm: str) -> list[Prediction]:
    """The answers that one arm gave to a request, in the order of its inputs."""
    query = (
        _with_channel()
        .where(_PREDICTIONS.c.request_id == request_id, _PREDICTIONS.c.arm == arm)
        .order_by(_PREDICTIONS.c.row)
    )
    return [as_record(Prediction, row) for row in conn.execute(query).mappings()]


def count(conn: Connection) -> int:
    """Rows of the log that are in the store."""
    return conn.execute(select(func.count()).select_from(_PREDICTIONS)).scalar_one()


def asked_since(conn: Connection, task: str, since: datetime) -> dict[str, tuple[int, datetime]]:
    """Channel to the number of inputs of a task that were answered from an instant on, and when the first was.

    What a shadow answers beside is not counted again. Rows that have moved to files are not either.
    """
    n, first = func.count().label("n"), func.min(_PREDICTIONS.c.at, type_=schema.Instant).label("first")
    query = (
        select(_CHANNELS.c.name, n, first)
        .join(_CHANNELS, _CHANNELS.c.id == _PREDICTIONS.c.channel_id)
        .where(_PREDICTIONS.c.id >= first_id("prediction", since), _PREDICTIONS.c.task == task)
        .where(_PREDICTIONS.c.arm != "shadow")
        .group_by(_CHANNELS.c.name)
        .order_by(_CHANNELS.c.name)
    )
    return {row.name: (row.n, row.first) for row in conn.execute(query)}


def listing(
    conn: Connection, *, task: str | None = None, since: datetime | None = None, until: datetime | None = None
) -> Iterator[dict[str, Any]]:
    """Whole rows in the order of their ids, which is that of time, each with the name of its channel.

    Args:
        since, until: of the ids; the end is not in it.
    """
    query = _with_channel().order_by(_PREDICTIONS.c.id)
    if task is not None:
        query = query.where(_PREDICTIONS.c.task == task)
    if since is not None:
        query = query.where(_PREDICTIONS.c.id >= first_id("prediction", since))
    if until is not None:
        query = query.where(_PREDICTIONS.c.id < first_id("prediction", until))
    for row in conn.execute(query, execution_options={"yield_per": 1000}).mappings():
        yield dict(row)


def newest_inputs(conn: Connection, task: str, *, limit: int) -> list[Input]:
    """What was asked last, where the log has its text, the newest first; what a shadow was asked too counts once."""
    query = (
        select(_PREDICTIONS.c.text, _PREDICTIONS.c.text_pair)
        .where(_PREDICTIONS.c.task == task, _PREDICTIONS.c.arm != "shadow", _PREDICTIONS.c.text.is_not(None))
        .order_by(_PREDICTIONS.c.id.desc())
        .limit(limit)
    )
    return [text if pair is None else (text, pair) for text, pair in conn.execute(query)]


def oldest_movable(
    conn: Connection, *, after: str, before: datetime | None, spare_open: bool, limit: int
) -> list[dict[str, Any]]:
    """The oldest rows that nothing in the store refers to, whole, each with the name of its channel.

    A row stays with the other arm's answer to its input as long as there is feedback on either.

    Args:
        after: id from which on to look.
        before: rows made from then on stay.
        spare_open: whether rows of open releases stay.
    """
    query = _with_channel().where(_PREDICTIONS.c.id > after, ~_has_feedback())
    if before is not None:
        query = query.where(_PREDICTIONS.c.id < first_id("prediction", before))
    if spare_open:
        releases = schema.releases.c
        is_open = exists().where(releases.id == _PREDICTIONS.c.release_id, releases.state == "open")
        query = query.where(~is_open)
    return [dict(row) for row in conn.execute(query.order_by(_PREDICTIONS.c.id).limit(limit)).mappings()]


def remove(conn: Connection, ids: Sequence[str]) -> None:
    """Take rows out of the store, except those that feedback came for."""
    for part in in_parts(ids):
        conn.execute(delete(_PREDICTIONS).where(_PREDICTIONS.c.id.in_(part), ~_has_feedback()))


def of_channel_before(conn: Connection, channel_id: str, before: str, *, limit: int) -> list[str]:
    """Ids of a channel's predictions below an id, the oldest first."""
    query = select(_PREDICTIONS.c.id).where(_PREDICTIONS.c.channel_id == channel_id, _PREDICTIONS.c.id < before)
    return list(conn.execute(query.order_by(_PREDICTIONS.c.id).limit(limit)).scalars())


def remove_for_good(conn: Connection, ids: Sequence[str]) -> None:
    """Delete rows with what was said and asked of them."""
    if conn.dialect.name == "sqlite":
        conn.exec_driver_sql("PRAGMA secure_delete=ON")  # also where the disk has no room to rewrite the file later
    reviews = schema.reviews
    for part in in_parts(ids):
        conn.execute(delete(reviews).where(reviews.c.prediction_id.in_(part)))
        conn.execute(delete(_FEEDBACK).where(_FEEDBACK.c.prediction_id.in_(part)))
        conn.execute(delete(_PREDICTIONS).where(_PREDICTIONS.c.id.in_(part)))


def present(conn: Connection, ids: Sequence[str]) -> set[str]:
    """Those of the ids that are in the store."""
    found: set[str] = set()
    for part in in_parts(ids):
        found.update(conn.execute(select(_PREDICTIONS.c.id).where(_PREDICTIONS.c.id.in_(part))).scalars())
    return found


def add_feedback(conn: Connection, several: Iterable[Feedback], *, config_hash: str) -> None:
    columns = [field.name for field in fields(Feedback)]
    values = [list(vars(one).values()) for one in several]
    insert_many(conn, _FEEDBACK, columns, values, {"used": False, **origin(config_hash)})


def feedback_with_keys(conn: Connection, keys: Collection[str]) -> dict[str, Feedback]:
    """Idempotency key to the feedback that came with it."""
    found: dict[str, Feedback] = {}
    for part in in_parts(keys):
        query = select(_FEEDBACK).where(_FEEDBACK.c.idempotency_key.in_(part))
        found.update((row["idempotency_key"], as_record(Feedback, row)) for row in conn.execute(query).mappings())
    return found


def feedback_on(conn: Connection, prediction_id: str) -> list[Feedback]:
    query = select(_FEEDBACK).where(_FEEDBACK.c.prediction_id == prediction_id).order_by(_FEEDBACK.c.id)
    return [as_record(Feedback, row) for row in conn.execute(query).mappings()]


def _with_channel() -> Any:
    return select(_PREDICTIONS, _CHANNELS.c.name.label("channel")).join(
        _CHANNELS, _CHANNELS.c.id == _PREDICTIONS.c.channel_id
    )


def _has_feedback() -> ColumnElement[bool]:
    """Whether somebody said something of a row's input, on the answer of any arm."""
    same = _PREDICTIONS.alias("same")
    of_same_input = and_(same.c.request_id == _PREDICTIONS.c.request_id, same.c.row == _PREDICTIONS.c.row)
    return (
        select(_FEEDBACK.c.id)
        .select_from(same)
        .join(_FEEDBACK, _FEEDBACK.c.prediction_id == same.c.id)
        .where(of_same_input)
        .correlate(_PREDICTIONS)
        .exists()
    )
