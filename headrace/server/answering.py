"""Answer a request: ask the control, log it, and let the candidate of an open release answer the same in its shadow."""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from headrace.errors import BadInput, HeadraceError
from headrace.ids import new_id
from headrace.records import Channel, Input, ModelVersion, Prediction
from headrace.release.releases import Serving
from headrace.serve.pool import Answer
from headrace.server.plane import ControlPlane
from headrace.store import predictions
from headrace.tasks.inputs import parse_inputs, text_hash

_log = logging.getLogger("headrace.server")

_MAX_UNIT_CHARS = 200  # width of the column


@dataclass(frozen=True)
class _Asked:
    """A request that was found sound."""

    request_id: str
    task: str
    channel: Channel
    unit: str | None
    inputs: list[Input]
    serving: Serving
    started_at: float
    """On the monotonic clock."""

    @property
    def release_id(self) -> str | None:
        return None if self.serving.release is None else self.serving.release.id


async def predict(
    plane: ControlPlane, *, task: str, channel: str, unit: str | None, inputs: Sequence[object]
) -> dict[str, Any]:
    """The answer of the version in charge, in the shape of POST /v1/predict; rows in the order of `inputs`.

    Raises:
        BadInput: too many inputs, or one that is empty, too long or not of the task's shape.
        NotFound: no such task or channel.
        Unavailable: the worker is restarting, full or late.
        HeadraceError: the model failed on every input.
    """
    started_at = time.monotonic()
    _check(plane, unit, len(inputs))
    found = await plane.channel(channel)
    serving = plane.lineup.of(task)
    asked = _Asked(new_id("request"), task, found, unit, _parsed(plane, task, inputs), serving, started_at)
    answer = await _ask(plane, serving.control, asked.inputs)
    answered = _log_rows(plane, asked, serving.control, "control", answer)
    if serving.candidate is not None:
        plane.in_background(_shadow(plane, asked, serving.candidate))
    if all("error" in row for row in answer.rows):
        first = answer.rows[0]["error"]
        raise HeadraceError(first["message"], value=first["value"], next_step=first["next_step"])
    return {
        "predictions": [
            {"id": row.id, **result.get("output", {}), **({"error": result["error"]} if "error" in result else {})}
            for row, result in zip(answered, answer.rows, strict=True)
        ],
        "model_version": serving.control.name,
        "arm": "control",
        "adapter": None,
        "artifact": answer.digest,
    }


async def _shadow(plane: ControlPlane, asked: _Asked, candidate: ModelVersion) -> None:
    """Ask the candidate too, and log what it said or why it said nothing. Never fails."""
    try:
        answer = await _ask(plane, candidate, asked.inputs, background=True)
    except HeadraceError as error:
        rows = [{"error": error.envelope()["error"]} for _ in asked.inputs]
        answer = Answer(candidate.artifact, rows)
    try:
        _log_rows(plane, asked, candidate, "shadow", answer)
    except HeadraceError as error:
        plane.metrics.failed_writes.inc()
        _log.warning("a shadow could not be logged: %s", error)


async def _ask(
    plane: ControlPlane, version: ModelVersion, inputs: Sequence[Input], *, background: bool = False
) -> Answer:
    return await asyncio.wrap_future(plane.pool.predict(version.artifact, inputs, background=background))


def _log_rows(plane: ControlPlane, asked: _Asked, version: ModelVersion, arm: str, answer: Answer) -> list[Prediction]:
    """Queue the prediction log of one arm; feedback goes through the same queue, so it cannot come first."""
    now, latency_ms = plane.ws.clock(), (time.monotonic() - asked.started_at) * 1000
    keeps_text = plane.ws.settings.serve.log_inputs == "text"
    rows = [
        Prediction(
            id=new_id("prediction"),
            request_id=asked.request_id,
            task=asked.task,
            channel=asked.channel.name,
            unit=asked.unit,
            arm=arm,
            release_id=asked.release_id,
            version_id=version.id,
            artifact=answer.digest,
            adapter=None,
            text=(given if isinstance(given, str) else given[0]) if keeps_text else None,
            text_hash=text_hash(given),
            output=result.get("output", {}),
            latency_ms=round(latency_ms, 3),
            error=result["error"]["message"] if "error" in result else None,
            at=now,
            text_pair=given[1] if keeps_text and not isinstance(given, str) else None,
        )
        for given, result in zip(asked.inputs, answer.rows, strict=True)
    ]
    channel_id, config_hash = asked.channel.id, plane.ws.config_hash
    written = plane.writer.submit(
        lambda conn: predictions.add(conn, rows, channel_id=channel_id, config_hash=config_hash), durable=False
    )
    written.add_done_callback(lambda done: _check_written(plane, done))
    for row in rows:
        plane.metrics.predictions.labels(asked.task, arm, "error" if row.error else "answer").inc()
    return rows


def _check_written(plane: ControlPlane, done: "Future[Any]") -> None:
    if error := done.exception():
        plane.metrics.failed_writes.inc()
        _log.error("predictions could not be logged: %s", error)


def _check(plane: ControlPlane, unit: str | None, n_inputs: int) -> None:
    max_rows = plane.ws.settings.serve.max_rows
    if not 1 <= n_inputs <= max_rows:
        raise BadInput(
            f"a request has 1 to {max_rows} inputs", value=n_inputs, next_step="Split it, or raise serve.max_rows"
        )
    if unit is not None and not 1 <= len(unit) <= _MAX_UNIT_CHARS:
        raise BadInput(
            f"a unit has 1 to {_MAX_UNIT_CHARS} characters", value=unit, next_step="Leave it out, or send an id"
        )


def _parsed(plane: ControlPlane, task: str, inputs: Sequence[object]) -> list[Input]:
    settings, fields, max_chars = plane.ws.task(task), plane.task_type(task).fields, plane.ws.settings.data.max_chars
    parsed = parse_inputs(settings, fields, inputs)
    for place, given in enumerate(parsed):
        for part in (given,) if isinstance(given, str) else given:
            if len(part) > max_chars:
                raise BadInput(
                    f"inputs[{place}] has more than {max_chars} characters",
                    value=part,
                    next_step="Shorten it, or raise data.max_chars",
                )
    return parsed
