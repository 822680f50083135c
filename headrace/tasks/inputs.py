"""Inputs as users give them become inputs as models read them: a text, two texts, or a conversation rendered as a text.

Every door (import, HTTP, SDK, command line) comes through `parse_input`, so that the same input is the same text in
training and in serving.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence

from headrace.config import TaskTable
from headrace.errors import BadConfig, BadInput
from headrace.records import Input

TURNS = "turns"
"""Key of a conversation where an input is written as an object."""
_USER = "user"
_LINE_BREAK = re.compile("\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")  # where str.splitlines() cuts


def parse_input(task: TaskTable, fields: tuple[str, ...], raw: object) -> Input:
    """The input that was meant.

    Args:
        fields: names of the input's one or two parts, from the task type.
        raw: a text, an object with `fields`, a pair of texts, or, under `input = "turns"`, a list of {role, text}.

    Raises:
        BadInput: it has another shape, or a part of it is empty.
        BadConfig: the task wants conversations, and its type wants two texts.
    """
    if task.input == TURNS:
        if len(fields) > 1:
            raise BadConfig(
                "conversations are for task types that read one text",
                value=task.type,
                next_step='Take `input = "turns"` out of the task\'s table',
            )
        return _conversation(fields[0], raw)
    if isinstance(raw, list) or (isinstance(raw, Mapping) and raw.get(TURNS) is not None):
        raise BadInput(
            "a list of turns, where the task reads texts",
            value=raw,
            next_step='Set `input = "turns"` in the task\'s table of headrace.toml, or send a text',
        )
    if len(fields) > 1:
        return _pair(fields[0], fields[1], raw)
    return _text(_only(raw, fields[0]) if isinstance(raw, Mapping) else raw, fields[0])


def parse_inputs(task: TaskTable, fields: tuple[str, ...], raws: Sequence[object]) -> list[Input]:
    """`parse_input` of each; the error names the place of the first that cannot be read.

    Raises:
        BadInput, BadConfig: see `parse_input`.
    """
    parsed = []
    for place, raw in enumerate(raws):
        try:
            parsed.append(parse_input(task, fields, raw))
        except BadInput as error:
            raise BadInput(f"inputs[{place}]: {error.problem}", value=error.value, next_step=error.next_step) from None
    return parsed


def render_turns(turns: object) -> str:
    """A conversation as one text: a line per turn, "role: text", oldest first.

    Line breaks within a turn become spaces and roles hold no colon, so that no turn can pass for two.

    Raises:
        BadInput: not a list of {role, text}, without turns, or the last one is empty.
    """
    if not isinstance(turns, list | tuple) or not turns:
        raise BadInput("a conversation is a list of one turn or more", value=turns, next_step=_SHAPE)
    lines = [_turn(turn, place) for place, turn in enumerate(turns)]
    role, text = lines[-1]
    if not text:
        raise BadInput("the last turn has no text", value=role, next_step="Leave it out, or give its text")
    return "\n".join(f"{role}: {text}" for role, text in lines)


def text_hash(given: Input) -> str:
    """SHA-256 in hex: of a text itself, or of a pair as a JSON list."""
    text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def as_one_text(given: Input) -> str:
    """Both parts of a pair below each other; what compares texts reads this."""
    return given if isinstance(given, str) else "\n".join(given)


_SHAPE = 'Send [{"role": "user", "text": "..."}, ...], oldest first'


def _conversation(field: str, raw: object) -> str:
    if isinstance(raw, Mapping):
        given = {name: value for name, value in raw.items() if value is not None}
        raw = _only(given, TURNS if TURNS in given else field)
    if isinstance(raw, str):
        raw = [{"role": _USER, "text": raw}]
    return render_turns(raw)


def _turn(turn: object, place: int) -> tuple[str, str]:
    if not isinstance(turn, Mapping) or {name for name, value in turn.items() if value is not None} != {"role", "text"}:
        raise BadInput(f"turn {place + 1} is not an object with role and text", value=turn, next_step=_SHAPE)
    role, text = turn["role"], turn["text"]
    if not isinstance(role, str) or not isinstance(text, str):
        raise BadInput(f"role and text of turn {place + 1} are not both texts", value=turn, next_step=_SHAPE)
    role = role.strip().lower()
    if not role or ":" in role or _LINE_BREAK.search(role):
        raise BadInput(
            f"the role of turn {place + 1} cannot be used",
            value=turn["role"],
            next_step="A role has a letter or more, no colon and no line break, such as user or assistant",
        )
    return role, _LINE_BREAK.sub(" ", text).strip()


def _pair(first: str, second: str, raw: object) -> tuple[str, str]:
    if isinstance(raw, Mapping):
        _refuse_others(raw, (first, second))
        parts: Sequence[object] = (raw.get(first), raw.get(second))
    elif isinstance(raw, tuple) and len(raw) == 2:
        parts = raw
    else:
        raise BadInput(
            f"the task reads two texts, {first} and {second}",
            value=raw,
            next_step=f'Send {{"{first}": "...", "{second}": "..."}}',
        )
    return _text(parts[0], first), _text(parts[1], second)


def _only(raw: Mapping[str, object], field: str) -> object:
    _refuse_others(raw, (field,))
    return raw.get(field)


def _refuse_others(raw: Mapping[str, object], fields: tuple[str, ...]) -> None:
    others = [name for name, value in raw.items() if name not in fields and value is not None]
    if others:
        raise BadInput(
            "the task reads no such part of an input",
            value=", ".join(map(str, others)),
            next_step=f"Its inputs have {' and '.join(fields)}",
        )


def _text(value: object, field: str) -> str:
    if value is None:
        raise BadInput(f"no {field}", next_step=f"Give the {field}")
    if not isinstance(value, str):
        raise BadInput(f"the {field} is of type {type(value).__name__}", value=value, next_step="Give text")
    if not value or value.isspace():
        raise BadInput(f"the {field} is empty", value=value, next_step=f"Give the {field} a letter or more")
    return value
