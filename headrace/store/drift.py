"""What drift is watched by: answers in order, audits in the order they were answered, detectors' states, alarms."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, func, insert, select, update
from sqlalchemy.engine import Connection, RowMapping

from headrace.ids import first_id, made_at
from headrace.store import schema
from headrace.store.noun import lock_table

_STREAMS = schema.drift_streams
_ALARMS = schema.alarms
_PREDICTIONS = schema.predictions
_REVIEWS = schema.reviews
_CHANNELS = schema.channels
Streams = dict[tuple[str, str], dict[str, dict[str, Any]]]
"""(id of the channel, id of the version) to the state of each stream; channel "" is all together."""


def lock(conn: Connection) -> None:
    """Let nobody else move the streams on until this transaction ends."""
    lock_table(conn, _STREAMS)


def cursor(conn: Connection, task: str) -> str | None:
    """Id of a prediction: all before it are in the streams. None where nothing was looked at."""
    query = select(func.max(_STREAMS.c.seen)).where(_STREAMS.c.task == task, _STREAMS.c.channel_id == "")
    found: str | None = conn.execute(query).scalar()
    return found


def streams(conn: Connection, task: str, version_ids: Iterable[str]) -> Streams:
    """The states of these versions' streams."""
    mine = and_(_STREAMS.c.task == task, _STREAMS.c.version_id.in_(sorted(set(version_ids))))
    found: Streams = {}
    for row in conn.execute(select(_STREAMS).where(mine)):
        found.setdefault((row.channel_id, row.version_id), {})[row.stream] = row.state
    return found


def put(
    conn: Connection,
    task: str,
    scope: tuple[str, str],
    states: Mapping[str, Mapping[str, Any]],
    *,
    seen: str,
    now: datetime,
) -> None:
    """Keep the states of streams of one scope, which is a channel and a version."""
    channel_id, version_id = scope
    for stream, state in states.items():
        place = {"task": task, "channel_id": channel_id, "version_id": version_id, "stream": stream}
        values = {"state": dict(state), "seen": seen, "at": now}
        here = [_STREAMS.c[name] == value for name, value in place.items()]
        if not conn.execute(update(_STREAMS).where(*here).values(**values)).rowcount:
            conn.execute(insert(_STREAMS).values(**place, **values))


def forget(conn: Connection, task: str, scope: tuple[str, str]) -> None:
    """Drop the streams of one scope, so that they begin anew."""
    channel_id, version_id = scope
    mine = and_(_STREAMS.c.task == task, _STREAMS.c.channel_id == channel_id, _STREAMS.c.version_id == version_id)
    conn.execute(delete(_STREAMS).where(mine))


def answers(
    conn: Connection, task: str, version_ids: Iterable[str], *, first: str, before: str, limit: int
) -> Sequence[RowMapping]:
    """Answers of versions to users, in the order of their ids.

    Columns: id, channel_id, version_id, output, audit_probability.

    Args:
        first, before: ids; from the one on, up to the other without it.
    """
    p = _PREDICTIONS.c
    query = select(p.id, p.channel_id, p.version_id, p.output, p.audit_probability).where(
        p.task == task, p.id >= first, p.id < before, p.version_id.in_(sorted(set(version_ids)))
    )
    query = query.where(p.arm != "shadow", p.error.is_(None)).order_by(p.id).limit(limit)
    return conn.execute(query).mappings().all()


def audited(
    conn: Connection, task: str, version_ids: Iterable[str], *, since: datetime, before: datetime
) -> Sequence[RowMapping]:
    """Audits that were answered between two instants, in that order.

    Columns: prediction_id, channel_id, channel, version_id, output, probability, answer, labeller, key_id,
    answered_at.
    """
    p = _PREDICTIONS.c
    query = (
        select(
            p.id.label("prediction_id"),
            p.channel_id,
            _CHANNELS.c.name.label("channel"),
            p.version_id,
            p.output,
            p.audit_probability.label("probability"),
            _REVIEWS.c.answer,
            _REVIEWS.c.labeller,
            _REVIEWS.c.key_id,
            _REVIEWS.c.answered_at,
        )
        .join(_REVIEWS, _REVIEWS.c.prediction_id == p.id)
        .join(_CHANNELS, _CHANNELS.c.id == p.channel_id)
        .where(_REVIEWS.c.task == task, _REVIEWS.c.reason == "audit", _REVIEWS.c.state == "answered")
        .where(_REVIEWS.c.answered_at >= since, _REVIEWS.c.answered_at < before)
        .where(p.version_id.in_(sorted(set(version_ids))), p.arm != "shadow", p.audit_probability.is_not(None))
        .order_by(_REVIEWS.c.answered_at, _REVIEWS.c.id)
    )
    return conn.execute(query).mappings().all()


def n_texts(conn: Connection, task: str, version_id: str, *, first: str, before: str) -> int:
    """How many answers of a version there are whose text is kept."""
    query = select(func.count()).where(*_with_text(task, version_id, before), _PREDICTIONS.c.id >= first)
    return conn.execute(query).scalar_one()


def texts(conn: Connection, task: str, version_id: str, *, before: str, limit: int) -> list[str | tuple[str, str]]:
    """The latest inputs of a version's answers whose text is kept, the oldest of them first."""
    p = _PREDICTIONS.c
    query = (
        select(p.id, p.text, p.text_pair)
        .where(*_with_text(task, version_id, before))
        .order_by(p.id.desc())
        .limit(limit)
    )
    return [text if pair is None else (text, pair) for _, text, pair in reversed(conn.execute(query).all())]


def began_at(
    conn: Connection, task: str, scope: tuple[str, str], *, first: str, before: str, n_back: int
) -> datetime | None:
    """When the answer was given that is `n_back` answers of a scope before the id `before`."""
    channel_id, version_id = scope
    p = _PREDICTIONS.c
    query = select(p.id).where(p.task == task, p.version_id == version_id, p.id >= first, p.id < before)
    query = query.where(p.arm != "shadow", p.error.is_(None))
    if channel_id:
        query = query.where(p.channel_id == channel_id)
    found = conn.execute(query.order_by(p.id.desc()).offset(max(0, n_back - 1)).limit(1)).scalar()
    return None if found is None else made_at(found)


def add_alarm(conn: Connection, **values: Any) -> None:
    """An alarm with all its columns; `channel_id` None: of all channels together."""
    conn.execute(insert(_ALARMS).values(**values))


def alarms(conn: Connection, task: str, *, is_open: bool = False, limit: int | None = None) -> Sequence[RowMapping]:
    """Alarms of a task, the newest first, each with the name of its channel (None: all channels together)."""
    query: Select[Any] = select(_ALARMS, _CHANNELS.c.name.label("channel")).outerjoin(
        _CHANNELS, _CHANNELS.c.id == _ALARMS.c.channel_id
    )
    query = query.where(_ALARMS.c.task == task)
    if is_open:
        query = query.where(_ALARMS.c.ended_at.is_(None))
    return conn.execute(query.order_by(_ALARMS.c.id.desc()).limit(limit)).mappings().all()


def change_alarm(conn: Connection, alarm_id: str, **values: Any) -> None:
    conn.execute(update(_ALARMS).where(_ALARMS.c.id == alarm_id).values(**values))


def first_answer(at: datetime) -> str:
    """Where the ids of answers begin that were given from an instant on."""
    return first_id("prediction", at)


def _with_text(task: str, version_id: str, before: str) -> tuple[ColumnElement[bool], ...]:
    p = _PREDICTIONS.c
    given = p.task == task, p.version_id == version_id, p.arm != "shadow", p.error.is_(None)
    return *given, p.text.is_not(None), p.id < before
