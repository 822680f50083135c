"""POST /v1/feedback."""

from typing import Annotated

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse

from headrace.feedback.intake import Given
from headrace.server import receiving
from headrace.server.bodies import ERRORS, FeedbackAnswer, FeedbackRequest, Name
from headrace.server.strictness import StrictRoute

router = APIRouter(route_class=StrictRoute)


@router.post("/v1/feedback", response_model=FeedbackAnswer, responses=ERRORS)
async def feedback(
    body: FeedbackRequest, request: Request, idempotency_key: Annotated[Name | None, Header()] = None
) -> JSONResponse:
    """Say what came of a prediction. With an Idempotency-Key the same feedback is taken once, however often sent."""
    given = Given(**dict(body), idempotency_key=idempotency_key)
    taken = await receiving.receive(request.app.state.plane, given)
    return JSONResponse({"id": taken.id})
