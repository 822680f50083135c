"""Files of the user's below a workspace that hold something that is to go: exports, copies of what was imported, notes.

Texts and names of twelve characters or more are found anywhere. A shorter one may stand for anything: it counts only as
a whole value of a table or of JSON, where that is called a text, a unit, a labeller or a comment. Rows are taken out of
JSON lines, CSV and TSV; another file goes as a whole. Not looked into: hidden folders, links, and large files that are
none of these.
"""

import csv
import gzip
import html
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TextIO

from headrace.artifacts import sync
from headrace.config_sources import FILE_NAME
from headrace.registry import resolve
from headrace.workspace import Workspace

_MAX_LOOSE_BYTES = 64 << 20  # of a file without rows
_CELL_CHARS = 1 << 27
_LONG_CHARS = 12  # of a value that means itself wherever it stands
_OWN_NAMES = {"text", "text_pair", "premise", "hypothesis", "question", "context", "unit", "labeller", "comment"}
"""What exports of headrace and the files it imports call what a short value may be."""
_FORMS: tuple[Callable[[str], str], ...] = (
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: repr(text)[1:-1],
    lambda text: text.replace('"', '""'),
    html.escape,
)
"""How files of other kinds write a text."""
_NOT_WHAT_IT_SAYS = (OSError, EOFError, ValueError, csv.Error)  # of a file whose name says something else


@dataclass(frozen=True)
class Search:
    """What files are searched for."""

    short: frozenset[str]
    long: Mapping[str, tuple[str, ...]]
    """By their first characters, as they are and as other formats write them."""

    def finds(self, values: Iterable[tuple[str, str]]) -> bool:
        """Whether some values, each with what it is called, hold something that is looked for."""
        return any((name in _OWN_NAMES and value in self.short) or self.is_in(value) for name, value in values)

    def is_in(self, text: str) -> bool:
        """Whether a longer value is somewhere in a text."""
        return any(
            text.startswith(self.long[begin], i)
            for i in range(len(text) - _LONG_CHARS + 1)
            if (begin := text[i : i + _LONG_CHARS]) in self.long
        )


def search_for(values: Iterable[str]) -> Search:
    """A search for texts and names."""
    short, long = set[str](), dict[str, tuple[str, ...]]()
    for value in {one for one in values if one.strip()}:
        if len(value) < _LONG_CHARS:
            short.add(value)
        else:
            for form in {value, *(write(value) for write in _FORMS)}:
                begin = form[:_LONG_CHARS]
                long[begin] = (*long.get(begin, ()), form)
    return Search(frozenset(short), long)


def holding(ws: Workspace, search: Search) -> list[Path]:
    """Files that hold something of it; headrace.toml and the catalogues it names are never among them."""
    if not search.long and not search.short:
        return []
    own = {ws.root / FILE_NAME, *(ws.root / task.catalogue for task in ws.settings.tasks.values() if task.catalogue)}
    return [path for path in _files(ws.root) if path not in own and _holds(path, search)]


def clean(path: Path, search: Search) -> None:
    """Take the rows that hold something of it out of a file, or the file away where it is not one of rows."""
    kept, n_rows = list[str](), 0
    try:
        for raw, inside in _ROWS[_kind(path)](path):
            n_rows += 1
            if not search.finds(inside):
                kept.append(raw)
    except (KeyError, *_NOT_WHAT_IT_SAYS):  # no file of rows
        n_rows = len(kept)
    if len(kept) == n_rows:
        path.unlink()
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}.gz" if path.suffix == ".gz" else f".{path.name}.{os.getpid()}")
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


def _holds(path: Path, search: Search) -> bool:
    kind = _kind(path)
    try:
        if kind in _ROWS:
            return any(search.finds(inside) for _, inside in _ROWS[kind](path))
        if kind in _VALUES:
            return search.finds(_VALUES[kind](path))
    except _NOT_WHAT_IT_SAYS:
        pass
    return path.stat().st_size <= _MAX_LOOSE_BYTES and search.is_in(_bytes(path).decode("utf-8", errors="replace"))


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


def _of_json_lines(path: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each line as it is, and the values in it."""
    with _opened(path, "rt") as file:
        for line in file:
            plain = line.strip().removeprefix("\ufeff")
            yield line, list(_leaves(json.loads(plain))) if plain else []


def _of_table(path: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each row as it is, over several lines where it has them, and its cells under their headings."""
    csv.field_size_limit(_CELL_CHARS)
    with _opened(path, "rt") as file:
        lines = _Kept(file)
        rows = csv.reader(lines, delimiter="\t" if ".tsv" in path.name else ",")
        headings = next(rows, [])
        yield lines.taken(), []
        for row in rows:
            yield lines.taken(), list(zip_longest(headings[: len(row)], row, fillvalue=""))


class _Kept:
    """Lines that remember what was read of them."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines, self._read = iter(lines), list[str]()

    def __iter__(self) -> "_Kept":
        return self

    def __next__(self) -> str:
        self._read.append(next(self._lines))
        return self._read[-1]

    def taken(self) -> str:
        """What was read since the last call."""
        text = "".join(self._read)
        self._read.clear()
        return text


def _of_json(path: Path) -> Iterator[tuple[str, str]]:
    yield from _leaves(json.loads(_bytes(path)))


def _of_parquet(path: Path) -> Iterator[tuple[str, str]]:
    for name, value in resolve("headrace.data.parquet:values_in", purpose="looking into Parquet files")(path):
        yield from _leaves(value, name)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a JSON value with the key above it; texts that are JSON themselves are looked into."""
    if isinstance(value, str):
        yield name, value
        if value[:1] in ("{", "["):
            with suppress(ValueError):
                yield from _leaves(json.loads(value), name)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield "", str(key)
            yield from _leaves(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _leaves(inner, name)


_ROWS: dict[str, Callable[[Path], Iterator[tuple[str, list[tuple[str, str]]]]]] = {
    "jsonl": _of_json_lines,
    "ndjson": _of_json_lines,
    "csv": _of_table,
    "tsv": _of_table,
}
_VALUES: dict[str, Callable[[Path], Iterator[tuple[str, str]]]] = {"json": _of_json, "parquet": _of_parquet}
