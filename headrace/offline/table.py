"""The file that is answered: its columns, its rows one by one, and the hash that says whether it is still the same."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headrace.data.importing import with_parts
from headrace.data.sources import SOURCES, Options, Source, file_at
from headrace.errors import BadInput, WrongState
from headrace.offline.naming import FORMATS, PREFIX, suffixes
from headrace.records import RawRow
from headrace.registry import resolve
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

_MAX_COLUMNS = 10_000
_INT64 = 1 << 63


@dataclass(frozen=True)
class Table:
    """One file of rows. `kinds` are its columns in order, each with the kind of its values: text, integer, number,
    truth or json; of a Parquet file it is empty, since `schema` says more.
    """

    path: Path
    source: Source
    options: Options
    digest: str
    stat: tuple[int, int]
    n_rows: int
    """Of CSV an estimate: its lines but one."""
    kinds: Mapping[str, str]
    schema: Any = None

    @property
    def names(self) -> list[str]:
        return list(self.kinds) if self.schema is None else list(self.schema.names)

    def rows(self) -> Iterator[RawRow]:
        return self.source.read(str(self.path), self.options)

    def refuse_if_changed(self) -> None:
        """Raises WrongState when the file is not the one that was opened."""
        if _stat(self.path) != self.stat:
            raise WrongState(
                "the file changed while it was read", value=str(self.path), next_step="Run it again, from its beginning"
            )


def open_table(ws: Workspace, task: str, path: Path, *, text_column: str | None, pair_column: str | None) -> Table:
    """Look through a file: its hash, its columns, how many rows it has.

    Raises:
        NotFound: no such file.
        BadInput: a suffix that no format has, no text column, or columns that are called like those of answers.
        MissingExtra: a Parquet file, and pyarrow is not installed.
    """
    file_at(str(path))
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise BadInput("the format is not clear from the name", value=str(path), next_step=f"Known: {suffixes()}")
    settings = ws.task(task)
    task_type: TaskType = TASK_TYPES.get(settings.type)(settings)
    named = Options(label="", id="", group="", keeps_values=True, max_chars=ws.settings.data.max_chars)
    options = with_parts(named, settings, task_type.fields, text_column, pair_column)
    stat = _stat(path)
    digest, n_lines = _looked_through(path)
    table = Table(path, SOURCES.get(kind), options, digest, stat, max(n_lines - 1, 0), {})
    if kind == "parquet":
        schema, n_rows = resolve("headrace.offline.parquet:facts_of", purpose="a Parquet file")(path)
        table = replace(table, schema=schema, n_rows=n_rows)
    elif kind == "jsonl":
        kinds, n_rows = _kinds(table)
        table = replace(table, kinds=kinds, n_rows=n_rows)
    else:
        header = next((row.values for row in table.rows() if row.values is not None), {})
        table = replace(table, kinds=dict.fromkeys(header, "text"))
    taken = [name for name in table.names if name.startswith(PREFIX)]
    if taken:
        raise BadInput(
            f"columns that begin with {PREFIX} are for the answers", value=taken, next_step="Rename them in the file"
        )
    return table


def _stat(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _looked_through(path: Path) -> tuple[str, int]:
    """SHA-256 and number of line ends."""
    digest, n_lines, last = hashlib.sha256(), 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            n_lines += block.count(b"\n")
            last = block[-1:]
    return f"sha256:{digest.hexdigest()}", n_lines + (last != b"\n")


def _kinds(table: Table) -> tuple[dict[str, str], int]:
    """Columns of JSON lines, which only all lines together know, and the number of rows."""
    types: dict[str, set[type]] = {}
    n_rows = 0
    for row in table.rows():
        n_rows += 1
        for name, value in (row.values or {}).items():
            huge = type(value) is int and not -_INT64 <= value < _INT64
            types.setdefault(name, set()).add(object if huge else type(value))
        if len(types) > _MAX_COLUMNS:
            raise BadInput(
                f"over {_MAX_COLUMNS} different columns",
                value=str(table.path),
                next_step="Put what varies into one column, as an object",
            )
    return {name: _kind(found - {type(None)}) for name, found in types.items()}, n_rows


def _kind(types: set[type]) -> str:
    if types <= {str}:
        return "text"
    if types <= {bool}:
        return "truth"
    if types <= {int}:
        return "integer"
    return "number" if types <= {int, float} else "json"
