"""Label Studio's JSON export: tasks with their annotations, each by one person.

Read: spans (Labels), classes (Choices, Taxonomy) and numbers (Number, Rating). Relations and free text are passed over.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from headrace.data.sources import Options
from headrace.data.sources.json_document import beginning, document
from headrace.errors import BadInput
from headrace.records import RawLabel, RawRow

_KINDS = ("labels", "choices", "taxonomy", "number", "rating")
_PASSED_OVER = ("relation", "textarea")
_PATH_MARK = "/"
_NOBODY = "label-studio"  # the labeller of annotations that name none
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
        _name(result): str(result["type"])
        for task in tasks
        if _is_task(task) and isinstance(task.get("annotations"), list)
        for annotation in task["annotations"]
        if isinstance(annotation, dict) and isinstance(annotation.get("result"), list)
        for result in annotation["result"]
        if isinstance(result, dict) and result.get("type") in _KINDS
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


def _name(result: Mapping[str, Any]) -> str:
    return str(result.get("from_name") or result["type"])


def _row(line: int, task: Any, text: str, control: tuple[str, str] | None, options: Options) -> RawRow:
    if not _is_task(task):
        return RawRow(line, repr(task)[:1000], error="unreadable", detail="not a task with data")
    data = task["data"]
    try:
        labels = _labels(task.get("annotations"), control, data.get(text)) if options.label else ()
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
        label = _label(results, control, text)
        if label is not None:
            found.append(RawLabel(_labeller(annotation.get("completed_by")), label))
    return tuple(found)


def _label(results: list[dict[str, Any]], control: tuple[str, str] | None, text: Any) -> Any:
    """The label of one annotation; None where it says nothing about the control, unless that is to mark nothing."""
    for result in results:
        if result.get("type") not in (*_KINDS, *_PASSED_OVER):
            raise ValueError(f"a result of type {result.get('type')!r} is no label of a text")
    if control is None:
        return None
    name, kind = control
    values = [_value(result, text) for result in results if result["type"] == kind and _name(result) == name]
    if kind == "labels":
        return values
    if len(values) > 1:
        raise ValueError(f"several results of {name!r} in one annotation")
    return values[0] if values else None


def _value(result: Mapping[str, Any], text: Any) -> Any:
    """A span as {start, end, labels, text}, a class, a list of classes, or a number."""
    kind, value = result["type"], result.get("value")
    if not isinstance(value, dict) or kind not in value:
        raise ValueError(f"a result of type {kind!r} without its value")
    if kind == "labels":
        return _span({name: value[name] for name in ("start", "end", "labels", "text") if name in value}, text)
    if kind in ("number", "rating"):
        return value[kind]
    classes = value[kind]
    if not isinstance(classes, list):
        raise ValueError(f"{kind} must be a list")
    if kind == "taxonomy":
        classes = [_PATH_MARK.join(map(str, path)) if isinstance(path, list) else path for path in classes]
    return classes[0] if len(classes) == 1 else classes or None


def _span(value: dict[str, Any], text: Any) -> dict[str, Any]:
    """A span in characters of the text. Label Studio counts UTF-16 units, so an emoji before a span is two there
    (https://github.com/HumanSignal/label-studio/issues/1347); one that fits its own text as it stands is left alone."""
    start, end = value.get("start"), value.get("end")
    if not isinstance(text, str) or not isinstance(start, int) or not isinstance(end, int):
        return value
    units = text.encode("utf-16-le", "surrogatepass")
    if not 0 <= 2 * start <= 2 * end <= len(units) or ("text" in value and text[start:end] == value["text"]):
        return value  # what is wrong with it, whoever parses it says
    start, end = (len(units[: 2 * place].decode("utf-16-le", "replace")) for place in (start, end))
    return value | {"start": start, "end": end}


def _labeller(who: Any) -> str:
    """The e-mail or the number of the person."""
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    return _NOBODY if who is None or who == "" else str(who)
