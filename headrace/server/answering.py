"""Answer a request: ask the control, log it, and let the candidate of an open release answer the same in its shadow."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headrace.errors import BadInput, Cancelled, HeadraceError, TooLate, TooMany, Unavailable
from headrace.ids import new_id
from headrace.records import Channel, Input, ModelVersion
from headrace.release.releases import Serving
from headrace.serve.pool import Answer
from headrace.server.plane import ControlPlane
from headrace.server.terms import CURRENT
from headrace.tasks.inputs import parse_inputs

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
        Unavailable: the workers are restarting or full.
        TooMany: the channel has more than its share of the queue while others wait.
        TooLate: no answer in the time that the request allows.
        Cancelled: the client went away.
        HeadraceError: the model failed on every input.
    """
    started_at = time.monotonic()
    _check(plane, unit, len(inputs))
    found = await plane.channel(channel)
    serving = plane.lineup.of(task)
    asked = _Asked(new_id("request"), task, found, unit, _parsed(plane, task, inputs), serving, started_at)
    answer = await _ask_in_time(plane, asked)
    ids, is_logged = _log_rows(plane, asked, serving.control, "control", answer)
    if serving.candidate is not None and is_logged:  # half a pair is no evidence
        plane.in_background(_shadow(plane, asked, serving.candidate))
    if all("error" in row for row in answer.rows):
        first = answer.rows[0]["error"]
        raise HeadraceError(first["message"], value=first["value"], next_step=first["next_step"])
    return {
        "predictions": [
            {"id": row_id, **result.get("output", {}), **({"error": result["error"]} if "error" in result else {})}
            for row_id, result in zip(ids, answer.rows, strict=True)
        ],
        "model_version": serving.control.name,
        "arm": "control",
        "adapter": answer.adapter,
        "artifact": answer.digest,
    }


async def _shadow(plane: ControlPlane, asked: _Asked, candidate: ModelVersion) -> None:
    """Ask the candidate too, and log what it said or why it said nothing. Never fails."""
    try:
        adapter = plane.lineup.adapter(candidate, asked.channel.name)
        future = plane.pool.predict(candidate.artifact, asked.inputs, adapter=adapter, background=True)
        answer = await asyncio.wrap_future(future)
    except HeadraceError as error:
        rows = [{"error": error.envelope()["error"]} for _ in asked.inputs]
        answer = Answer(candidate.artifact, rows)
    _log_rows(plane, asked, candidate, "shadow", answer)


async def _ask_in_time(plane: ControlPlane, asked: _Asked) -> Answer:
    """Ask the control until the request's deadline and as long as its client is there; count what came of it."""
    terms, metrics, channel, control = CURRENT.get(), plane.metrics, asked.channel.name, asked.serving.control
    result = "error"
    try:
        if terms.time_left_s <= 0:
            raise TooLate("no time was left to answer in", next_step="Allow more time")
        future = plane.pool.predict(
            control.artifact,
            asked.inputs,
            channel=channel,
            adapter=plane.lineup.adapter(control, channel),
            timeout_s=terms.time_left_s,
        )
        answering = asyncio.wrap_future(future)
        terms.when_gone(answering.cancel)
        answer = await answering
        result = "answer"
    except (Unavailable, TooMany) as error:
        result = "shed"
        metrics.sheds.labels(error.code).inc()
        raise
    except TooLate:
        result = "late"
        metrics.late.inc()
        raise
    except asyncio.CancelledError:
        if not answering.cancelled():
            raise
        result = "abandoned"
        metrics.abandoned.inc()
        raise Cancelled("the client went away", next_step="Stay until the answer comes") from None
    finally:
        metrics.note_rows(channel, result, len(asked.inputs))
    metrics.note_stage("queue", answer.queue_s)
    return answer


def _log_rows(
    plane: ControlPlane, asked: _Asked, version: ModelVersion, arm: str, answer: Answer
) -> tuple[list[str], bool]:
    """Queue the prediction log of one arm: the rows' ids, and whether there was room."""
    n_failed = sum("error" in row for row in answer.rows)
    for result, n_rows in (("error", n_failed), ("answer", len(answer.rows) - n_failed)):
        if n_rows:
            plane.metrics.predictions.labels(asked.task, arm, result).inc(n_rows)
    return plane.log.add(
        request_id=asked.request_id,
        task=asked.task,
        channel=asked.channel,
        unit=asked.unit,
        version=version,
        arm=arm,
        release_id=asked.release_id,
        inputs=asked.inputs,
        answer=answer,
        latency_ms=(time.monotonic() - asked.started_at) * 1000,
    )


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
