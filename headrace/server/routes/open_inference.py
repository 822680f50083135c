"""The Open Inference Protocol, version 2: a task is its model, texts go in and answers come out as tensors."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response

from headrace.errors import BadInput, HeadraceError, NotFound, Unavailable, nearest
from headrace.server import answering, defaults, tensors
from headrace.server.plane import ControlPlane
from headrace.server.tensors import Tensor, TensorRequest
from headrace.server.terms import CURRENT, allow_at_most
from headrace.tasks import TaskType
from headrace.version import VERSION

router = APIRouter(prefix="/v2")

_OUTPUTS = {  # by the task type's problem; `json` has the whole answer of any
    "single_label_classification": ("label", "confidence", "scores"),
    "multi_label_classification": ("scores",),
    "regression": ("value",),
    "retrieval": ("label", "score"),
}
_TEXTS = ("label", "json")
_BODY = {
    "requestBody": {
        "required": True,
        "description": "The protocol's inference request; tensors as JSON, or as bytes behind it",
        "content": {"application/json": {"schema": {"type": "object", "required": ["inputs"]}}},
    }
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": f'{meaning}: `{{"error": "..."}}`'}
    for status, meaning in {
        404: "No such task, version or channel",
        413: "The body is too long",
        422: "A value cannot be used",
        429: "The channel asks for more than its share: try again",
        500: "The model failed",
        503: "Overloaded, draining or restarting: try again",
        504: "No answer within the time allowed",
    }.items()
}


@router.get("")
async def about() -> dict[str, Any]:
    """What this server is, and which extensions of the protocol it speaks."""
    return {"name": "headrace", "version": VERSION, "extensions": ["binary_tensor_data"]}


@router.get("/models/{task}", responses=_ERRORS)
@router.get("/models/{task}/versions/{version}", responses=_ERRORS)
async def model(request: Request, task: str, version: str | None = None) -> dict[str, Any]:
    """The tensors of a task; `versions` has the one that is in charge."""
    plane: ControlPlane = request.app.state.plane
    in_charge = plane.lineup.of(task).control.number
    _check_version(task, version, in_charge)
    task_type = plane.task_type(task)
    return {
        "name": task,
        "versions": [str(in_charge)],
        "platform": "headrace",
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in task_type.fields],
        "outputs": [
            {"name": name, "datatype": _datatype(name), "shape": _shape(name, -1, task_type)}
            for name in _names_for_caller(task_type)
        ],
    }


@router.get("/models/{task}/ready", responses=_ERRORS)
@router.get("/models/{task}/versions/{version}/ready", responses=_ERRORS)
async def ready(request: Request, task: str, version: str | None = None) -> dict[str, Any]:
    """Whether a task answers now."""
    plane: ControlPlane = request.app.state.plane
    _check_version(task, version, plane.lineup.of(task).control.number)
    if not plane.is_ready:
        raise Unavailable("not ready: loading, restarting or draining", next_step="Ask again in 1 s")
    return {"name": task, "ready": True}


@router.post("/models/{task}/infer", responses=_ERRORS, openapi_extra=_BODY)
@router.post("/models/{task}/versions/{version}/infer", responses=_ERRORS, openapi_extra=_BODY)
async def infer(
    request: Request,
    task: str,
    version: str | None = None,
    inference_header_content_length: Annotated[str | None, Header()] = None,
) -> Response:
    """Answer the rows of input tensors with the model that is in charge of the task."""
    plane: ControlPlane = request.app.state.plane
    _check_version(task, version, plane.lineup.of(task).control.number)
    task_type = plane.task_type(task)
    asked, texts = tensors.parse(await request.body(), inference_header_content_length)
    names = _asked_outputs(asked, task_type)
    if asked.parameters.timeout is not None:
        allow_at_most(asked.parameters.timeout / 1_000_000)
    channel = await defaults.channel_of(plane, asked.parameters.channel, 'send "parameters": {"channel": "..."}')
    answer = await answering.predict(
        plane,
        task=task,
        channel=channel,
        unit=asked.parameters.unit,
        inputs=_rows(texts, task_type.fields),
        in_charge_only=version is not None,
    )
    number = answer["model_version"].rpartition("/")[2]
    _check_version(task, version, int(number))  # which may have changed meanwhile
    said = {name: answer[name] for name in ("arm", "adapter", "artifact") if answer[name] is not None}
    head = {"model_name": task, "model_version": number, "parameters": {"channel": channel, **said}}
    if asked.id is not None:
        head["id"] = asked.id
    outputs = [tensor_of(name, answer["predictions"], task_type) for name in names]
    body, json_length = tensors.render(head, outputs, asked)
    if json_length is None:
        return Response(body, media_type="application/json")
    return Response(body, headers={tensors.JSON_LENGTH: str(json_length)}, media_type="application/octet-stream")


def _check_version(task: str, version: str | None, in_charge: int) -> None:
    if version is not None and version != str(in_charge):
        raise NotFound(
            "this version is not in charge",
            value=f"{task}/{version}",
            next_step=f"{task}/{in_charge} is; ask for that, or for none",
        )


def output_names(task_type: TaskType, *, with_scores: bool = True) -> tuple[str, ...]:
    """Outputs that answers of a task have."""
    names = _OUTPUTS.get(task_type.problem, ())
    return (*(name for name in names if with_scores or name != "scores"), "json")


def _names_for_caller(task_type: TaskType) -> tuple[str, ...]:
    return output_names(task_type, with_scores="scores" in CURRENT.get().caller.scopes)


def _asked_outputs(asked: TensorRequest, task_type: TaskType) -> tuple[str, ...]:
    known = _names_for_caller(task_type)
    if not asked.outputs:
        return known
    for output in asked.outputs:
        if output.name not in known:
            raise BadInput("no such output", value=output.name, next_step=nearest(output.name, list(known)))
    return tuple(dict.fromkeys(output.name for output in asked.outputs))


def _rows(texts: Mapping[str, list[str]], fields: Sequence[str]) -> list[dict[str, str]]:
    """Inputs as POST /v1/predict takes them, from columns."""
    if set(texts) != set(fields):
        raise BadInput(
            "these are not the inputs of the task",
            value=", ".join(texts) or "none",
            next_step=f"Send {' and '.join(fields)}",
        )
    sizes = {name: len(column) for name, column in texts.items()}
    if len(set(sizes.values())) > 1:
        raise BadInput("the inputs differ in length", value=sizes, next_step="Send as many texts in each")
    return [dict(zip(fields, row, strict=True)) for row in zip(*(texts[name] for name in fields), strict=True)]


def _datatype(name: str) -> str:
    return "BYTES" if name in _TEXTS else "FP32"


def _shape(name: str, n_rows: int, task_type: TaskType) -> list[int]:
    return [n_rows, task_type.n_outputs] if name == "scores" else [n_rows]


def tensor_of(name: str, answers: Sequence[Mapping[str, Any]], task_type: TaskType) -> Tensor:
    """One output of N answers.

    Raises:
        HeadraceError: the model failed on an input, for which only `json` has a place.
    """
    read: Callable[[Mapping[str, Any]], list[Any]]
    if name == "json":
        read = _as_json
    else:
        _check_whole(answers)
        read = _scores(task_type.output_names) if name == "scores" else lambda answer: [answer[name]]
    values = [value for answer in answers for value in read(answer)]
    return Tensor(name, _datatype(name), _shape(name, len(answers), task_type), values)


def _as_json(answer: Mapping[str, Any]) -> list[str]:
    return [json.dumps(answer, ensure_ascii=False)]


def _scores(labels: Sequence[str]) -> Callable[[Mapping[str, Any]], list[float]]:
    return lambda answer: [answer["scores"][label] for label in labels]


def _check_whole(answers: Sequence[Mapping[str, Any]]) -> None:
    for place, answer in enumerate(answers):
        if "error" in answer:
            error = answer["error"]
            raise HeadraceError(
                f"row {place}: {error['message']}",
                value=error["value"],
                next_step="Ask for the output json alone, which has the answers of the other rows",
            )
