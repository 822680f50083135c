"""GET /v1/models."""

from typing import Any

from fastapi import APIRouter, Request

router = APIRouter()


@router.get("/v1/models")
async def models(request: Request) -> dict[str, list[dict[str, Any]]]:
    """What serves now: a line per task and arm."""
    return {"models": request.app.state.plane.serving_models()}
