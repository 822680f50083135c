"""Files of the user's below a workspace that hold something that is to go: exports, copies of what was imported, notes.

What is found there, `searching` says; reports of headrace are searched for every name, also as a word. Rows are taken
out of JSON lines, CSV and TSV; another file goes as a whole. Not looked into: hidden folders, links, and large files
that are none of these.
"""

import csv
import gzip
import html
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any, TextIO

from headrace.artifacts import sync
from headrace.config_sources import FILE_NAME
from headrace.lineage.searching import Search
from headrace.registry import resolve
from headrace.workspace import Workspace

_MAX_LOOSE_BYTES = 64 << 20  # of a file without rows
_REPORT = ": headrace report</title>"  # as headrace/console/report.py writes it
_MARKUP = re.compile(r"<style>.*?</style>|<[^>]+>", re.DOTALL)
_CELL_CHARS = 1 << 27
_NOT_WHAT_IT_SAYS = (OSError, EOFError, ValueError, csv.Error)  # of a file whose name says something else


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
    if path.stat().st_size > _MAX_LOOSE_BYTES:
        return False
    text = _bytes(path).decode("utf-8", errors="replace")
    return search.is_in(text) or (_REPORT in text and _names_somebody(text, search))


def _names_somebody(report: str, search: Search) -> bool:
    plain = html.unescape(_MARKUP.sub(" ", report))
    return search.without_names(plain) != plain


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
