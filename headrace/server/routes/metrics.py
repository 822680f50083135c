"""GET /metrics, for Prometheus."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from headrace.server.metrics import CONTENT_TYPE

router = APIRouter()


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Counters and gauges of this server."""
    return Response(request.app.state.plane.metrics.text(), media_type=CONTENT_TYPE)
