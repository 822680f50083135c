"""The four endpoints of a Label Studio ML backend, below /label-studio, or /label-studio/CHANNEL.

Shapes of requests and answers: github.com/HumanSignal/label-studio, label_studio/ml/api_connector.py and
label_studio/webhooks. Requests are not closed: every version of Label Studio adds fields, such as a token to its API,
which is not read.
"""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from headrace.server import label_studio
from headrace.server.bodies import ERRORS, Text
from headrace.server.strictness import StrictRoute

PREFIX = "/label-studio"

router = APIRouter(route_class=StrictRoute)


class SetupRequest(BaseModel):
    schema_: Text = Field(alias="schema")
    """The project's labelling config."""


class TasksRequest(BaseModel):
    tasks: list[dict[str, Any]]
    label_config: Text


class Told(BaseModel):
    """What happened, with the annotations, tasks and the project that it is about."""

    action: str
    annotation: Any = None
    task: Any = None
    project: Any = None


class Version(BaseModel):
    model_version: str


class Prelabels(BaseModel):
    results: list[dict[str, Any]]
    """Of each task: `result`, and with it `score` and `model_version`."""


class Annotated(BaseModel):
    status: str
    """ok, or ignored for what is no annotation made or changed."""
    n_taken: int
    """Annotations that said something new."""
    refused: list[str]
    """Why others were not taken."""


@router.get(f"{PREFIX}/health")
@router.get(f"{PREFIX}/{{channel}}/health", responses={404: ERRORS[404]})
async def health(request: Request, channel: str | None = None) -> dict[str, str]:
    """That the server is there."""
    if channel is not None:
        await request.app.state.plane.channel(channel)
    return {"status": "UP", "model_class": "headrace"}


@router.post(f"{PREFIX}/setup", response_model=Version, responses=ERRORS)
@router.post(f"{PREFIX}/{{channel}}/setup", response_model=Version, responses=ERRORS)
async def setup(body: SetupRequest, request: Request, channel: str | None = None) -> JSONResponse:
    """Connect a project: its labelling config must have a control for the task."""
    plane = request.app.state.plane
    if channel is not None:
        await plane.channel(channel)
    return JSONResponse(await label_studio.setup(plane, body.schema_))


@router.post(f"{PREFIX}/predict", response_model=Prelabels, responses=ERRORS)
@router.post(f"{PREFIX}/{{channel}}/predict", response_model=Prelabels, responses=ERRORS)
async def predict(body: TasksRequest, request: Request, channel: str | None = None) -> JSONResponse:
    """Pre-labels of tasks."""
    found = await label_studio.predict(request.app.state.plane, channel, body.tasks, body.label_config)
    return JSONResponse({"results": found})


@router.post(f"{PREFIX}/webhook", response_model=Annotated, responses=ERRORS)
@router.post(f"{PREFIX}/{{channel}}/webhook", response_model=Annotated, responses=ERRORS)
async def webhook(body: Told, request: Request, channel: str | None = None) -> JSONResponse:
    """Be told of annotations: they answer reviews, correct predictions and label examples."""
    return JSONResponse(await label_studio.annotated(request.app.state.plane, channel, dict(body)))
