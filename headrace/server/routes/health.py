"""GET /v2/health/live and /v2/health/ready, as the Open Inference Protocol names them, and GET /health, as TEI does."""

from fastapi import APIRouter, Request

from headrace.errors import Unavailable
from headrace.server.bodies import ERRORS
from headrace.server.plane import ControlPlane

router = APIRouter()


@router.get("/v2/health/live")
async def live() -> dict[str, bool]:
    """The process runs."""
    return {"live": True}


@router.get("/v2/health/ready", responses={503: ERRORS[503]})
@router.get("/health", responses={503: ERRORS[503]})
async def ready(request: Request) -> dict[str, bool]:
    """A model is loaded and the server is not draining; with `serve.ready_needs_disk`, what is said can be kept."""
    plane: ControlPlane = request.app.state.plane
    if not plane.is_ready:
        raise Unavailable("not ready: loading, restarting or draining", next_step="Ask again in 1 s")
    if plane.ws.settings.serve.ready_needs_disk and not await request.app.state.disk.takes_writes():
        raise Unavailable("not ready: the disk cannot be written", next_step="Check its room and its rights")
    return {"ready": True}
