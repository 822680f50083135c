"""One raw row at a time: what it says, or why it goes to quarantine. No I/O."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from headrace.config import TaskTable
from headrace.errors import BadInput
from headrace.personal.mapping import Kept, kept_of
from headrace.personal.places import moved_target
from headrace.personal.policies import Cleaned, Door
from headrace.records import Input, RawLabel, RawRow
from headrace.store.imports import Quarantined
from headrace.tasks import TaskType
from headrace.tasks.inputs import parse_input, text_hash

T = TypeVar("T")
MAX_KEY_CHARS = 200  # columns `key` and `group_key` of the store
_MAX_RAW_CHARS = 200
_MAX_CACHED_LABELS = 10_000
_POINTING = (
    "token_classification",
    "question_answering",
)  # problems whose labels say something of their own input only


class Checked(NamedTuple):
    """A row that can be kept. `target` is None for a row without a label of its own."""

    key: str
    line: int
    text: str
    text_hash: str
    group_key: str
    has_id: bool
    target: Any
    labels: dict[str, tuple[Any, float | None]]
    """Labeller to (target, score)."""
    text_pair: str | None = None


class _RefusedError(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail


@dataclass
class Checker:
    """Checks rows of one channel for one task; remembers labels that it has parsed."""

    channel: str | None
    """None: of no one channel."""
    task: TaskTable
    task_type: TaskType
    max_chars: int
    door: Door

    def __post_init__(self) -> None:
        self.kept: list[Kept] = []
        """What was replaced in rows checked since somebody took it, where that is kept."""
        self._targets: dict[str, Any] = {}
        self._is_looked_at = self.door.policy(self.channel) != "off"
        self._points = self.task_type.problem in _POINTING
        self._is_plain = self.task.input == "text" and len(self.task_type.fields) == 1

    def check(self, row: RawRow) -> Checked | Quarantined:
        return self._or_why_not(row, self._checked)

    def check_input(self, row: RawRow) -> Input | Quarantined:
        """What the model reads, whatever labels the row has."""
        return self._or_why_not(row, self._storable_input)

    def _or_why_not(self, row: RawRow, checked: Callable[[RawRow], T]) -> T | Quarantined:
        if row.error is not None:
            return self.aside(row.line, row.error, row.detail, row.text)
        try:
            return checked(row)
        except _RefusedError as refused:
            return self.aside(row.line, refused.reason, refused.detail, row.text)
        except UnicodeEncodeError as error:
            detail = f"not UTF-8 at character {error.start + 1}: {error.object[error.start : error.start + 1]!r}"
            return self.aside(row.line, "wrong_encoding", detail, row.text)

    def aside(self, line: int, reason: str, detail: str, raw: object) -> Quarantined:
        """A quarantined row that says nothing personal."""
        return put_aside(line, reason, self.door.shown(detail), self.door.shown(_as_text(raw)))

    def _checked(self, row: RawRow) -> Checked:
        given = self._input(row)
        kept, became = self._cleaned(given)
        text, text_pair = (kept, None) if isinstance(kept, str) else kept
        digest = text_hash(kept)
        key = self._key(row.key) if row.key is not None else None
        group = digest if key is None else f"{self.channel}:{key}"
        if row.group is not None and row.group.strip():
            group = f"{self.channel}#{_storable(self._name(row.group.strip()), 'group')}"
        if len(group) > MAX_KEY_CHARS:
            group = text_hash(group)
        target = self._target(row.label, given, became) if row.label is not None else None
        labels = self._labels(row.labels, given, became) if row.labels else {}
        if became and self.door.keeps(self.channel):
            self.kept += kept_of(digest, became)
        return Checked(key or digest, row.line, text, digest, group, key is not None, target, labels, text_pair)

    def _cleaned(self, given: Input) -> tuple[Input, tuple[Cleaned, ...]]:
        """An input without what is personal in it, and what became of its parts; none: it is as it was."""
        if not self._is_looked_at:
            return given, ()
        try:
            kept, became = self.door.input(self.channel, given)
        except BadInput as error:
            raise _RefusedError("personal_data", str(error)) from None
        return kept, became if kept != given else ()

    def _name(self, name: str) -> str:
        return self.door.name(self.channel, name) if self._is_looked_at else name

    def _labels(
        self, raw: Sequence[RawLabel], given: Input, became: tuple[Cleaned, ...]
    ) -> dict[str, tuple[Any, float | None]]:
        return {_labeller(self._name(one.labeller)): (self._needed(one.label, given, became), one.score) for one in raw}

    def _storable_input(self, row: RawRow) -> Input:
        given = self._input(row)
        if isinstance(given, str):
            given.encode()  # so that a wrong byte is found here
        return self._cleaned(given)[0]

    def _input(self, row: RawRow) -> Input:
        text = row.text
        if self._is_plain and isinstance(text, str) and self._is_sound(text):  # most rows
            return text
        fields = self.task_type.fields
        raw = text if len(fields) == 1 else dict(zip(fields, (text, row.text_pair), strict=True))
        try:
            given = parse_input(self.task, fields, raw)
        except BadInput as error:
            raise _RefusedError("bad_turns" if isinstance(text, list) else "missing_text", str(error)) from None
        for part in (given,) if isinstance(given, str) else given:
            self._check_part(part)
            part.encode()  # here, so that a wrong byte is counted within its part
        return given

    def _is_sound(self, text: str) -> bool:
        return len(text) <= self.max_chars and "\0" not in text and bool(text) and not text.isspace()

    def _check_part(self, text: str) -> None:
        if "\0" in text:
            raise _RefusedError("nul", f"a NUL character at {text.index(chr(0)) + 1}")
        if len(text) > self.max_chars:
            raise _RefusedError("too_long", f"{len(text)} characters; data.max_chars is {self.max_chars}")

    def _target(self, raw: object, given: Input, became: tuple[Cleaned, ...]) -> Any:
        """The target of a label as written, None for an empty one."""
        if not isinstance(raw, str):
            return self._parsed(raw, given, became)
        if self._points:
            return self._parsed(raw, given, became) if raw.strip() else None
        target = self._targets.get(raw)
        if target is None and raw.strip():
            target = self._parsed(raw, given, became)
            if len(self._targets) < _MAX_CACHED_LABELS:
                self._targets[raw] = target
        return target

    def _needed(self, raw: object, given: Input, became: tuple[Cleaned, ...]) -> Any:
        target = self._target(raw, given, became)
        if target is None:
            raise _RefusedError("unknown_label", "a labeller's label is empty")
        return target

    def _parsed(self, raw: object, given: Input, became: tuple[Cleaned, ...]) -> Any:
        """The target, which points into the input as it is kept."""
        try:
            if self._points:
                target = self.task_type.parse_label(raw, given)
                return moved_target(target, became[-1]) if became else target
            return self.task_type.parse_label(self.door.value(self.channel, raw), given)
        except BadInput as error:
            raise _RefusedError("unknown_label", str(error)) from None

    def _key(self, raw: str) -> str | None:
        key = self._name(raw.strip())
        if len(key) > MAX_KEY_CHARS:
            raise _RefusedError("too_long", f"the id has {len(key)} characters; the limit is {MAX_KEY_CHARS}")
        return _storable(key, "id") if key else None


def put_aside(line: int, reason: str, detail: str, raw: object) -> Quarantined:
    """A quarantined row whose strings any database can keep."""
    return Quarantined(line, reason, _clean(detail), _clean(_as_text(raw)[: _MAX_RAW_CHARS + 1]))


def _as_text(raw: object) -> str:
    return raw if isinstance(raw, str) else "" if raw is None else repr(raw)


def _clean(text: str) -> str:
    short = text if len(text) <= _MAX_RAW_CHARS else f"{text[:_MAX_RAW_CHARS]}..."
    return short.encode(errors="backslashreplace").decode().replace("\0", "\\0")


def _labeller(name: str) -> str:
    if len(name) > MAX_KEY_CHARS:
        raise _RefusedError("too_long", f"a labeller's name has {len(name)} characters; the limit is {MAX_KEY_CHARS}")
    return _storable(name, "labeller")


def _storable(text: str, what: str) -> str:
    if "\0" in text:
        raise _RefusedError("nul", f"a NUL character in the {what}")
    if not text.isascii():
        text.encode()
    return text
