"""Where rows come from. One file each, with `read`; `open_source` picks one by what the location looks like.

To add one: copy jsonl.py; yield RawRow for every row, also for those that cannot be read (`error` says why); add its
line to SOURCES. The conformance tests find it through the table.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from headrace.errors import BadInput, NotFound, nearest
from headrace.records import RawLabel, RawRow
from headrace.registry import Registry

SOURCES = Registry(
    "sources",
    {
        "csv": "headrace.data.sources.csv:Csv",
        "conll": "headrace.data.sources.conll:Conll",
        "label-studio": "headrace.data.sources.label_studio:LabelStudio",
        "squad": "headrace.data.sources.squad:Squad",
        "jsonl": "headrace.data.sources.jsonl:Jsonl",
        "parquet": "headrace.data.sources.parquet:Parquet",
        "hf": "headrace.data.sources.hf:HuggingFaceDataset",
        "sql": "headrace.data.sources.sql:Sql",
    },
)
LABELS_COLUMN = "labels"
"""Column of JSONL, Parquet and Hugging Face rows with the labels of single labellers."""
TURNS_COLUMN = "turns"
"""Column of such rows with conversations, lists of {role, text}."""


@dataclass(frozen=True)
class Options:
    """Which columns mean what; an empty name means that there is none."""

    text: str = "text"
    label: str = "label"
    id: str = "id"
    group: str = "group"
    query: str | None = None
    max_chars: int = 20_000
    """The longest text that will be kept; sources bound their memory by it."""
    pair: str = ""
    """The second part of inputs with two."""
    takes_turns: bool = False
    """Whether TURNS_COLUMN may stand for the text where that is not there."""
    keeps_values: bool = False
    """Whether rows carry all their columns, and `labels` is a column like any other."""


class Source(Protocol):
    """One way to get rows."""

    @staticmethod
    def looks_like(location: str) -> bool:
        """Whether a location is this source's, without reading it."""
        ...

    @staticmethod
    def read(location: str, options: Options) -> Iterator[RawRow]:
        """Every row, in order and as it comes, in bounded memory. A row that cannot be read has `error`.

        Raises:
            UserError: the location as a whole cannot be read.
        """
        ...


@dataclass(frozen=True)
class Columns:
    """The columns of a source that are used; None where it has no such column."""

    text: str
    label: str | None
    id: str | None
    group: str | None
    labels: str | None
    pair: str | None = None

    def used(self) -> list[str]:
        return list(dict.fromkeys(name for name in vars(self).values() if name is not None))


def open_source(location: str, *, format: str | None = None) -> Source:
    """The source of a location, by its looks or by name.

    Raises:
        BadInput: no source knows such a location.
        NotFound: no source has that name.
    """
    if format is not None:
        source: Source = SOURCES.get(format)
        return source
    for name in SOURCES.targets():  # in the table's order: what looks into a file comes before what goes by its name
        candidate: Source = SOURCES.get(name)
        if candidate.looks_like(location):
            return candidate
    known = ", ".join(SOURCES.names())
    if "://" not in location:
        path = Path(location)
        if not path.exists():
            raise NotFound("no such file or directory", value=location, next_step="Check the path")
        if path.is_dir():
            raise BadInput("a directory, where a file is expected", value=location, next_step="Name a file inside it")
    raise BadInput("the format is not clear from the name", value=location, next_step=f"Give --format, one of: {known}")


def shown(location: str) -> str:
    """A location without the password that a database URL may hold."""
    return re.sub(r"(://[^:/@]*:)[^@/]*@", r"\1***@", location)


def file_at(location: str) -> Path:
    """The path of a file that is there.

    Raises:
        NotFound: nothing is there.
        BadInput: a directory, or no file at all.
    """
    path = Path(location)
    if not path.exists():
        raise NotFound("no such file", value=location, next_step="Check the path")
    if path.is_dir():
        raise BadInput("a directory, where a file is expected", value=location, next_step="Name a file inside it")
    return path


def columns_in(found: Sequence[str], options: Options, *, nested: bool = True) -> Columns:
    """Match the wanted columns with those that a source has.

    A default name that is not there is passed over, except where that would pass over labels silently: the label
    column may be missing only when every column is accounted for.

    Args:
        nested: whether the source can hold single labellers' labels in `labels`.

    Raises:
        BadInput: a column is missing; the message names those there are.
    """
    default = Options()
    there = set(found)
    text = TURNS_COLUMN if nested and options.takes_turns and options.text not in there else options.text
    if text not in there:
        raise _missing("text", options.text, found)
    if options.pair and options.pair not in there:
        raise _missing("pair", options.pair, found)
    chosen: dict[str, str | None] = {}
    for role in ("id", "group"):
        name = getattr(options, role)
        if name and name not in there and name != getattr(default, role):
            raise _missing(role, name, found)
        chosen[role] = name if name in there else None
    takes_labels = nested and not options.keeps_values and options.label != LABELS_COLUMN
    labels = LABELS_COLUMN if takes_labels and LABELS_COLUMN in there else None
    unused = there - {text, options.pair, *chosen.values(), labels}
    if options.label and options.label not in there and (options.label != default.label or (unused and not labels)):
        raise _missing("label", options.label, found)
    label = options.label if options.label in there else None
    pair = options.pair or None
    return Columns(text=text, label=label, id=chosen["id"], group=chosen["group"], labels=labels, pair=pair)


def _missing(role: str, name: str, found: Sequence[str]) -> BadInput:
    hint = nearest(name, list(found))
    columns = ", ".join(found) or "none"
    shown = hint if hint.startswith("Did") else f"Name it with --{role}."
    unlabelled = ' For rows without labels: --label ""' if role == "label" else ""
    return BadInput(f"no column {name!r} for the {role}", value=f"columns: {columns}", next_step=f"{shown}{unlabelled}")


def row_of(line: int, values: Mapping[str, Any], columns: Columns, *, keeps_values: bool = False) -> RawRow:
    """A RawRow from a mapping of column to value."""
    try:
        labels = raw_labels(values.get(columns.labels)) if columns.labels else ()
    except ValueError as error:
        return RawRow(line, values.get(columns.text), error="unreadable", detail=str(error))
    key = values.get(columns.id) if columns.id else None
    group = values.get(columns.group) if columns.group else None
    return RawRow(
        line,
        values.get(columns.text),
        values.get(columns.label) if columns.label else None,
        None if key is None else str(key),
        None if group is None else str(group),
        labels,
        text_pair=values.get(columns.pair) if columns.pair else None,
        values=values if keeps_values else None,
    )


def raw_labels(value: object) -> tuple[RawLabel, ...]:
    """Single labellers' labels from `[{"labeller", "label", "score"?}]`.

    Raises:
        ValueError: of another shape.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise ValueError('labels must be a list of {"labeller", "label"}')
    found = []
    for item in value:
        if not isinstance(item, dict) or item.get("labeller") in (None, "") or item.get("label") is None:
            raise ValueError('each of labels must have "labeller" and "label"')
        score = item.get("score")
        if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
            raise ValueError("a labeller's score must be a number")
        found.append(RawLabel(str(item["labeller"]), item["label"], None if score is None else float(score)))
    return tuple(found)
