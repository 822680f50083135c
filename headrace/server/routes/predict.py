"""POST /v1/predict."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from headrace.server import answering
from headrace.server.bodies import ERRORS, PredictAnswer, PredictRequest
from headrace.server.plane import ControlPlane
from headrace.server.strictness import StrictRoute

PATH = "/v1/predict"

router = APIRouter(route_class=StrictRoute)


@router.post(PATH, response_model=PredictAnswer, responses=ERRORS)
async def predict(body: PredictRequest, request: Request) -> JSONResponse:
    """Answer inputs with the model that is in charge of the task."""
    return JSONResponse(await answered(request.app.state.plane, body))


async def answered(plane: ControlPlane, asked: PredictRequest) -> dict[str, Any]:
    """The body of the answer."""
    inputs = [row.model_dump(exclude_none=True) for row in asked.inputs]
    return await answering.predict(plane, task=asked.task, channel=asked.channel, unit=asked.unit, inputs=inputs)
