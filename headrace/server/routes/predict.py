"""POST /v1/predict."""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from headrace.server import answering
from headrace.server.bodies import ERRORS, PredictAnswer, PredictRequest
from headrace.server.strictness import StrictRoute

router = APIRouter(route_class=StrictRoute)


@router.post("/v1/predict", response_model=PredictAnswer, responses=ERRORS)
async def predict(body: PredictRequest, request: Request) -> JSONResponse:
    """Answer inputs with the model that is in charge of the task."""
    answer = await answering.predict(
        request.app.state.plane,
        task=body.task,
        channel=body.channel,
        unit=body.unit,
        inputs=[row.model_dump(exclude_none=True) for row in body.inputs],
    )
    return JSONResponse(answer)
