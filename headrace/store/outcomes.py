"""Predictions joined to the feedback about them: what a release is judged by, and what labels are made of."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, insert, or_, select, true, update
from sqlalchemy.engine import Connection, RowMapping

from headrace.store import schema
from headrace.store.noun import in_parts

_PREDICTIONS = schema.predictions
_FEEDBACK = schema.feedback
_EXAMPLES = schema.examples
_LABELS = schema.labels


def shadowed_corrections(conn: Connection, release_id: str) -> Sequence[RowMapping]:
    """Corrections of answers that a release's candidate gave too, in the order they came.

    Columns: prediction_id, channel, control (output), candidate (output), correction, labeller, key_id, at.
    """
    control, shadow = _PREDICTIONS.alias("control"), _PREDICTIONS.alias("shadow")
    query = (
        select(
            control.c.id.label("prediction_id"),
            schema.channels.c.name.label("channel"),
            control.c.output.label("control"),
            shadow.c.output.label("candidate"),
            _FEEDBACK.c.correction,
            _FEEDBACK.c.labeller,
            _FEEDBACK.c.key_id,
            _FEEDBACK.c.at,
        )
        .select_from(shadow)
        .join(control, and_(control.c.request_id == shadow.c.request_id, control.c.row == shadow.c.row))
        .join(_FEEDBACK, _FEEDBACK.c.prediction_id == control.c.id)
        .join(schema.channels, schema.channels.c.id == control.c.channel_id)
        .where(_answered(shadow, release_id), control.c.arm == "control", control.c.error.is_(None))
        .where(_FEEDBACK.c.kind == "correction")
        .order_by(_FEEDBACK.c.at, _FEEDBACK.c.id)
    )
    return conn.execute(query).mappings().all()


def asked_answers(conn: Connection, release_id: str) -> Sequence[RowMapping]:
    """What reviewers answered who were asked about a difference by a coin, in the order of the first answer to each.

    Columns: those of `shadowed_corrections`.
    """
    reviews, control, shadow = schema.reviews, _PREDICTIONS.alias("control"), _PREDICTIONS.alias("shadow")
    first_said = (
        select(func.min(_FEEDBACK.c.at))
        .where(_FEEDBACK.c.prediction_id == reviews.c.prediction_id, _FEEDBACK.c.labeller == reviews.c.labeller)
        .where(_FEEDBACK.c.kind == "correction", _FEEDBACK.c.at >= reviews.c.created_at)
        .correlate(reviews)
        .scalar_subquery()
    )
    query = (
        _pairs(control, shadow, release_id)
        .join(reviews, reviews.c.prediction_id == control.c.id)
        .add_columns(
            reviews.c.answer.label("correction"),
            reviews.c.labeller,
            reviews.c.key_id,
            reviews.c.answered_at.label("at"),
        )
        .where(reviews.c.release_id == release_id, reviews.c.probability.is_not(None), reviews.c.state == "answered")
        .order_by(func.coalesce(first_said, reviews.c.answered_at), reviews.c.id)
    )
    return conn.execute(query).mappings().all()


def shadowed_since(conn: Connection, release_id: str, *, after: str) -> Iterator[RowMapping]:
    """Inputs that both arms of a shadow release answered, in the order of the candidate's answers.

    Columns: id (of the candidate's answer), prediction_id (the control's), channel, channel_id, has_text, control
    (output), candidate (output).

    Args:
        after: id of a candidate's answer, from which on to look.
    """
    control, shadow = _PREDICTIONS.alias("control"), _PREDICTIONS.alias("shadow")
    query = (
        _pairs(control, shadow, release_id)
        .add_columns(control.c.channel_id, control.c.text.is_not(None).label("has_text"))
        .where(shadow.c.id > after)
        .order_by(shadow.c.id)
    )
    yield from conn.execute(query, execution_options={"yield_per": 500}).mappings()


def asked_about(conn: Connection, release_id: str) -> Sequence[RowMapping]:
    """Reviews of the differences that a coin drew, in the order of the candidate's answers.

    Columns: id (of the candidate's answer), prediction_id (the control's), channel, control (output), candidate
    (output), state, answer, labeller, key_id, at.
    """
    reviews, control, shadow = schema.reviews, _PREDICTIONS.alias("control"), _PREDICTIONS.alias("shadow")
    query = (
        _pairs(control, shadow, release_id)
        .join(reviews, reviews.c.prediction_id == control.c.id)
        .add_columns(
            reviews.c.state, reviews.c.answer, reviews.c.labeller, reviews.c.key_id, reviews.c.answered_at.label("at")
        )
        .where(reviews.c.release_id == release_id, reviews.c.probability.is_not(None))
        .order_by(shadow.c.id)
    )
    return conn.execute(query).mappings().all()


def _pairs(control: Any, shadow: Any, release_id: str) -> Select[Any]:
    return (
        select(
            shadow.c.id,
            control.c.id.label("prediction_id"),
            schema.channels.c.name.label("channel"),
            control.c.output.label("control"),
            shadow.c.output.label("candidate"),
        )
        .select_from(shadow)
        .join(control, and_(control.c.request_id == shadow.c.request_id, control.c.row == shadow.c.row))
        .join(schema.channels, schema.channels.c.id == control.c.channel_id)
        .where(_answered(shadow, release_id), control.c.arm == "control", control.c.error.is_(None))
    )


def count_shadowed(
    conn: Connection, release_id: str, *, before: str | None, limits: Mapping[str | None, str]
) -> dict[str, tuple[int, int]]:
    """Channel to how many of its inputs a release's candidate answered before `before`, and how many before its limit.

    Args:
        before: id of a candidate's answer; None: there is no end.
        limits: channel to the id of an earlier answer; None for all channels.
    """
    shadow, name = _PREDICTIONS, schema.channels.c.name
    is_before = true() if before is None else shadow.c.id < before
    within = [
        shadow.c.id < limit if at is None else or_(name != at, shadow.c.id < limit) for at, limit in limits.items()
    ]
    query = (
        select(name, func.count(case((is_before, 1))), func.count(case((and_(is_before, *within), 1))))
        .join(schema.channels, schema.channels.c.id == shadow.c.channel_id)
        .where(_answered(shadow, release_id))
        .group_by(name)
    )
    return {channel: (n, n_within) for channel, n, n_within in conn.execute(query)}


def labelled_answers(conn: Connection, release_id: str) -> Sequence[RowMapping]:
    """Corrections of answers that a release's arms gave to users, in the order they came.

    Columns: prediction_id, request_id, unit, channel, arm, probability, answered_at, output, correction, labeller,
    key_id, at.
    """
    query = (
        select(
            _PREDICTIONS.c.id.label("prediction_id"),
            _PREDICTIONS.c.request_id,
            _PREDICTIONS.c.unit,
            schema.channels.c.name.label("channel"),
            _PREDICTIONS.c.arm,
            _PREDICTIONS.c.probability,
            _PREDICTIONS.c.at.label("answered_at"),
            _PREDICTIONS.c.output,
            _FEEDBACK.c.correction,
            _FEEDBACK.c.labeller,
            _FEEDBACK.c.key_id,
            _FEEDBACK.c.at,
        )
        .join(_FEEDBACK, _FEEDBACK.c.prediction_id == _PREDICTIONS.c.id)
        .join(schema.channels, schema.channels.c.id == _PREDICTIONS.c.channel_id)
        .where(_PREDICTIONS.c.release_id == release_id, _PREDICTIONS.c.arm != "shadow", _PREDICTIONS.c.error.is_(None))
        .where(_FEEDBACK.c.kind == "correction")
        .order_by(_FEEDBACK.c.at, _FEEDBACK.c.id)
    )
    return conn.execute(query).mappings().all()


def newest_feedback(conn: Connection) -> str | None:
    """Id of the feedback that came last; it changes whenever any comes."""
    newest: str | None = conn.execute(select(func.max(_FEEDBACK.c.id))).scalar()
    return newest


def n_shadowed(conn: Connection, release_id: str) -> int:
    """Inputs that a release's candidate answered beside the control."""
    return conn.execute(select(func.count()).where(_answered(_PREDICTIONS, release_id))).scalar_one()


def _answered(shadow: Any, release_id: str) -> ColumnElement[bool]:
    return and_(shadow.c.release_id == release_id, shadow.c.arm == "shadow", shadow.c.error.is_(None))


def unused_corrections(conn: Connection, task: str) -> Sequence[RowMapping]:
    """Corrections no label was made of, whose text is known, in the order they came.

    Columns: id, prediction_id, correction, labeller, key_id, channel_id, text, text_pair.
    """
    query = (
        select(
            _FEEDBACK.c.id,
            _FEEDBACK.c.prediction_id,
            _FEEDBACK.c.correction,
            _FEEDBACK.c.labeller,
            _FEEDBACK.c.key_id,
            _PREDICTIONS.c.channel_id,
            _PREDICTIONS.c.text,
            _PREDICTIONS.c.text_pair,
        )
        .join(_PREDICTIONS, _PREDICTIONS.c.id == _FEEDBACK.c.prediction_id)
        .where(_unused(task, with_text=True))
        .order_by(_FEEDBACK.c.at, _FEEDBACK.c.id)
    )
    return conn.execute(query).mappings().all()


def count_unused(conn: Connection, task: str, *, with_text: bool) -> int:
    """Corrections no label was made of, whose text the prediction log kept or did not keep."""
    query = (
        select(func.count())
        .select_from(_FEEDBACK)
        .join(_PREDICTIONS, _PREDICTIONS.c.id == _FEEDBACK.c.prediction_id)
        .where(_unused(task, with_text=with_text))
    )
    return conn.execute(query).scalar_one()


def _unused(task: str, *, with_text: bool) -> ColumnElement[bool]:
    text = _PREDICTIONS.c.text
    known = text.is_not(None) if with_text else text.is_(None)
    return and_(_FEEDBACK.c.kind == "correction", _FEEDBACK.c.used.is_(False), _PREDICTIONS.c.task == task, known)


def examples_like(conn: Connection, channel_id: str, text_hashes: Sequence[str]) -> list[tuple[str, str, str, bool]]:
    """(id, key, text_hash, visible) of a channel's examples with one of these hashes as text hash or as key.

    Rows of an import that is not done are not visible: they may still be taken back.
    """
    visible = or_(_EXAMPLES.c.import_id.is_(None), schema.imports.c.state == "done")
    query = (
        select(_EXAMPLES.c.id, _EXAMPLES.c.key, _EXAMPLES.c.text_hash, visible.label("visible"))
        .outerjoin(schema.imports, schema.imports.c.id == _EXAMPLES.c.import_id)
        .where(_EXAMPLES.c.channel_id == channel_id)
        .order_by(_EXAMPLES.c.id)
    )
    found: list[tuple[str, str, str, bool]] = []
    for part in in_parts(text_hashes):
        mine = query.where(or_(_EXAMPLES.c.text_hash.in_(part), _EXAMPLES.c.key.in_(part)))
        found += [(row.id, row.key, row.text_hash, bool(row.visible)) for row in conn.execute(mine)]
    return found


def feedback_labels(conn: Connection, task: str, example_ids: Sequence[str]) -> dict[tuple[str, str, str | None], str]:
    """(example id, labeller id, id of the key) to label id, of labels that came from feedback."""
    query = select(_LABELS.c.example_id, _LABELS.c.labeller_id, _LABELS.c.key_id, _LABELS.c.id).where(
        _LABELS.c.task == task, _LABELS.c.feedback_id.is_not(None)
    )
    found: dict[tuple[str, str, str | None], str] = {}
    for part in in_parts(example_ids):
        for row in conn.execute(query.where(_LABELS.c.example_id.in_(part))):
            found[row.example_id, row.labeller_id, row.key_id] = row.id
    return found


def add_examples(conn: Connection, examples: list[dict[str, Any]]) -> None:
    if examples:
        conn.execute(insert(_EXAMPLES), examples)


def add_labels(conn: Connection, labels: list[dict[str, Any]]) -> None:
    if labels:
        conn.execute(insert(_LABELS), labels)


def replace_label(conn: Connection, label_id: str, *, value: Any, feedback_id: str, now: datetime) -> None:
    """The same labeller thought again about the same text."""
    query = update(_LABELS).where(_LABELS.c.id == label_id)
    conn.execute(query.values(value=value, feedback_id=feedback_id, created_at=now))


def mark_used(conn: Connection, feedback_ids: Sequence[str]) -> None:
    for part in in_parts(feedback_ids):
        conn.execute(update(_FEEDBACK).where(_FEEDBACK.c.id.in_(part)).values(used=True))
