"""Label Studio's JSON export: tasks with their annotations, each by one person.

What its results mean is in headrace/data/label_studio.py.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from headrace.data.label_studio import KINDS, label_of, labeller_of, name_of
from headrace.data.sources import Options
from headrace.data.sources.json_document import beginning, document
from headrace.errors import BadInput
from headrace.records import RawLabel, RawRow

_N_PEEKED = 100  # tasks that tell which fields and which controls there are


class LabelStudio:
    """One row for each task; each annotation that was not cancelled is one labeller's label.

    The text is `data.text`, or the only text in `data`. Where a project has several controls, --label names one.
    """

    @staticmethod
    def looks_like(location: str) -> bool:
        head = beginning(location)
        return head.startswith(b"[") and head[1:].lstrip().startswith(b"{") and b'"annotations"' in head

    @staticmethod
    def read(location: str, options: Options) -> Iterator[RawRow]:
        tasks = document(location)
        if not isinstance(tasks, list):
            raise BadInput("not an export of Label Studio", value=location, next_step="It is an array of tasks")
        some = list(islice((task for task in tasks if _is_task(task)), _N_PEEKED))
        text = _text_field(some, options) if some else options.text
        control = _control(tasks, options)
        for line, task in enumerate(tasks, start=1):
            yield _row(line, task, text, control, options)


def _is_task(task: Any) -> bool:
    return isinstance(task, dict) and isinstance(task.get("data"), dict)


def _text_field(tasks: list[dict[str, Any]], options: Options) -> str:
    """Which field of `data` is the text.

    Raises:
        BadInput: the wanted one is not there.
    """
    fields: dict[str, None] = {name: None for task in tasks for name in task["data"]}
    if options.text in fields:
        return options.text
    texts: list[str] = [name for name in fields if any(isinstance(task["data"].get(name), str) for task in tasks)]
    texts = [name for name in texts if name not in (options.id, options.group, options.pair)]
    if len(texts) == 1 and options.text == Options().text:
        return texts[0]
    raise BadInput(
        f"no field {options.text!r} in data", value=f"fields: {', '.join(fields) or 'none'}", next_step="Give --text"
    )


def _control(tasks: list[Any], options: Options) -> tuple[str, str] | None:
    """Name and kind of the control whose results are the labels; None where none are wanted, or there are none.

    Raises:
        BadInput: the wanted one is not there, or there are several and none is named.
    """
    controls = {
        name_of(result): str(result["type"])
        for task in tasks
        if _is_task(task) and isinstance(task.get("annotations"), list)
        for annotation in task["annotations"]
        if isinstance(annotation, dict) and isinstance(annotation.get("result"), list)
        for result in annotation["result"]
        if isinstance(result, dict) and result.get("type") in KINDS
    }
    if not options.label or not controls:
        return None
    if options.label in controls:
        return options.label, controls[options.label]
    if options.label == Options().label and len(controls) == 1:
        return next(iter(controls.items()))
    raise BadInput(
        f"no control {options.label!r}", value=f"controls: {', '.join(controls)}", next_step="Name one with --label"
    )


def _row(line: int, task: Any, text: str, control: tuple[str, str] | None, options: Options) -> RawRow:
    if not _is_task(task):
        return RawRow(line, repr(task)[:1000], error="unreadable", detail="not a task with data")
    data = task["data"]
    try:
        spoken_of = data.get(options.pair or text)  # spans of a question's answer point into its context
        labels = _labels(task.get("annotations"), control, spoken_of) if options.label else ()
    except ValueError as error:
        return RawRow(line, data.get(text), error="unreadable", detail=str(error))
    key, group = data.get(options.id, task.get("id")), data.get(options.group)
    return RawRow(
        line,
        data.get(text),
        None,
        None if key is None else str(key),
        None if group is None else str(group),
        labels,
        text_pair=data.get(options.pair) if options.pair else None,
    )


def _labels(annotations: Any, control: tuple[str, str] | None, text: Any) -> tuple[RawLabel, ...]:
    if annotations is None:
        return ()
    if not isinstance(annotations, list):
        raise ValueError('"annotations" must be a list')
    found = []
    for annotation in annotations:
        results = annotation.get("result") if isinstance(annotation, dict) else None
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            raise ValueError('each of "annotations" must have a list "result" of objects')
        if annotation.get("was_cancelled"):
            continue
        name, kind = control or ("", "")
        label = label_of(results, name, kind, text)
        if label is not None:
            found.append(RawLabel(labeller_of(annotation.get("completed_by")), label))
    return tuple(found)
