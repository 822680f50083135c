"""GET /v2/health/live and /v2/health/ready, as the Open Inference Protocol names them."""

from fastapi import APIRouter, Request

from headrace.errors import Unavailable
from headrace.server.bodies import ERRORS

router = APIRouter(prefix="/v2/health")


@router.get("/live")
async def live() -> dict[str, bool]:
    """The process runs."""
    return {"live": True}


@router.get("/ready", responses={503: ERRORS[503]})
async def ready(request: Request) -> dict[str, bool]:
    """A model is loaded and the server is not draining."""
    if not request.app.state.plane.is_ready:
        raise Unavailable("not ready: loading, restarting or draining", next_step="Ask again in 1 s")
    return {"ready": True}
