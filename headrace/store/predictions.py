"""The prediction log and the feedback on it."""

from collections.abc import Sequence

from sqlalchemy import insert, select
from sqlalchemy.engine import Connection

from headrace.records import Feedback, Prediction
from headrace.store import schema
from headrace.store.noun import as_record, one_or_none, origin

_PREDICTIONS = schema.predictions
_FEEDBACK = schema.feedback
_CHANNELS = schema.channels


def add(conn: Connection, answers: Sequence[Prediction], *, channel_id: str, config_hash: str) -> None:
    """Log the answers of one request to one channel; their order is their row number."""
    rows = [
        {**vars(answer), "row": row, "channel_id": channel_id, **origin(config_hash)}
        for row, answer in enumerate(answers)
    ]
    for values in rows:
        del values["channel"]
    conn.execute(insert(_PREDICTIONS), rows)


def find(conn: Connection, prediction_id: str) -> Prediction | None:
    query = (
        select(_PREDICTIONS, _CHANNELS.c.name.label("channel"))
        .join(_CHANNELS, _CHANNELS.c.id == _PREDICTIONS.c.channel_id)
        .where(_PREDICTIONS.c.id == prediction_id)
    )
    return one_or_none(Prediction, conn.execute(query).mappings().first())


def of_request(conn: Connection, request_id: str, arm: str) -> list[Prediction]:
    """The answers that one arm gave to a request, in the order of its inputs."""
    query = (
        select(_PREDICTIONS, _CHANNELS.c.name.label("channel"))
        .join(_CHANNELS, _CHANNELS.c.id == _PREDICTIONS.c.channel_id)
        .where(_PREDICTIONS.c.request_id == request_id, _PREDICTIONS.c.arm == arm)
        .order_by(_PREDICTIONS.c.row)
    )
    return [as_record(Prediction, row) for row in conn.execute(query).mappings()]


def add_feedback(conn: Connection, feedback: Feedback, *, config_hash: str) -> None:
    conn.execute(insert(_FEEDBACK).values(**vars(feedback), used=False, **origin(config_hash)))


def feedback_with_key(conn: Connection, idempotency_key: str) -> Feedback | None:
    query = select(_FEEDBACK).where(_FEEDBACK.c.idempotency_key == idempotency_key)
    return one_or_none(Feedback, conn.execute(query).mappings().first())


def feedback_on(conn: Connection, prediction_id: str) -> list[Feedback]:
    query = select(_FEEDBACK).where(_FEEDBACK.c.prediction_id == prediction_id).order_by(_FEEDBACK.c.id)
    return [as_record(Feedback, row) for row in conn.execute(query).mappings()]
