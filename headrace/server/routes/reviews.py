"""GET /v1/reviews and POST /v1/reviews/{review_id}: the review queue, for pages and tools that people label with."""

import asyncio
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, StrictBool

from headrace.errors import BadInput
from headrace.feedback import reviews
from headrace.server import defaults
from headrace.server.bodies import ERRORS, Closed, Correction, Name
from headrace.server.plane import ControlPlane
from headrace.server.strictness import StrictRoute
from headrace.server.terms import CURRENT

router = APIRouter(route_class=StrictRoute)


class AnswerRequest(Closed):
    """Exactly one of answer and skip."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["answer"], "properties": {"answer": {"not": {"type": "null"}}, "skip": {"const": False}}},
                {"required": ["skip"], "properties": {"answer": {"type": "null"}, "skip": {"const": True}}},
            ]
        }
    )

    answer: Correction = None
    """What the task's type takes for a label: a name, a number, a list of names, spans."""
    skip: StrictBool = False
    """Leave it without an answer."""
    labeller: Name = "anonymous"


class Question(BaseModel):
    """What is asked; neither why, nor what the model said."""

    id: str
    task: str
    channel: str
    text: str
    text_pair: str | None


class Questions(BaseModel):
    reviews: list[Question]


class Taken(BaseModel):
    id: str
    state: str
    """answered or skipped."""
    answer: Any
    """As the task's type reads it."""


@router.get("/v1/reviews", response_model=Questions, responses={404: ERRORS[404], 422: ERRORS[422]})
async def next_reviews(
    request: Request,
    task: Annotated[Name | None, Query()] = None,
    labeller: Annotated[Name, Query()] = "anonymous",
    channel: Annotated[Name | None, Query()] = None,
    n: Annotated[int, Query(ge=1, le=100)] = 1,
) -> JSONResponse:
    """What a labeller is to answer next; the same until it is answered."""
    plane: ControlPlane = request.app.state.plane
    name = task or defaults.task_of(plane)
    if CURRENT.get().caller.channels is not None:
        channel = await defaults.channel_of(plane, channel, "name one of the key's")
    if channel is not None:
        await plane.channel(channel)
    asked = partial(reviews.next_of, plane.ws, name, labeller=labeller, channel=channel, n=n)
    return JSONResponse({"reviews": [reviews.shown(one) for one in await asyncio.to_thread(asked)]})


@router.post("/v1/reviews/{review_id}", response_model=Taken, responses=ERRORS)
async def answer_review(review_id: str, body: AnswerRequest, request: Request) -> JSONResponse:
    """Answer a review, or skip it. The same answer again changes nothing."""
    if (body.answer is None) != body.skip:
        raise BadInput("exactly one of answer and skip", next_step="Send an answer, or skip as true")
    ws, caller = request.app.state.plane.ws, CURRENT.get().caller
    channels, key_id = caller.channels, caller.source
    if body.skip:
        settle = partial(reviews.skip, ws, review_id, body.labeller, channels=channels, key_id=key_id)
    else:
        settle = partial(reviews.answer, ws, review_id, body.answer, body.labeller, channels=channels, key_id=key_id)
    taken = await asyncio.to_thread(settle)
    return JSONResponse({"id": taken.id, "state": taken.state, "answer": taken.answer})
