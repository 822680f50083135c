"""The file that is written: CSV, JSON lines or Parquet, by its suffix; first in parts, then as one.

What a format has no values for (an object in a cell of a table) is written as JSON text.
"""

import base64
import csv
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from headrace import cells
from headrace.errors import BadInput
from headrace.offline.naming import FORMATS, PREFIX, suffixes
from headrace.offline.table import Table
from headrace.registry import resolve

_TARGETS = {
    "csv": "headrace.offline.formats:Csv",
    "jsonl": "headrace.offline.formats:Jsonl",
    "parquet": "headrace.offline.parquet:Parquet",
}

_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)

Line = Mapping[str, Any]
"""A row of the source with its answer: column to value."""


class Format(Protocol):
    """One way to write rows with answers."""

    def __init__(self, path: Path, table: Table) -> None: ...

    def write(self, path: Path, lines: Sequence[Line], answer_names: Sequence[str]) -> None:
        """Write one part."""
        ...

    def join(self, parts: Sequence[Path], whole: Path, answer_names: Sequence[str]) -> None:
        """Make one file of the parts, in memory that does not grow with them."""
        ...


def format_of(path: Path, table: Table) -> Format:
    """The format of a file to be written.

    Raises:
        BadInput: no format has that suffix.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise BadInput("the format is not clear from the name", value=str(path), next_step=f"Known: {suffixes()}")
    made: Format = resolve(_TARGETS[kind], purpose="a Parquet file")(path, table)
    return made


class Csv:
    """Delimited text with a header, quoted as RFC 4180 says; tabs for .tsv and .tab."""

    def __init__(self, path: Path, table: Table) -> None:
        self._delimiter = "," if path.suffix.lower() == ".csv" else "\t"
        self._names = table.names

    def write(self, path: Path, lines: Sequence[Line], answer_names: Sequence[str]) -> None:
        names = self._all_names(answer_names)
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=self._delimiter).writerows([_cell(line.get(n)) for n in names] for line in lines)

    def join(self, parts: Sequence[Path], whole: Path, answer_names: Sequence[str]) -> None:
        with whole.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=self._delimiter).writerow(map(_cell, self._all_names(answer_names)))
        _append(parts, whole)

    def _all_names(self, answer_names: Sequence[str]) -> list[str]:
        return [*self._names, *(f"{PREFIX}{name}" for name in answer_names)]


class Jsonl:
    """One object per line."""

    def __init__(self, path: Path, table: Table) -> None:
        pass

    def write(self, path: Path, lines: Sequence[Line], answer_names: Sequence[str]) -> None:
        with path.open("w", encoding="utf-8") as file:
            file.writelines(json_text(line) + "\n" for line in lines)

    def join(self, parts: Sequence[Path], whole: Path, answer_names: Sequence[str]) -> None:
        whole.write_bytes(b"")
        _append(parts, whole)


def json_text(value: object, *, ascii_only: bool = False) -> str:
    """JSON, with what it has no values for as text: dates in ISO 8601, bytes in base 64."""
    return (_ASCII if ascii_only else _UNICODE).encode(value)


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)


_ASCII, _UNICODE = (json.JSONEncoder(ensure_ascii=ascii_only, default=_as_text) for ascii_only in (True, False))


def _cell(value: object) -> object:
    """A value of a table; text that a spreadsheet would take for a formula has a quote before it, numbers do not."""
    if isinstance(value, str):
        return value if _NUMBER.fullmatch(value) else cells.safe(value)
    if value is None:
        return value
    if isinstance(value, bool | int | float | dict | list | tuple):
        return json_text(value)
    return cells.safe(_as_text(value))


def _append(parts: Sequence[Path], whole: Path) -> None:
    with whole.open("ab") as file:
        for part in parts:
            with part.open("rb") as piece:
                shutil.copyfileobj(piece, file)
