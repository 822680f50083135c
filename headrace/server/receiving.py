"""Receive feedback: through the queue that wrote its prediction, acknowledged when it is on disk."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from headrace.errors import HeadraceError, Unavailable
from headrace.feedback import intake
from headrace.feedback.intake import Given
from headrace.records import Feedback
from headrace.server.plane import ControlPlane
from headrace.server.terms import CURRENT


async def receive(plane: ControlPlane, given: Given) -> Feedback:
    """Write feedback durably.

    Raises:
        NotFound, WrongState, BadInput, AlreadyExists: see `headrace.feedback.intake.give`.
        Unavailable: the write queue is full or the disk is slow.
    """
    timeout_s, caller = plane.ws.settings.serve.timeout_s, CURRENT.get().caller
    given = replace(given, channels=caller.channels, key_id=caller.source)
    try:
        feedback: Feedback = await asyncio.wait_for(plane.handover.awaited(plane.log.add_feedback(given)), timeout_s)
    except TimeoutError:
        raise Unavailable(
            "the feedback was not written in time",
            value=f"{timeout_s} s",
            next_step="Send it again with the same idempotency key",
        ) from None
    plane.metrics.feedback.labels(feedback.kind).inc()
    return feedback


async def receive_all(plane: ControlPlane, several: Sequence[Given | HeadraceError]) -> list[dict[str, Any]]:
    """Write several durably; of each, in order, `{"id"}` or the envelope of its error. Errors among them stay."""
    givens = [one for one in several if isinstance(one, Given)]
    taken = iter(await asyncio.gather(*(_received(plane, given) for given in givens)))
    return [_shown(plane, next(taken) if isinstance(one, Given) else one) for one in several]


def parsed(said: object) -> Given | HeadraceError:
    """Feedback that JSON holds, or why it is none."""
    try:
        return intake.parse(said)
    except HeadraceError as error:
        return error


async def _received(plane: ControlPlane, given: Given) -> Feedback | HeadraceError:
    try:
        return await receive(plane, given)
    except HeadraceError as error:
        return error


def _shown(plane: ControlPlane, taken: Feedback | HeadraceError) -> dict[str, Any]:
    return plane.door.error(taken).envelope() if isinstance(taken, HeadraceError) else {"id": taken.id}
