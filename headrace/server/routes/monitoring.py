"""GET /v1/accuracy and GET /v1/drift."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from headrace.feedback import drift as streams
from headrace.feedback.accuracy import Live, live
from headrace.server import defaults
from headrace.server.bodies import ERRORS, Name
from headrace.server.plane import ControlPlane
from headrace.server.terms import CURRENT

router = APIRouter()
Task = Annotated[Name | None, Query(description="Needed only where there are several.")]
_RESPONSES: dict[int | str, dict[str, Any]] = {status: ERRORS[status] for status in (404, 422)}


@router.get("/v1/accuracy", responses=_RESPONSES)
async def accuracy(request: Request, task: Task = None, channel: Name | None = None) -> Live:
    """How often live answers are right, by audits, in each channel and in all."""
    plane: ControlPlane = request.app.state.plane
    if CURRENT.get().caller.channels is not None:
        channel = (await plane.channel(await defaults.channel_of(plane, channel, "name one of the key's"))).name
    return await asyncio.to_thread(live, plane.ws, task, channel=channel)


@router.get("/v1/drift", responses=_RESPONSES)
async def drift(request: Request, task: Task = None) -> dict[str, Any]:
    """What is watched for changes, the open alarms and the latest ended ones, as of the last look."""
    return await asyncio.to_thread(streams.standing, request.app.state.plane.ws, task)
