"""POST /v1/feedback, one by one, and many: /v1/feedback/batch as one JSON body, /v1/feedback/stream as JSON lines."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Header, HTTPException, Request
from fastapi.responses import JSONResponse, Response

from headrace.errors import BadInput
from headrace.feedback.intake import Given
from headrace.server import lines, receiving
from headrace.server.bodies import ERRORS, BatchAnswer, BatchRequest, FeedbackAnswer, FeedbackRequest, Name
from headrace.server.plane import ControlPlane
from headrace.server.strictness import StrictRoute

PATH = "/v1/feedback"
MAX_BATCH = 1000

router = APIRouter(route_class=StrictRoute)

_LINES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A feedback in each line, as in a batch",
        "content": {lines.CONTENT_TYPE: {"schema": {"type": "string"}}},
    }
}
_ANSWERED: dict[int | str, dict[str, Any]] = {
    200: {"description": "A line for each, in order", "content": {lines.CONTENT_TYPE: {"schema": {"type": "string"}}}}
}


@router.post(PATH, response_model=FeedbackAnswer, responses=ERRORS)
async def feedback(
    body: FeedbackRequest, request: Request, idempotency_key: Annotated[Name | None, Header()] = None
) -> JSONResponse:
    """Say what came of a prediction. With an Idempotency-Key the same feedback is taken once, however often sent."""
    return JSONResponse(await taken(request.app.state.plane, Given(**dict(body), idempotency_key=idempotency_key)))


async def taken(plane: ControlPlane, given: Given) -> dict[str, Any]:
    """The body of the answer."""
    return {"id": (await receiving.receive(plane, given)).id}


@router.post(f"{PATH}/batch", response_model=BatchAnswer, responses=ERRORS)
async def batch(body: BatchRequest, request: Request) -> Response:
    """Say what came of many predictions; of each, in order, its id or why it was not taken."""
    if len(body.feedbacks) > MAX_BATCH:
        raise BadInput(
            f"a batch has at most {MAX_BATCH} feedbacks",
            value=len(body.feedbacks),
            next_step="Send several, or JSON lines to /v1/feedback/stream",
        )
    several = [receiving.parsed(one) for one in body.feedbacks]
    results = await receiving.receive_all(request.app.state.plane, several)
    answer = json.dumps({"results": results})  # in ASCII: the value of an error may hold half a surrogate pair
    return Response(answer, media_type="application/json")


@router.post(f"{PATH}/stream", response_class=Response, responses=ERRORS | _ANSWERED, openapi_extra=_LINES)
async def stream(request: Request) -> Response:
    """Say what came of many predictions, one a line; each is answered by a line, in order, while more may come."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in lines.CONTENT_TYPES:
        raise HTTPException(415, f"a stream of feedback is {lines.CONTENT_TYPE}, not {content_type or 'of no type'}")
    return lines.Answers(request.app.state.plane)
