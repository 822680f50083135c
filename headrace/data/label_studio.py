"""How Label Studio writes labels of texts: its results, in both directions, and its labelling configs.

Known are spans (Labels), classes (Choices, Taxonomy) and numbers (Number, Rating); relations and free text are passed
over. Field names: github.com/HumanSignal/label-studio, docs/source/guide/task_format.md and export.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import quoteattr

from headrace.errors import BadInput
from headrace.tasks import TaskType

KINDS = ("labels", "choices", "taxonomy", "number", "rating")
PASSED_OVER = ("relation", "textarea")
_PATH_MARK = "/"
NOBODY = "label-studio"  # the labeller of annotations that name none
_MAX_CONFIG_CHARS = 1 << 20
_FITTING = {  # problem of a task type -> kinds of controls that can say its labels
    "single_label_classification": ("choices", "taxonomy"),
    "multi_label_classification": ("choices", "taxonomy"),
    "retrieval": ("choices", "taxonomy"),
    "regression": ("number", "rating"),
    "token_classification": ("labels",),
    "question_answering": ("labels",),
}
_ANSWER = "Answer"  # the label of spans that answer a question


@dataclass(frozen=True)
class Control:
    """What a labeller sets: a tag of the labelling config."""

    name: str
    to_name: str
    kind: str
    values: tuple[str, ...] = ()
    """What may be chosen, as results say it; empty: anything."""


@dataclass(frozen=True)
class Config:
    """A labelling config: its controls, and which field of a task's data each text on the page shows."""

    controls: tuple[Control, ...]
    fields: Mapping[str, str]
    """Name of a tag to the field."""


def value_of(result: Mapping[str, Any], text: Any) -> Any:
    """What a result says: a span as {start, end, labels, text}, a class, a list of classes, or a number.

    Raises:
        ValueError: it has no value of its kind.
    """
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


def label_of(results: Sequence[Mapping[str, Any]], name: str, kind: str, text: Any) -> Any:
    """The label that the results of one annotation give by one control; None where they say nothing of it, unless that
    is to mark nothing.

    Raises:
        ValueError: a result is no label of a text, or there are several of a control that says one thing.
    """
    for result in results:
        if result.get("type") not in (*KINDS, *PASSED_OVER):
            raise ValueError(f"a result of type {result.get('type')!r} is no label of a text")
    values = [value_of(result, text) for result in results if result["type"] == kind and name_of(result) == name]
    if kind == "labels":
        return values
    if len(values) > 1:
        raise ValueError(f"several results of {name!r} in one annotation")
    return values[0] if values else None


def name_of(result: Mapping[str, Any]) -> str:
    """The control that a result belongs to."""
    return str(result.get("from_name") or result["type"])


def labeller_of(who: Any) -> str:
    """The e-mail or the number of the person."""
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    return NOBODY if who is None or who == "" else str(who)


def results_of(target: Any, control: Control, text: str, *, result_id: str) -> list[dict[str, Any]]:
    """A target as results of a control; what the control does not offer is left out.

    Args:
        text: that spans point into.
        result_id: of the first result; the others' have a number behind it.
    """
    found = []
    for place, value in enumerate(_values(target, control, text)):
        found.append(
            {
                "id": result_id if place == 0 else f"{result_id}.{place}",
                "from_name": control.name,
                "to_name": control.to_name,
                "type": control.kind,
                "value": value,
            }
        )
    return found


def read_config(config: str) -> Config:
    """The controls of a labelling config, in order.

    Raises:
        BadInput: no XML, too long, or with a document type, which could name files and grow without end.
    """
    if len(config) > _MAX_CONFIG_CHARS:
        raise BadInput(f"a labelling config of more than {_MAX_CONFIG_CHARS} characters", next_step="Shorten it")
    seen = _Seen()
    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = seen.start, seen.end
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(config.encode(), True)
    except (expat.ExpatError, UnicodeEncodeError) as error:
        raise BadInput(f"the labelling config is no XML: {error}", next_step="Check the project's config") from None
    controls = tuple(
        Control(one["name"], one["to_name"], one["kind"], tuple(seen.values.get(one["name"], ())))
        for one in seen.controls
    )
    return Config(controls, seen.fields)


def control_for(config: Config, task_type: TaskType) -> Control:
    """The control that says labels of a task: the one that offers most of them.

    Raises:
        BadInput: there is none.
    """
    kinds = _FITTING[task_type.problem]
    fitting = [control for control in config.controls if control.kind in kinds]
    if not fitting:
        found = ", ".join(f"{control.name} ({control.kind})" for control in config.controls)
        tags = " or ".join(kind.capitalize() for kind in kinds)
        raise BadInput(
            "the labelling config has no control for this task",
            value=found or "no controls at all",
            next_step=f"Add {tags}: headrace label config prints one that fits",
        )
    labels = set(labels_of(task_type))
    return max(fitting, key=lambda control: len(labels & set(control.values)))


def config_for(task_type: TaskType) -> str:
    """A labelling config that fits a task, to paste into a project."""
    fields = task_type.fields
    texts = [f'  <Text name="{name}" value="${name}"/>' for name in fields]
    kind = _FITTING[task_type.problem][0]
    tag, to_name = kind.capitalize(), fields[-1] if kind == "labels" else fields[0]
    many = ' choice="multiple"' if task_type.problem == "multi_label_classification" else ""
    inner = {"labels": "Label", "choices": "Choice"}.get(kind)
    if inner is None:
        control = [f'  <{tag} name="label" toName="{to_name}"/>']
    else:
        values = [f"    <{inner} value={quoteattr(label)}/>" for label in labels_of(task_type)]
        control = [f'  <{tag} name="label" toName="{to_name}"{many}>', *values, f"  </{tag}>"]
    return "\n".join(["<View>", *texts, *control, "</View>"])


def labels_of(task_type: TaskType) -> list[str]:
    """What a labeller chooses from, in the words of Label Studio."""
    if task_type.problem == "question_answering":
        return [_ANSWER]
    types: list[str] = getattr(task_type, "types", task_type.output_names)  # of entities, whose outputs are tags
    return [] if task_type.problem == "regression" else list(types)


def utf16_places(text: str, *places: int) -> tuple[int, ...]:
    """Places in a text in UTF-16 units, as Label Studio counts."""
    return tuple(len(text[:place].encode("utf-16-le", "surrogatepass")) // 2 for place in places)


def _values(target: Any, control: Control, text: str) -> list[dict[str, Any]]:
    if target is None:
        return []
    if control.kind == "labels":
        return [_span_value(*span, text) for span in _spans(target, control) if _offers(control, span[2])]
    if control.kind == "number":
        return [{"number": target}]
    if control.kind == "rating":
        return [{"rating": round(target)}]
    classes = [one for one in ([target] if isinstance(target, str) else target) if _offers(control, one)]
    if not classes:
        return []
    return [{control.kind: [one.split(_PATH_MARK) for one in classes] if control.kind == "taxonomy" else classes}]


def _offers(control: Control, label: str) -> bool:
    return not control.values or label in control.values


def _spans(target: Any, control: Control) -> list[tuple[int, int, str]]:
    """(start, end, label) in characters, of entities or of the answers to a question."""
    if isinstance(target, Mapping):
        label = control.values[0] if control.values else _ANSWER
        return [(one["start"], one["start"] + len(one["text"]), label) for one in target["answers"]]
    return [(start, end, label) for start, end, label in target]


def _span_value(start: int, end: int, label: str, text: str) -> dict[str, Any]:
    first, last = utf16_places(text, start, end)
    return {"start": first, "end": last, "text": text[start:end], "labels": [label]}


def _span(value: dict[str, Any], text: Any) -> dict[str, Any]:
    """A span in characters of the text. Label Studio counts UTF-16 units, so an emoji before a span is two there
    (https://github.com/HumanSignal/label-studio/issues/1347); one that fits its own text only as it stands is left
    alone."""
    start, end = value.get("start"), value.get("end")
    if not isinstance(text, str) or not isinstance(start, int) or not isinstance(end, int):
        return value
    units = text.encode("utf-16-le", "surrogatepass")
    if not 0 <= 2 * start <= 2 * end <= len(units):
        return value  # what is wrong with it, whoever parses it says
    first, last = (len(units[: 2 * place].decode("utf-16-le", "replace")) for place in (start, end))
    shown = value.get("text", text[first:last])
    if text[first:last] != shown and end <= len(text) and text[start:end] == shown:
        return value
    return value | {"start": first, "end": last}


@dataclass
class _Seen:
    """What the tags of a config said so far."""

    controls: list[dict[str, str]] = field(default_factory=list)
    values: dict[str, list[str]] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)
    open_tags: list[tuple[str, str]] = field(default_factory=list)
    """Each with the control it is, or the path to the choice it is within that control."""

    def start(self, tag: str, given: dict[str, str]) -> None:
        kind, name = tag.lower(), given.get("name", "")
        inside = next((one for kind_, one in reversed(self.open_tags) if kind_ in KINDS), "")
        if kind in KINDS and name:
            self.controls.append({"name": name, "to_name": given.get("toName", ""), "kind": kind})
        elif kind in ("choice", "label") and inside:
            name = given.get("alias") or given.get("value", "")
            path = [one for kind_, one in self.open_tags if kind_ == "choice"]
            self.values.setdefault(inside, []).append(_PATH_MARK.join([*path, name]))
        elif name and given.get("value", "").startswith("$"):
            self.fields[name] = given["value"][1:]
        self.open_tags.append((kind, name))

    def end(self, _tag: str) -> None:
        self.open_tags.pop()


def _refuse_doctype(*_: object) -> None:
    raise BadInput("a labelling config with a document type", next_step="Take <!DOCTYPE ...> out of it")
