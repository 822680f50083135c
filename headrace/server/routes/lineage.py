"""GET /v1/lineage/{id}."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request

from headrace.lineage.tracing import Trace, trace
from headrace.server.bodies import ERRORS

router = APIRouter()
_RESPONSES: dict[int | str, dict[str, Any]] = {404: ERRORS[404]}


@router.get("/v1/lineage/{row_id}", responses=_RESPONSES)
async def lineage(row_id: str, request: Request) -> Trace:
    """Where a row came from, and every snapshot, run, version, adapter and release that used it."""
    return await asyncio.to_thread(trace, request.app.state.plane.ws, row_id)
