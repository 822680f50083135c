"""Answers that could have been audited, those that were, and what users said without being asked.

Every reader takes `first` and `before`, ids of predictions: from the one on, up to the other without it. Answers of
shadows were given to nobody and are left out.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.engine import Connection, RowMapping

from headrace.store import schema

_PREDICTIONS = schema.predictions
_REVIEWS = schema.reviews
_FEEDBACK = schema.feedback
_CHANNELS = schema.channels
_OUTPUT = _PREDICTIONS.c.output
_PROXY = func.coalesce(_OUTPUT["confidence"].as_float(), _OUTPUT["score"].as_float(), 0.0)
"""How sure an answer was, as far as it says so in one number."""


class Totals(NamedTuple):
    """Of the answers that one version gave to one channel and that could have been audited."""

    channel: str
    version_id: str
    n: int
    proxy: float
    """Sum."""
    proxy_squares: float


def totals(conn: Connection, task: str, *, first: str, before: str) -> list[Totals]:
    """How many answers could have been audited, and the sums of how sure they were, by channel and version."""
    group = (_CHANNELS.c.name, _PREDICTIONS.c.version_id)
    query = select(*group, func.count(), func.sum(_PROXY), func.sum(_PROXY * _PROXY)).select_from(_PREDICTIONS)
    query = _with_channel(query).where(_auditable(task, first, before)).group_by(*group).order_by(*group)
    return [Totals(*row) for row in conn.execute(query)]


def drawn(conn: Connection, task: str, *, first: str, before: str) -> Sequence[RowMapping]:
    """Answers that were drawn for an audit, in the order of their ids.

    Columns: prediction_id, channel, version_id, probability, proxy, output, asked_at, answer, labeller, key_id and
    answered_at (None while nobody has answered).
    """
    is_answered = _REVIEWS.c.state == "answered"
    query: Select[Any] = select(
        *_answer_columns(),
        _PREDICTIONS.c.audit_probability.label("probability"),
        _PROXY.label("proxy"),
        _PREDICTIONS.c.at.label("asked_at"),
        _REVIEWS.c.answer,
        _REVIEWS.c.labeller,
        _REVIEWS.c.key_id,
        _REVIEWS.c.answered_at,
        is_answered.label("is_answered"),
    ).select_from(_PREDICTIONS)
    query = _with_channel(query).join(_REVIEWS, _REVIEWS.c.prediction_id == _PREDICTIONS.c.id)
    query = query.where(_auditable(task, first, before), _REVIEWS.c.task == task, _REVIEWS.c.reason == "audit")
    return conn.execute(query.order_by(_PREDICTIONS.c.id, _REVIEWS.c.id)).mappings().all()


def volunteered(conn: Connection, task: str, *, first: str, before: str) -> Sequence[RowMapping]:
    """Corrections that no review asked for, in the order they came.

    Columns: prediction_id, channel, version_id, output, correction, labeller, key_id.
    """
    asked_for = (
        select(_REVIEWS.c.id)
        .where(_REVIEWS.c.prediction_id == _FEEDBACK.c.prediction_id, _REVIEWS.c.labeller == _FEEDBACK.c.labeller)
        .where(_REVIEWS.c.key_id.is_not_distinct_from(_FEEDBACK.c.key_id))
        .exists()
    )
    said = (_FEEDBACK.c.correction, _FEEDBACK.c.labeller, _FEEDBACK.c.key_id)
    query: Select[Any] = select(*_answer_columns(), *said).select_from(_PREDICTIONS)
    query = _with_channel(query).join(_FEEDBACK, _FEEDBACK.c.prediction_id == _PREDICTIONS.c.id)
    query = query.where(_given(task, first, before), _FEEDBACK.c.kind == "correction", ~asked_for)
    return conn.execute(query.order_by(_FEEDBACK.c.at, _FEEDBACK.c.id)).mappings().all()


def _answer_columns() -> tuple[Any, ...]:
    return (
        _PREDICTIONS.c.id.label("prediction_id"),
        _CHANNELS.c.name.label("channel"),
        _PREDICTIONS.c.version_id,
        _OUTPUT,
    )


def _with_channel(query: Select[Any]) -> Select[Any]:
    return query.join(_CHANNELS, _CHANNELS.c.id == _PREDICTIONS.c.channel_id)


def _given(task: str, first: str, before: str) -> ColumnElement[bool]:
    """Answers that somebody got."""
    p = _PREDICTIONS.c
    return and_(p.task == task, p.id >= first, p.id < before, p.arm != "shadow", p.error.is_(None))


def _auditable(task: str, first: str, before: str) -> ColumnElement[bool]:
    return and_(_given(task, first, before), _PREDICTIONS.c.audit_probability.is_not(None))
