"""Answer a request: draw who is to answer, ask, log what was said, and count what guardrails look at.

A candidate never fails a client: what it does not answer, or not in its time, the control answers, and it is counted as
the candidate's failure. In a shadow release the control answers, and the candidate the same behind it.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from headrace.errors import BadInput, Cancelled, HeadraceError, TooLate, TooMany, Unavailable
from headrace.ids import new_id
from headrace.personal import mapping
from headrace.personal.mapping import Kept
from headrace.records import Channel, Input
from headrace.serve.pool import Answer
from headrace.serve.process import unavailable
from headrace.server import error_forms
from headrace.server.coarse import coarse
from headrace.server.lineup import SHADOW, Drawn
from headrace.server.plane import ControlPlane
from headrace.server.terms import CURRENT
from headrace.server.traffic import Seen, abstains
from headrace.tasks.inputs import parse_inputs, text_hash

_log = logging.getLogger("headrace.server")

_MAX_UNIT_CHARS = 200  # width of the column
POINTING = ("token_classification", "question_answering")  # problems whose answers say where in the input
_CANDIDATE_SHARE = 0.5  # of the time left: the rest is for the control, should the candidate take too long


@dataclass(frozen=True)
class _Asked:
    """A request that was found sound."""

    request_id: str
    task: str
    channel: Channel
    unit: str | None
    inputs: list[Input]
    drawn: Drawn
    started_at: float
    """On the monotonic clock."""
    is_audited: bool
    """Whether answers may be drawn for audits."""
    kept: Sequence[Kept] = ()
    """What stands for what is personal, where that is kept."""


async def predict(
    plane: ControlPlane,
    *,
    task: str,
    channel: str,
    unit: str | None,
    inputs: Sequence[object],
    in_charge_only: bool = False,
    is_audited: bool = True,
) -> dict[str, Any]:
    """The answer of the arm that the unit meets, in the shape of POST /v1/predict; rows in the order of `inputs`.

    Args:
        in_charge_only: the client asked for the version in charge by its number; no release is about the request.
        is_audited: whether it is one of the requests that live accuracy is about.

    Raises:
        BadInput: too many inputs, or one that is empty, too long or not of the task's shape.
        NotFound: no such task or channel.
        Unavailable: the workers are restarting or full.
        TooMany: the channel has more than its share of the queue while others wait; or it, or the key, was asked for
            too much.
        TooLate: no answer in the time that the request allows.
        Cancelled: the client went away.
        HeadraceError: the model failed on every input.
    """
    started_at, caller = time.monotonic(), CURRENT.get().caller
    _check(plane, unit, len(inputs))
    found = await plane.channel(channel)
    request_id, parsed, kept = new_id("request"), _parsed(plane, task, inputs), list[Kept]()
    if is_looked_at := plane.door.policy(channel) != "off":
        clean = partial(_cleaned, plane, found, unit, parsed)
        unit, parsed, kept = await asyncio.to_thread(clean) if plane.door.takes_long(parsed) else clean()
    drawn = plane.lineup.draw(task, channel, unit or request_id, in_charge_only=in_charge_only or caller.is_test)
    asked = _Asked(request_id, task, found, unit, parsed, drawn, started_at, is_audited and not caller.is_test, kept)
    drawn, answer = await _answered(plane, asked)
    ids, is_logged = _log_rows(plane, asked, drawn, answer)
    if drawn.shadow is not None and is_logged:  # half a pair is no evidence
        plane.in_background(_shadow(plane, asked, drawn.shadow))
    if all("error" in row for row in answer.rows):
        first = error_forms.of_input(answer.rows[0]["error"], ids[0])
        raise HeadraceError(first["message"], value=first["value"], next_step=first["next_step"])
    says_input = is_looked_at and plane.task_type(task).problem in POINTING
    shown = dict if "scores" in caller.scopes else coarse
    return {
        "predictions": [
            {
                "id": row_id,
                **shown(result.get("output", {})),
                **({"input": kept} if says_input else {}),
                **({"error": error_forms.of_input(result["error"], row_id)} if "error" in result else {}),
            }
            for row_id, result, kept in zip(ids, answer.rows, parsed, strict=True)
        ],
        "model_version": drawn.version.name,
        "arm": drawn.arm,
        "probability": drawn.probability,
        "adapter": answer.adapter,
        "artifact": answer.digest,
    }


async def _answered(plane: ControlPlane, asked: _Asked) -> tuple[Drawn, Answer]:
    """Who answered in the end, and what: within limits, and as usage.

    Raises:
        HeadraceError: see `predict`.
    """
    drawn, answer = asked.drawn, None
    admitted = plane.metering.admit_rows(CURRENT.get().caller.key_id, asked.channel, asked.task, len(asked.inputs))
    try:
        if asked.kept:
            plane.log.keep(asked.channel, asked.kept)
        if drawn.is_candidate:
            answer = await _by_candidate(plane, asked, drawn)
        if answer is None:
            drawn = drawn.without_candidate()
            answer = await _by_control(plane, asked, drawn)
    finally:
        admitted.settle(answer)
    return drawn, answer


async def _shadow(plane: ControlPlane, asked: _Asked, shadow: Drawn) -> None:
    """Ask the candidate too, and log what it said or why it said nothing. Never fails.

    That it waits while others are answered says nothing about it, so no time of it is counted.
    """
    answer, seen = await _ask(plane, asked, shadow, plane.ws.settings.serve.timeout_s)
    if not seen.late:
        _count(plane, asked, shadow, replace(seen, seconds=None))
    _log_rows(plane, asked, shadow, answer)


async def _by_candidate(plane: ControlPlane, asked: _Asked, drawn: Drawn) -> Answer | None:
    """What the candidate says to all inputs; None where it does not, or not in its time, which is logged and counted.

    Raises:
        Cancelled: the client went away.
    """
    allowed_s = min(CURRENT.get().time_left_s * _CANDIDATE_SHARE, plane.ws.settings.release.candidate_timeout_s)
    answer, seen = await _ask(plane, asked, drawn, max(allowed_s, 0.001))
    _count(plane, asked, drawn, seen)
    if isinstance(answer, Cancelled):
        plane.metrics.note_rows(asked.channel.name, "abandoned", len(asked.inputs))
        plane.metrics.abandoned.inc()
        raise answer
    if isinstance(answer, HeadraceError) or seen.failed:
        _log_rows(plane, asked, drawn, answer)
        return None
    plane.metrics.note_rows(asked.channel.name, "answer", len(asked.inputs))
    return answer


async def _by_control(plane: ControlPlane, asked: _Asked, drawn: Drawn) -> Answer:
    """Ask the control until the request's deadline and as long as its client is there; count what came of it."""
    time_left_s, metrics = CURRENT.get().time_left_s, plane.metrics
    if time_left_s > 0:
        answer, seen = await _ask(plane, asked, drawn, time_left_s)
    else:
        answer, seen = TooLate("no time was left to answer in", next_step="Allow more time"), Seen(late=True)
    _count(plane, asked, drawn, seen)
    metrics.note_rows(asked.channel.name, _result_of(answer), len(asked.inputs))
    match answer:
        case Answer():
            metrics.note_stage("queue", answer.queue_s)
            return answer
        case Unavailable() | TooMany():
            metrics.sheds.labels(answer.code).inc()
        case TooLate():
            metrics.late.inc()
        case Cancelled():
            metrics.abandoned.inc()
    raise answer


def _result_of(answer: Answer | HeadraceError) -> str:
    match answer:
        case Answer():
            return "answer"
        case Unavailable() | TooMany():
            return "shed"
        case TooLate():
            return "late"
        case Cancelled():
            return "abandoned"
    return "error"


async def _ask(
    plane: ControlPlane, asked: _Asked, drawn: Drawn, timeout_s: float
) -> tuple[Answer | HeadraceError, Seen]:
    """What an arm says, or why it says nothing, and how that counts: no room or no time is no failure."""
    channel, sent_at = asked.channel.name, time.monotonic()
    adapter = plane.lineup.adapter(drawn.version, channel)
    try:
        pool = plane.lineup.pool_of(drawn)
        if not pool.is_loaded(drawn.version.artifact, adapter):
            return unavailable("the worker is starting or has not loaded this model"), Seen(failed=True)
        future = pool.predict(
            drawn.version.artifact,
            asked.inputs,
            channel=channel,
            adapter=adapter,
            timeout_s=timeout_s,
            background=drawn.arm == SHADOW,
        )
    except HeadraceError as error:
        return error, Seen(late=True)
    answering = plane.handover.awaited(future)
    if drawn.arm != SHADOW:
        CURRENT.get().when_gone(answering.cancel)
    try:
        answer = await answering
    except asyncio.CancelledError:
        if not answering.cancelled():
            raise
        return Cancelled("the client went away", next_step="Stay until the answer comes"), Seen(late=True)
    except TooLate as error:
        return error, Seen(late=True)
    except HeadraceError as error:
        return error, Seen(failed=True)
    return answer, _seen(plane, asked, answer, time.monotonic() - sent_at - answer.queue_s)


def _seen(plane: ControlPlane, asked: _Asked, answer: Answer, seconds: float) -> Seen:
    """What guardrails want to know of an answer; nothing where no release is about the request."""
    if not asked.drawn.is_tried:
        return Seen()
    outputs = [row["output"] for row in answer.rows if "output" in row]
    answer_of = plane.task_type(asked.task).answer_of
    has_failed = len(outputs) < len(answer.rows)
    return Seen(seconds, failed=has_failed, abstained=abstains([answer_of(output) for output in outputs]))


def _count(plane: ControlPlane, asked: _Asked, drawn: Drawn, seen: Seen) -> None:
    if drawn.is_tried:
        plane.watch.note(drawn, asked.channel.id, asked.unit, seen)


def _log_rows(
    plane: ControlPlane, asked: _Asked, drawn: Drawn, answer: Answer | HeadraceError
) -> tuple[list[str], bool]:
    """Queue the prediction log of one arm: the rows' ids, and whether there was room."""
    if isinstance(answer, HeadraceError):
        answer = Answer(drawn.version.artifact, [{"error": answer.envelope()["error"]} for _ in asked.inputs])
    n_failed = sum("error" in row for row in answer.rows)
    for result, n_rows in (("error", n_failed), ("answer", len(answer.rows) - n_failed)):
        if n_rows:
            plane.metrics.predictions.labels(asked.task, drawn.arm, result).inc(n_rows)
    return plane.log.add(
        request_id=asked.request_id,
        task=asked.task,
        channel=asked.channel,
        unit=asked.unit,
        version=drawn.version,
        arm=drawn.arm,
        probability=drawn.probability,
        release_id=drawn.release_id,
        inputs=asked.inputs,
        answer=answer,
        latency_ms=(time.monotonic() - asked.started_at) * 1000,
        is_audited=asked.is_audited and drawn.arm != SHADOW,
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


def _cleaned(
    plane: ControlPlane, channel: Channel, unit: str | None, inputs: Sequence[Input]
) -> tuple[str | None, list[Input], list[Kept]]:
    """The unit and the inputs without what is personal in them, and what stands for it where that is kept.

    Raises:
        BadInput: the channel takes no personal data; the message names the place.
    """
    door, cleaned, kept = plane.door, list[Input](), list[Kept]()
    named = None if unit is None else door.name(channel.name, unit)
    for place, given in enumerate(inputs):
        try:
            said, became = door.input(channel.name, given)
        except BadInput as error:
            raise BadInput(f"inputs[{place}]: {error.problem}", value=error.value, next_step=error.next_step) from None
        cleaned.append(said)
        if said != given and door.keeps(channel.name):
            kept += mapping.kept_of(named or text_hash(said), became)
    return named, cleaned, kept


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
