"""The bodies of requests and answers. Requests are closed: an unknown field is an error, not a silent nothing."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Strict


def _storable(text: str) -> str:
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ValueError("a NUL or half a surrogate pair cannot be stored")
    return text


Text = Annotated[str, AfterValidator(_storable)]
Number = Annotated[float, Strict()]


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Input(_Closed):
    text: Text


class PredictRequest(_Closed):
    task: Text
    channel: Text
    unit: Text | None = None
    """What is randomised over: a user, a session. The same unit gets the same arm."""
    inputs: list[Input]


class FeedbackRequest(_Closed):
    """Exactly one of correction, metric with value, comment."""

    prediction_id: Text
    correction: Text | Annotated[int, Strict()] | Number | None = None
    metric: Text | None = None
    value: Number | None = None
    comment: Text | None = None
    labeller: Text = "anonymous"


class Answered(BaseModel):
    """One answer: `label` with `confidence` and `scores`, or `value`, by the task's type; or `error` alone."""

    model_config = ConfigDict(extra="allow")

    id: str


class PredictAnswer(BaseModel):
    predictions: list[Answered]
    model_version: str
    arm: str
    adapter: str | None
    artifact: str
    """Digest of the artifact whose weights answered."""


class FeedbackAnswer(BaseModel):
    id: str


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
        409: "The idempotency key came with other feedback",
        413: "The body is too long",
        422: "A value cannot be used",
        500: "The server failed; its log has the id",
        503: "Overloaded, draining or restarting: try again",
    }.items()
}
"""What a route's OpenAPI says of errors."""
