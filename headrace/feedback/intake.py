"""Take feedback on a prediction: check it, and write it where its prediction is.

`Given` is what somebody said, checked in shape; `receive` checks it against its prediction and writes it. The server
runs `receive` on the queue that wrote the prediction, `give` runs it at once, for the SDK and the command line.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headrace.errors import AlreadyExists, BadInput, NotFound
from headrace.ids import PREFIXES, new_id
from headrace.records import Feedback, Input, Prediction
from headrace.store import predictions
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_UNLOGGED = f"{PREFIXES['unlogged']}_"
_MAX_NAME_CHARS = 200  # width of the columns labeller and idempotency_key
_MAX_METRIC_CHARS = 64
_MAX_COMMENT_CHARS = 20_000


@dataclass(frozen=True)
class Given:
    """Feedback as given. Exactly one of correction, metric with value, comment.

    Raises:
        BadInput: none or several of them, or a value out of bounds.
    """

    prediction_id: str
    correction: Any = None
    metric: str | None = None
    value: float | None = None
    comment: str | None = None
    labeller: str = "anonymous"
    idempotency_key: str | None = None

    def __post_init__(self) -> None:
        said = [name for name in ("correction", "metric", "comment") if getattr(self, name) is not None]
        if len(said) != 1:
            raise BadInput(
                "feedback is exactly one of correction, metric with value, comment",
                value=", ".join(said) or "none of them",
                next_step="Send one; several observations are several feedbacks",
            )
        if (self.metric is None) != (self.value is None):
            raise BadInput(
                "metric and value go together",
                value=f"metric={self.metric}, value={self.value}",
                next_step="Send both, or neither",
            )
        if self.value is not None and not math.isfinite(self.value):
            raise BadInput("the value of a metric is a finite number", value=self.value, next_step="Send a number")
        _check_text("prediction id", self.prediction_id, _MAX_NAME_CHARS)
        _check_text("metric", self.metric, _MAX_METRIC_CHARS)
        _check_text("comment", self.comment, _MAX_COMMENT_CHARS)
        _check_text("labeller", self.labeller, _MAX_NAME_CHARS)
        _check_text("idempotency key", self.idempotency_key, _MAX_NAME_CHARS)

    @property
    def kind(self) -> Literal["correction", "metric", "comment"]:
        if self.correction is not None:
            return "correction"
        return "metric" if self.metric is not None else "comment"


def give(
    ws: Workspace,
    prediction_id: str,
    *,
    correction: Any = None,
    metric: str | None = None,
    value: float | None = None,
    comment: str | None = None,
    labeller: str = "anonymous",
    idempotency_key: str | None = None,
) -> Feedback:
    """Record feedback on a prediction of this workspace, without a server.

    Raises:
        BadInput: not exactly one of the three kinds, or a correction that is no label of the task.
        NotFound: no such prediction.
        AlreadyExists: the idempotency key came before with other feedback.
    """
    given = Given(prediction_id, correction, metric, value, comment, labeller, idempotency_key)
    with ws.store.write() as conn:
        return receive(ws, conn, given)


def receive(ws: Workspace, conn: "Connection", given: Given) -> Feedback:
    """Check feedback against its prediction and write it; the same under the same key is written once.

    Raises:
        NotFound, BadInput, AlreadyExists: see `give`.
    """
    prediction = predictions.find(conn, given.prediction_id)
    if prediction is None and given.prediction_id.startswith(_UNLOGGED):
        raise NotFound(
            "this answer is not in the prediction log, so it takes no feedback",
            value=given.prediction_id,
            next_step="The log is off (serve.log), or its queue was full (serve.log_queue_rows)",
        )
    if prediction is None:
        raise NotFound(
            "no such prediction",
            value=given.prediction_id,
            next_step="Send the id that /v1/predict gave; one older than serve.log_keep_days takes none",
        )
    feedback = make(ws, prediction, given)
    known = given.idempotency_key and predictions.feedback_with_key(conn, given.idempotency_key)
    if not known:
        predictions.add_feedback(conn, feedback, config_hash=ws.config_hash)
        return feedback
    if _said(known) != _said(feedback):
        raise AlreadyExists(
            "this idempotency key came before with other feedback",
            value=given.idempotency_key,
            next_step="Use a fresh key for every observation",
        )
    return known


def make(ws: Workspace, prediction: Prediction, given: Given) -> Feedback:
    """The record of feedback on a prediction, its correction parsed by the prediction's task.

    Raises:
        BadInput: the correction is no label of the task.
        NotFound: headrace.toml has the task no more.
    """
    correction = given.correction
    if correction is not None:
        task = ws.task(prediction.task)
        task_type: TaskType = TASK_TYPES.get(task.type)(task)
        correction = task_type.parse_label(correction, _input_of(prediction))
    return Feedback(
        id=new_id("feedback"),
        prediction_id=prediction.id,
        kind=given.kind,
        correction=correction,
        metric=given.metric,
        value=given.value,
        comment=given.comment,
        labeller=given.labeller,
        idempotency_key=given.idempotency_key,
        at=ws.clock(),
    )


def _input_of(prediction: Prediction) -> Input | None:
    """What was asked; None where the log kept its hash only."""
    if prediction.text is None or prediction.text_pair is None:
        return prediction.text
    return prediction.text, prediction.text_pair


def _said(feedback: Feedback) -> dict[str, Any]:
    return {name: value for name, value in vars(feedback).items() if name not in ("id", "at")}


def _check_text(name: str, text: str | None, max_chars: int) -> None:
    if text is None:
        return
    if not text.strip() or len(text) > max_chars or "\0" in text or not _is_unicode(text):
        raise BadInput(
            f"{name} must be 1 to {max_chars} characters of valid Unicode without NUL",
            value=text,
            next_step=f"Shorten or correct the {name}",
        )


def _is_unicode(text: str) -> bool:
    """Whether a database can keep the text; half of a surrogate pair cannot be encoded."""
    return not any("\ud800" <= char <= "\udfff" for char in text)
