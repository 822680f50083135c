"""Files of the user's below a workspace that hold something that is to go: exports, copies of what was imported, notes.

Tables and JSON are compared value by value, so that a short name finds no longer word; other files by whole words. Rows
are taken out of JSON lines, CSV and TSV; another file goes as a whole. Not looked into: hidden folders, links, files
that are both large and not readable as any of these.
"""

import csv
import gzip
import html
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TextIO

from headrace.artifacts import sync
from headrace.config_sources import FILE_NAME
from headrace.registry import resolve
from headrace.workspace import Workspace

_MAX_LOOSE_BYTES = 256 << 20  # of a file without rows
_MAX_PATTERNS = 2000  # values that are searched for as words; of more, whole lines are compared
_PART = 200
_CELL_CHARS = 1 << 27


def holding(ws: Workspace, values: Collection[str]) -> list[Path]:
    """Files that hold one of the values; headrace.toml and the catalogues it names are never among them."""
    if not values:
        return []
    own = {ws.root / FILE_NAME, *(ws.root / task.catalogue for task in ws.settings.tasks.values() if task.catalogue)}
    has_one = _search(values)
    return [path for path in _files(ws.root) if path not in own and has_one(path)]


def clean(path: Path, values: Collection[str]) -> None:
    """Take the rows that hold one of the values out of a file, or the file away where it is not one of rows."""
    wanted = frozenset(values)
    try:
        rows = list(_ROWS[_kind(path)](path))
        kept = [raw for raw, inside in rows if wanted.isdisjoint(inside)]
    except (KeyError, OSError, EOFError, ValueError, csv.Error):  # no rows, or not what its name says
        path.unlink()
        return
    if len(kept) == len(rows):  # found by words: the values are not as the rows have them
        path.unlink()
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with _opened(draft, "wt") as file:
        file.writelines(kept)
    shutil.copymode(path, draft)
    sync(draft)
    os.replace(draft, path)


def _files(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder) / name
            if path.is_file() and not path.is_symlink():
                yield path


def _search(values: Collection[str]) -> Callable[[Path], bool]:
    wanted = frozenset(values)
    patterns = list(_patterns(sorted(wanted))) if len(wanted) <= _MAX_PATTERNS else []

    def has_one(path: Path) -> bool:
        kind = _kind(path)
        try:
            if kind in _ROWS:
                return any(not wanted.isdisjoint(inside) for _, inside in _ROWS[kind](path))
            return any(value in wanted for value in _VALUES[kind](path)) if kind in _VALUES else loosely(path)
        except (OSError, EOFError, ValueError, csv.Error):  # not what its name says
            return loosely(path)

    def loosely(path: Path) -> bool:
        if path.stat().st_size > _MAX_LOOSE_BYTES:
            return False
        text = html.unescape(_bytes(path).decode("utf-8", errors="replace"))
        if not wanted.isdisjoint(part.strip() for part in re.split(r"<[^<>]*>|[\r\n]+", text)):
            return True
        return any(pattern.search(text) for pattern in patterns)

    return has_one


def _patterns(values: list[str]) -> Iterator[re.Pattern[str]]:
    for start in range(0, len(values), _PART):
        part = values[start : start + _PART]
        yield re.compile("|".join(rf"(?<!\w){re.escape(one)}(?!\w)" for one in part))


def _bytes(path: Path) -> bytes:
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            return file.read()
    return path.read_bytes()


def _kind(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[2].lower()


def _opened(path: Path, mode: str) -> TextIO:
    """A text file whose line ends stay as they are."""
    open_: Any = gzip.open if path.suffix == ".gz" else open
    file: TextIO = open_(path, mode, encoding="utf-8", newline="")
    return file


def _of_json_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Each line as it is, and the texts in it."""
    with _opened(path, "rt") as file:
        for line in file:
            plain = line.strip().removeprefix("\ufeff")
            yield line, list(_leaves(json.loads(plain))) if plain else []


def _of_table(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Each row as it is, over several lines where it has them, and its cells; none of the headings."""
    csv.field_size_limit(_CELL_CHARS)
    taken: list[str] = []
    with _opened(path, "rt") as file:
        lines = (taken.append(line) or line for line in file)  # type: ignore[func-returns-value]
        for number, row in enumerate(csv.reader(lines, delimiter="\t" if ".tsv" in path.name else ",")):
            yield "".join(taken), row if number else []
            taken.clear()


def _of_json(path: Path) -> Iterator[str]:
    yield from _leaves(json.loads(_bytes(path)))


def _of_parquet(path: Path) -> Iterator[str]:
    for value in resolve("headrace.data.parquet:values_in", purpose="looking into Parquet files")(path):
        yield from _leaves(value)


def _leaves(value: Any) -> Iterator[str]:
    """Every text in a JSON value; texts that are JSON themselves are looked into."""
    if isinstance(value, str):
        yield value
        if value[:1] in ("{", "["):
            try:
                yield from _leaves(json.loads(value))
            except ValueError:
                return
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _leaves(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner)


_ROWS: dict[str, Callable[[Path], Iterator[tuple[str, list[str]]]]] = {
    "jsonl": _of_json_lines,
    "ndjson": _of_json_lines,
    "csv": _of_table,
    "tsv": _of_table,
}
_VALUES: dict[str, Callable[[Path], Iterator[str]]] = {"json": _of_json, "parquet": _of_parquet}
