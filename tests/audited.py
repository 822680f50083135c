"""A prediction log with audits, put straight into a store: what live accuracy and drift read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert

from headrace.ids import first_id, new_id
from headrace.records import Channel, ModelVersion
from headrace.store import predictions, schema
from headrace.store.predictions import LogRow
from headrace.workspace import Workspace
from planted import NOON, ORIGIN


@dataclass(frozen=True)
class Answer:
    """One answer, and what an audit and a user said of it."""

    label: str
    confidence: float = 0.9
    truth: str | None = None
    """What its audit said; None: it was not drawn, or nobody has answered."""
    is_drawn: bool = False
    told: str | None = None
    """What a user said without being asked."""
    after_s: float = 60.0
    """From the answer to what its audit said."""
    probability: float | None = 0.5


def plant_log(
    ws: Workspace,
    channel: Channel,
    version: ModelVersion,
    answers: Sequence[Answer],
    *,
    start: datetime = NOON,
    every_s: float = 1.0,
    arm: str = "control",
) -> list[str]:
    """Log answers at even distances, with their reviews and corrections; the ids of the answers."""
    ids, log, reviews, feedback = [], [], list[dict[str, Any]](), list[dict[str, Any]]()
    for place, answer in enumerate(answers):
        at = start + timedelta(seconds=place * every_s)
        prediction_id = f"{first_id('prediction', at)[:-12]}{new_id('prediction')[-12:]}"
        ids.append(prediction_id)
        log.append(_row(prediction_id, channel, version, answer, at, arm))
        if answer.is_drawn or answer.truth is not None:
            reviews.append(_review(prediction_id, channel, version.task, answer, at))
        said = [("auditor", answer.truth)] if answer.truth is not None else []
        said += [("user", answer.told)] if answer.told is not None else []
        feedback += [
            _correction(prediction_id, who, what, at + timedelta(seconds=answer.after_s)) for who, what in said
        ]
    with ws.store.write(durable=False) as conn:
        predictions.add_rows(conn, log, config_hash=ORIGIN["config_hash"])
        for table, lines in ((schema.reviews, reviews), (schema.feedback, feedback)):
            if lines:
                conn.execute(insert(table), lines)
    return ids


def _row(prediction_id: str, channel: Channel, version: ModelVersion, answer: Answer, at: datetime, arm: str) -> LogRow:
    output = {"label": answer.label, "confidence": answer.confidence, "scores": {}}
    return LogRow(
        prediction_id, new_id("request"), 0, version.task, channel.id, None, arm, None, version.id, version.artifact,
        None, f"text {prediction_id}", None, prediction_id[-32:], output, 1.0, None, at,
        audit_probability=answer.probability,
    )  # fmt: skip


def _review(prediction_id: str, channel: Channel, task: str, answer: Answer, at: datetime) -> dict[str, Any]:
    is_answered = answer.truth is not None
    return {
        "id": new_id("review"), "task": task, "channel_id": channel.id, "reason": "audit",
        "prediction_id": prediction_id, "probability": answer.probability, "priority": 1.0,
        "state": "answered" if is_answered else "open", "answer": answer.truth,
        "labeller": "auditor" if is_answered else None, "created_at": at,
        "answered_at": at + timedelta(seconds=answer.after_s) if is_answered else None, **ORIGIN,
    }  # fmt: skip


def _correction(prediction_id: str, labeller: str, correction: str, at: datetime) -> dict[str, Any]:
    return {
        "id": new_id("feedback"), "prediction_id": prediction_id, "kind": "correction", "correction": correction,
        "labeller": labeller, "used": False, "at": at, **ORIGIN,
    }  # fmt: skip
