"""POST /predict and GET /info, as text-embeddings-inference has them: the scores of all labels, the highest first.

Shapes of inputs and answers: github.com/huggingface/text-embeddings-inference, router/src/http/types.rs.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, StrictBool

from headrace.config import TaskTable
from headrace.errors import BadInput, HeadraceError
from headrace.server import answering, defaults
from headrace.server.bodies import Closed, Name, storable
from headrace.server.plane import ControlPlane
from headrace.server.strictness import StrictRoute
from headrace.tasks import TaskType
from headrace.version import VERSION

router = APIRouter(route_class=StrictRoute)

_PROBLEMS = ("single_label_classification", "multi_label_classification", "regression", "retrieval")
_CALIBRATED = ("single_label_classification", "multi_label_classification")
_EXTRA_TOKENS = 10  # [CLS], [SEP]s, and the role of a turn
_SHAPES = 'A text is "a" or ["a"], a pair is ["a", "b"], a batch is [["a"], ["b"]]'
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": f'{meaning}: `{{"error": "...", "error_type": "{kind}"}}`'}
    for status, meaning, kind in [
        (404, "No such channel", "Validation"),
        (413, "The body is too long", "Validation"),
        (422, "A value cannot be used", "Validation"),
        (424, "The model failed, or the task has no scores of labels", "Backend"),
        (429, "Overloaded, late, draining or restarting: try again", "Overloaded"),
    ]
}


def _shaped(value: Any) -> Any:
    """`value`, if it is one of the shapes; one sentence instead of one for each."""
    batch = _batch(value)
    if not all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in batch):
        raise ValueError(_SHAPES)
    for texts in batch:
        for text in texts:
            storable(text)
    return value


class ScoresRequest(Closed):
    inputs: Annotated[str | list[str] | list[list[str]], BeforeValidator(_shaped)]
    """A text, a pair of texts as a list of two, or a batch: a list of lists of one or two."""
    truncate: StrictBool | None = None
    """Texts beyond `max_tokens` are always cut; with false, a request whose texts may be longer is refused."""
    truncation_direction: Literal["right", "Right"] = "Right"
    raw_scores: StrictBool = False


class Score(BaseModel):
    score: float
    label: str


_Channel = Annotated[Name | None, Header(alias="X-Headrace-Channel")]
_Unit = Annotated[Name | None, Header(alias="X-Headrace-Unit")]


@router.post("/predict", response_model=list[Score] | list[list[Score]], responses=_ERRORS)
async def predict(body: ScoresRequest, request: Request, channel: _Channel = None, unit: _Unit = None) -> JSONResponse:
    """Scores of all labels for a text or a pair, or for each of a batch; the highest first."""
    plane: ControlPlane = request.app.state.plane
    task = defaults.task_of(plane)
    task_type = plane.task_type(task)
    check_scoring(task_type)
    rows = _rows(_batch(body.inputs), task_type.fields)
    _check(body, rows, plane.ws.task(task), task_type)
    answer = await answering.predict(
        plane,
        task=task,
        channel=await defaults.channel_of(plane, channel, "send the header X-Headrace-Channel"),
        unit=unit,
        inputs=rows,
    )
    scores = [scores_of(row) for row in answer["predictions"]]
    return JSONResponse(scores if _is_batch(body.inputs) else scores[0])


@router.get("/info", responses=_ERRORS)
async def info(request: Request) -> dict[str, Any]:
    """The model behind /predict, and its limits."""
    plane: ControlPlane = request.app.state.plane
    task = defaults.task_of(plane)
    version, serve = plane.lineup.of(task).control, plane.ws.settings.serve
    check_scoring(plane.task_type(task))
    names = plane.task_type(task).output_names
    labels = {
        "id2label": {str(place): name for place, name in enumerate(names)},
        "label2id": {name: place for place, name in enumerate(names)},
    }
    return {
        "model_id": version.name,
        "model_sha": version.artifact,
        "model_type": {"classifier" if len(names) > 1 else "reranker": labels},
        "max_input_length": plane.ws.task(task).max_tokens,
        "max_batch_tokens": serve.batch_tokens,
        "max_client_batch_size": serve.max_rows,
        "auto_truncate": True,
        "version": VERSION,
    }


def check_scoring(task_type: TaskType) -> None:
    """Check that answers of the task are scores of labels.

    Raises:
        HeadraceError: they are not.
    """
    if task_type.problem not in _PROBLEMS:
        raise HeadraceError(
            "the task has no scores of labels", value=task_type.name, next_step="Ask POST /v1/predict instead"
        )


def _is_batch(inputs: Any) -> bool:
    return isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], list)


def _batch(inputs: Any) -> list[Any]:
    """A text as a batch of one text of one part, a pair as one of two."""
    if isinstance(inputs, str):
        return [[inputs]]
    return list(inputs) if _is_batch(inputs) else [inputs]


def _rows(batch: Sequence[Sequence[str]], fields: Sequence[str]) -> list[dict[str, str]]:
    """Inputs as POST /v1/predict takes them."""
    for place, texts in enumerate(batch):
        if len(texts) != len(fields):
            raise BadInput(
                f"inputs[{place}] has {len(texts)} texts, and the task reads {' and '.join(fields)}",
                value=texts,
                next_step=_SHAPES,
            )
    return [dict(zip(fields, texts, strict=True)) for texts in batch]


def _check(body: ScoresRequest, rows: Sequence[Mapping[str, str]], settings: TaskTable, task_type: TaskType) -> None:
    if body.raw_scores and task_type.problem in _CALIBRATED:
        raise BadInput(
            "there are no raw scores, only probabilities that were calibrated",
            value="raw_scores",
            next_step="Leave raw_scores out",
        )
    longest = max((sum(len(text.encode()) for text in row.values()) for row in rows), default=0)
    if body.truncate is False and longest + _EXTRA_TOKENS > settings.max_tokens:  # a token has a byte or more
        raise BadInput(
            f"a text may have more than {settings.max_tokens} tokens, and what is longer is cut",
            value=f"{longest} bytes",
            next_step="Leave truncate out, shorten the text, or raise max_tokens of the task",
        )


def scores_of(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Labels and scores of one answer, the highest score first.

    Raises:
        HeadraceError: the model failed on the input.
    """
    if "error" in answer:
        error = answer["error"]
        raise HeadraceError(error["message"], value=error["value"], next_step=error["next_step"])
    if "value" in answer:
        return [{"score": answer["value"], "label": "value"}]
    if "hits" in answer:
        return [{"score": hit["score"], "label": hit["label"]} for hit in answer["hits"]]
    if "score" in answer:
        return [{"score": answer["score"], "label": answer["label"]}]
    if "scores" not in answer:  # which the key does not allow
        return [{"score": answer["confidence"], "label": label} for label in _labels(answer)]
    found = [{"score": score, "label": label} for label, score in answer["scores"].items()]
    return sorted(found, key=lambda one: -one["score"])


def _labels(answer: Mapping[str, Any]) -> list[str]:
    return list(answer["labels"]) if "labels" in answer else [answer["label"]]
