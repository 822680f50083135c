"""Receive feedback: through the queue that wrote its prediction, acknowledged when it is on disk."""

import asyncio

from headrace.errors import Unavailable
from headrace.feedback import intake
from headrace.feedback.intake import Given
from headrace.records import Feedback
from headrace.server.plane import ControlPlane


async def receive(plane: ControlPlane, given: Given) -> Feedback:
    """Write feedback durably.

    Raises:
        NotFound, BadInput, AlreadyExists: see `headrace.feedback.intake.give`.
        Unavailable: the write queue is full or the disk is slow.
    """
    written = plane.log.writer.submit(lambda conn: intake.receive(plane.ws, conn, given), durable=True)
    timeout_s = plane.ws.settings.serve.timeout_s
    try:
        feedback: Feedback = await asyncio.wait_for(asyncio.wrap_future(written), timeout_s)
    except TimeoutError:
        raise Unavailable(
            "the feedback was not written in time",
            value=f"{timeout_s} s",
            next_step="Send it again with the same Idempotency-Key",
        ) from None
    plane.metrics.feedback.labels(feedback.kind).inc()
    return feedback
