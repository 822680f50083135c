"""GET /v1/usage."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request

from headrace.access import usage as stage
from headrace.server.bodies import ERRORS
from headrace.server.plane import ControlPlane

router = APIRouter()


@router.get("/v1/usage", responses={422: ERRORS[422]})
async def usage(
    request: Request,
    month: Annotated[str | None, Query(pattern=r"^[1-9][0-9]{3}-(0[1-9]|1[0-2])$")] = None,
    by: Annotated[list[Literal["key", "channel", "task"]] | None, Query()] = None,
) -> dict[str, Any]:
    """What was asked of all servers of the workspace, by key, channel and task in each month (UTC), and the total."""
    plane: ControlPlane = request.app.state.plane
    return stage.as_json(await asyncio.to_thread(stage.usage, plane.ws, by=by or stage.BY, month=month))
