"""The bodies of requests and answers. Requests are closed: an unknown field is an error, not a silent nothing."""

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, WithJsonSchema

from headrace.feedback.intake import EVENTS

_MAX_DEPTH = 8  # of a correction


def storable(text: str) -> str:
    """`text`, if the store can hold it; else a ValueError, which pydantic makes an error of the field."""
    try:
        text.encode()
    except UnicodeEncodeError:
        is_whole = False
    else:
        is_whole = "\0" not in text
    if not is_whole:
        raise ValueError("a NUL or half a surrogate pair cannot be stored")
    return text


def _as_told(max_chars: int) -> WithJsonSchema:
    """What the schema tells clients; that it holds is checked where the value is used, in words of that place."""
    some = "^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$"
    return WithJsonSchema({"type": "string", "pattern": some, "minLength": 1, "maxLength": max_chars})


Text = Annotated[str, AfterValidator(storable), WithJsonSchema({"type": "string", "pattern": "^[^\\u0000]*$"})]
Name = Annotated[str, AfterValidator(storable), _as_told(200)]
Comment = Annotated[str, AfterValidator(storable), _as_told(20_000)]
Metric = Annotated[str, AfterValidator(storable), _as_told(64)]
Event = Annotated[str, AfterValidator(storable), WithJsonSchema({"type": "string", "enum": list(EVENTS)})]
Number = Annotated[float, Strict()]
Truth = Annotated[bool, Strict()]


def _storable_value(value: Any, depth: int = 0) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError(f"lists and objects within each other more than {_MAX_DEPTH} deep")
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number must be finite")
    for part in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ():
        _storable_value(part, depth + 1)
    return value


Correction = Annotated[Any, AfterValidator(_storable_value)]


class Closed(BaseModel):
    """Frozen, and closed to unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Turn(Closed):
    role: Text
    text: Text


class Input(Closed):
    """The parts that the task's type reads: `text`, `text` and `text_pair`, `question` and `context`, or `turns`."""

    text: Text | None = None
    text_pair: Text | None = None
    question: Text | None = None
    context: Text | None = None
    turns: list[Turn] | None = Field(None, fail_fast=True)


class PredictRequest(Closed):
    task: Name
    channel: Name
    unit: Name | None = None
    """What is randomised over: a user, a session. The same unit gets the same arm."""
    inputs: list[Input] = Field(fail_fast=True, json_schema_extra={"minItems": 1})


def _said(*fields: str) -> dict[str, Any]:
    """The schema of feedback that has these fields and none of the others."""
    others = {"correction", "metric", "value", "comment", "event"} - {*fields}
    given: dict[str, Any] = {name: {"not": {"type": "null"}} for name in fields}
    return {"required": list(fields), "properties": given | {name: {"type": "null"} for name in sorted(others)}}


class FeedbackRequest(Closed):
    """Exactly one of correction, metric with value, comment, event."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [_said("correction"), _said("metric", "value"), _said("comment"), _said("event")]}
    )

    prediction_id: Name
    correction: Correction = None
    """What the task's type takes for a label: a name, a number, a list of names, spans."""
    metric: Metric | None = None
    """One that headrace.toml declares."""
    value: Truth | Number | None = None
    comment: Comment | None = None
    event: Event | None = None
    channel: Name | None = None
    """Who says it; a prediction of another channel is none for it."""
    labeller: Name = "anonymous"


class BatchItem(FeedbackRequest):
    """One feedback of many."""

    idempotency_key: Name | None = None


class BatchRequest(Closed):
    feedbacks: list[Annotated[Any, WithJsonSchema(BatchItem.model_json_schema())]]
    """Each is checked by itself: one that is wrong does not keep the others out."""


class Answered(BaseModel):
    """One answer, by the task's type, such as `label` with `confidence` and `scores`, or `value`; or `error` alone."""

    model_config = ConfigDict(extra="allow")

    id: str


class PredictAnswer(BaseModel):
    predictions: list[Answered]
    model_version: str
    arm: str
    """`control`, or in a release `baseline` (a slice of the control), `candidate`, `candidate-2` ..."""
    probability: float
    """With which requests of this kind meet the arm at this moment."""
    adapter: str | None
    artifact: str
    """Digest of the artifact whose weights answered."""


class FeedbackAnswer(BaseModel):
    id: str


class BatchAnswer(BaseModel):
    results: list["FeedbackAnswer | ErrorEnvelope"]
    """In the order of the feedbacks."""


class ErrorFacts(BaseModel):
    code: str
    message: str
    value: str | None
    next_step: str
    retryable: bool


class ErrorEnvelope(BaseModel):
    """The one shape of every error."""

    error: ErrorFacts


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorEnvelope, "description": meaning}
    for status, meaning in {
        404: "No such task, channel or prediction",
        409: "The idempotency key came with other feedback, or feedback comes too late",
        413: "The body is too long",
        415: "The body has a Content-Encoding, or is of another type",
        422: "A value cannot be used",
        429: "More than the share or the limit of the channel or the key: try again after `Retry-After` seconds",
        500: "The server failed; its log has the id",
        503: "Overloaded, draining or restarting: try again",
        504: "No answer within the time allowed",
    }.items()
}
"""What a route's OpenAPI says of errors."""
