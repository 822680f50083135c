"""GET /v1/releases/{task}."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from headrace.releasing.standing import release_status
from headrace.server.bodies import ERRORS

router = APIRouter()


@router.get("/v1/releases/{task}", responses={404: ERRORS[404]})
async def releases(task: str, request: Request) -> dict[str, Any]:
    """Who answers for a task, who is tried, how that stands in each channel, and what it waits for."""
    return await asyncio.to_thread(release_status, request.app.state.plane.ws, task=task)
