"""What Label Studio asks of a model, and what it tells: pre-labels for its tasks, and annotations that were made.

An annotation finds what it is about by the `headrace_id` of a task that headrace exported, else by the id of the
prediction that its pre-label came from, else by its text. What Label Studio asks for is logged, so that an annotation
can correct it, but audited never: those who label there are no users.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from headrace.access.keyring import Caller
from headrace.data import label_studio
from headrace.errors import BadInput, UserError
from headrace.feedback import auditing, reviews
from headrace.ids import PREFIXES
from headrace.labelling import ID
from headrace.personal.places import moved_spans, moved_target
from headrace.personal.policies import Cleaned
from headrace.records import Channel, Input
from headrace.server import answering, defaults
from headrace.server.bodies import storable
from headrace.server.plane import ControlPlane
from headrace.server.terms import CURRENT
from headrace.store import predictions
from headrace.store import reviews as rows
from headrace.tasks import TaskType
from headrace.tasks.inputs import parse_input, text_hash
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_TAKEN = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_CREATED")
_HOW = "put it into the URL: http://HOST:PORT/label-studio/CHANNEL"
_PREDICTED = f"{PREFIXES['prediction']}_"


@dataclass(frozen=True)
class _Read:
    """The input that a task of Label Studio shows."""

    raw: Mapping[str, Any]
    input: Input
    text: str
    """That spans point into as Label Studio shows it: of a question with its context, the context."""
    became: Cleaned
    """What is kept of that text."""


async def setup(plane: ControlPlane, config: str) -> dict[str, Any]:
    """Check a project's labelling config; the version that will answer.

    Raises:
        BadInput: the config has nothing that can say a label of the task.
    """
    task = defaults.task_of(plane)
    label_studio.control_for(label_studio.read_config(config), plane.task_type(task))
    return {"model_version": plane.lineup.of(task).control.name}


async def predict(
    plane: ControlPlane, channel: str | None, tasks: Sequence[Mapping[str, Any]], config: str
) -> list[dict[str, Any]]:
    """Pre-labels of tasks in their order; a task without a text that can be read gets an empty one.

    Raises:
        BadInput: see `setup`; or the channel is not clear.
        NotFound: no such channel.
        Unavailable, TooMany, TooLate: see `answering.predict`.
    """
    task = defaults.task_of(plane)
    read = label_studio.read_config(config)
    control = label_studio.control_for(read, plane.task_type(task))
    name = await defaults.channel_of(plane, channel, _HOW)
    read_tasks = [_read(plane, task, name, one.get("data"), read, control) for one in tasks]
    readable = [(place, one) for place, one in enumerate(read_tasks) if one is not None]
    found: list[dict[str, Any]] = [{"result": []} for _ in tasks]
    max_rows = plane.ws.settings.serve.max_rows
    for start in range(0, len(readable), max_rows):
        some = readable[start : start + max_rows]
        raw = [one.raw for _, one in some]
        answer = await answering.predict(
            plane, task=task, channel=name, unit=None, inputs=raw, in_charge_only=True, is_audited=False
        )
        for (place, one), output in zip(some, answer["predictions"], strict=True):
            if "error" not in output:
                found[place] = _prelabel(plane.task_type(task), control, one, output, answer["model_version"])
    return found


async def annotated(plane: ControlPlane, channel: str | None, told: Mapping[str, Any]) -> dict[str, Any]:
    """Take the annotations that a webhook tells of; how many said something new, and why others were not taken.

    Raises:
        BadInput: the channel is not clear.
        NotFound: no such channel.
    """
    if told.get("action") not in _TAKEN:
        return {"status": "ignored", "n_taken": 0, "refused": []}
    task = defaults.task_of(plane)
    name = await defaults.channel_of(plane, channel, _HOW)
    named = await plane.channel(name)
    config = label_studio.read_config(str(_dict(told.get("project")).get("label_config", "")))
    pairs = _pairs(told.get("annotation"), told.get("task"))

    caller = CURRENT.get().caller

    def take(conn: "Connection") -> list[str | bool]:
        return [_taken(plane, conn, task, named, config, of, said, caller) for said, of in pairs]

    came = await asyncio.wrap_future(plane.log.writer.submit(take, durable=True))
    refused = [plane.door.brief(one) for one in came if isinstance(one, str)]
    return {"status": "ok", "n_taken": sum(one is True for one in came), "refused": refused}


def _prelabel(
    task_type: TaskType, control: label_studio.Control, read: _Read, output: Mapping[str, Any], version: str
) -> dict[str, Any]:
    target = task_type.answer_of(output)
    if read.became.pieces and task_type.problem in answering.POINTING:
        target = moved_target(target, read.became.undone)
    results = label_studio.results_of(target, control, read.text, result_id=output["id"])
    return {"result": results, "score": auditing.confidence_of(output), "model_version": version}


def _pairs(annotations: Any, tasks: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each annotation with its task; several come as two lists, whose order need not be the same."""
    if not isinstance(annotations, list):
        return [(_dict(annotations), _dict(tasks))]
    by_id = {str(_dict(one).get("id")): _dict(one) for one in (tasks if isinstance(tasks, list) else [tasks])}
    return [(_dict(one), by_id.get(str(_dict(one).get("task")), {})) for one in annotations]


def _taken(
    plane: ControlPlane,
    conn: "Connection",
    task: str,
    channel: Channel,
    config: label_studio.Config,
    of: Mapping[str, Any],
    annotation: Mapping[str, Any],
    caller: Caller,
) -> str | bool:
    """Whether an annotation said something new, or why it was not taken."""
    if annotation.get("was_cancelled"):
        return False
    results = annotation.get("result")
    results = [one for one in results if isinstance(one, dict)] if isinstance(results, list) else []
    try:
        control = label_studio.control_for(config, plane.task_type(task))
        read = _read(plane, task, channel.name, of.get("data"), config, control)
        label = label_studio.label_of(results, control.name, control.kind, None if read is None else read.text)
        if read is not None and control.kind == "labels" and read.became.pieces:
            label = moved_spans(label, read.became)
        if label is None:
            return f"annotation {annotation.get('id')} says nothing by {control.name!r}"
        about = _about(plane.ws, conn, task, channel, _dict(of.get("data")), read, results)
        if about is None:
            return f"annotation {annotation.get('id')}: no answer or example has its text"
        labeller = label_studio.labeller_of(annotation.get("completed_by"))
        with conn.begin_nested():
            return reviews.take(
                plane.ws, conn, task, about, label, labeller, channels=caller.channels, key_id=caller.source
            )
    except (UserError, ValueError) as error:
        return f"annotation {annotation.get('id')}: {error}"


def _about(
    ws: Workspace,
    conn: "Connection",
    task: str,
    channel: Channel,
    data: Mapping[str, Any],
    read: _Read | None,
    results: Sequence[Mapping[str, Any]],
) -> str | None:
    """Id of the review, prediction or example that an annotation is about."""
    if isinstance(data.get(ID), str):
        return str(data[ID])
    if read is None:
        return None
    digest = text_hash(read.input)
    for result in results:
        first = str(result.get("id", "")).partition(".")[0]
        if first.startswith(_PREDICTED):
            prediction = predictions.find(conn, first)
            if prediction is not None and (prediction.channel, prediction.text_hash) == (channel.name, digest):
                return first
    since = ws.clock() - timedelta(days=ws.settings.feedback.window_days)
    newest = rows.newest_prediction_with(conn, task, channel.id, digest, since=since)
    return newest or rows.example_with(conn, channel.id, digest)


def _read(
    plane: ControlPlane, task: str, channel: str, data: Any, config: label_studio.Config, control: label_studio.Control
) -> _Read | None:
    """The input that a task shows; None where there is none that can be read.

    By the names that the task type gives to its parts, else by the texts on the page: the one that is labelled, or, for
    inputs with two parts, the first two.
    """
    fields, given = plane.task_type(task).fields, _dict(data)
    names: list[str] = list(fields)
    if not all(name in given for name in fields):
        labelled = config.fields.get(control.to_name)
        on_page = list(dict.fromkeys(config.fields.values()))
        names = [labelled] if len(fields) == 1 and labelled else on_page[: len(fields)]
    if len(names) < len(fields):
        return None
    raw = {field: given.get(name) for field, name in zip(fields, names, strict=True)}
    try:
        parsed = parse_input(plane.ws.task(task), fields, raw)
        parts = (parsed,) if isinstance(parsed, str) else parsed
        is_short = all(len(storable(part)) <= plane.ws.settings.data.max_chars for part in parts)
        kept, became = plane.door.input(channel, parsed)
    except (BadInput, ValueError):
        return None
    return _Read(raw, kept, parts[-1], became[-1]) if is_short else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
