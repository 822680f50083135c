"""What was said of predictions, as it is looked at: the newest, and what metrics and events add up to."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, or_, select
from sqlalchemy.engine import Connection, RowMapping

from headrace.ids import first_id
from headrace.store import schema

_FEEDBACK = schema.feedback
_PREDICTIONS = schema.predictions
_CHANNELS = schema.channels


def newest(
    conn: Connection,
    *,
    task: str | None,
    channel: str | None,
    kind: str | None,
    labeller: str | None,
    since: datetime | None,
    limit: int,
) -> list[RowMapping]:
    """Feedback, the newest first: its columns, `task`, `channel` and `is_replaced`."""
    query = _of_predictions(_FEEDBACK, _PREDICTIONS.c.task, _CHANNELS.c.name.label("channel"), _is_replaced())
    for column, wanted in (
        (_PREDICTIONS.c.task, task),
        (_CHANNELS.c.name, channel),
        (_FEEDBACK.c.kind, kind),
        (_FEEDBACK.c.labeller, labeller),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    query = _since(query, since).order_by(_FEEDBACK.c.at.desc(), _FEEDBACK.c.id.desc()).limit(limit)
    return list(conn.execute(query).mappings())


def votes(conn: Connection, task: str, *, channel: str | None, since: datetime | None) -> Iterator[RowMapping]:
    """Metrics and events, in the order they came.

    Columns: prediction_id, labeller, key_id, metric, value, event, channel, version (its number).
    """
    query = _of_predictions(
        _FEEDBACK.c.prediction_id,
        _FEEDBACK.c.labeller,
        _FEEDBACK.c.key_id,
        _FEEDBACK.c.metric,
        _FEEDBACK.c.value,
        _FEEDBACK.c.event,
        _CHANNELS.c.name.label("channel"),
        schema.model_versions.c.number.label("version"),
    ).join(schema.model_versions, schema.model_versions.c.id == _PREDICTIONS.c.version_id)
    query = query.where(_PREDICTIONS.c.task == task, _FEEDBACK.c.kind.in_(("metric", "event")))
    if channel is not None:
        query = query.where(_CHANNELS.c.name == channel)
    query = _since(query, since).order_by(_FEEDBACK.c.at, _FEEDBACK.c.id)
    yield from conn.execute(query, execution_options={"yield_per": 1000}).mappings()


def _of_predictions(*columns: Any) -> Select[Any]:
    return (
        select(*columns)
        .select_from(_FEEDBACK)
        .join(_PREDICTIONS, _PREDICTIONS.c.id == _FEEDBACK.c.prediction_id)
        .join(_CHANNELS, _CHANNELS.c.id == _PREDICTIONS.c.channel_id)
    )


def _since(query: Select[Any], since: datetime | None) -> Select[Any]:
    return query if since is None else query.where(_FEEDBACK.c.id >= first_id("feedback", since))


def _is_replaced() -> Any:
    """Whether the labeller thought again: a later correction, or value of the same metric, of the same prediction."""
    later = _FEEDBACK.alias("later")
    same = (
        later.c.prediction_id == _FEEDBACK.c.prediction_id,
        later.c.labeller == _FEEDBACK.c.labeller,
        or_(later.c.key_id.is_(None), later.c.key_id == _FEEDBACK.c.key_id),
        later.c.kind == _FEEDBACK.c.kind,
        _FEEDBACK.c.kind.in_(("correction", "metric")),
        func.coalesce(later.c.metric, "") == func.coalesce(_FEEDBACK.c.metric, ""),
        or_(later.c.at > _FEEDBACK.c.at, (later.c.at == _FEEDBACK.c.at) & (later.c.id > _FEEDBACK.c.id)),
    )
    return select(later.c.id).where(*same).correlate(_FEEDBACK).exists().label("is_replaced")
