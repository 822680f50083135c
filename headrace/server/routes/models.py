"""GET /v1/models."""

from typing import Any

from fastapi import APIRouter, Request

from headrace.server.terms import CURRENT

router = APIRouter()


@router.get("/v1/models")
async def models(request: Request) -> dict[str, list[dict[str, Any]]]:
    """What serves now: a line per task and arm."""
    channels = CURRENT.get().caller.channels
    lines = request.app.state.plane.serving_models()
    return {"models": [line for line in lines if channels is None or line["channel"] in (None, *channels)]}
