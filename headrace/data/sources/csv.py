"""CSV and TSV files in UTF-8, with a header line.

Quoting follows RFC 4180 strictly: a quote that is opened and never closed properly spoils its own line, not the rest of
the file.
"""

import codecs
import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from headrace.data.sources import Columns, Options, columns_in, file_at
from headrace.errors import BadInput, Unusable
from headrace.records import RawRow

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_MAX_LINE_CHARS = 1 << 22
_DEFAULT_FIELD_CHARS = 131_072  # csv's own field_size_limit


class Csv:
    """Delimited text. The delimiter follows the suffix, unless the header says otherwise."""

    @staticmethod
    def looks_like(location: str) -> bool:
        return "://" not in location and Path(location).suffix.lower() in _DELIMITERS

    @staticmethod
    def read(location: str, options: Options) -> Iterator[RawRow]:
        path = file_at(location)
        csv.field_size_limit(max(_DEFAULT_FIELD_CHARS, 8 * options.max_chars, csv.field_size_limit()))
        try:
            _refuse_utf16(path)
            # surrogateescape: a wrong byte spoils its own row, which cannot be encoded later, and no other
            with path.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                yield from _rows(file, path, options)
        except OSError as error:
            raise Unusable(f"the file cannot be read: {error.strerror}", value=location, next_step="Check it") from None


class _Lines:
    """Feeds lines to csv.reader, and remembers those of the record being read so that they can be read again."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._again: deque[str] = deque()
        self.record: list[str] = []
        self.n_done = 0
        """Lines of the records before this one."""
        self.too_long = ""
        """How the record's over-long line begins, if it has one."""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._file.readline(_MAX_LINE_CHARS)
        if not line:
            raise StopIteration
        if len(line) == _MAX_LINE_CHARS and line[-1] not in "\r\n":
            self.too_long = line[:1000]
            self._skip_rest()
            line = "\n"
        self.record.append(line)
        return line

    def next_record(self) -> None:
        self.n_done += len(self.record)
        self.record = []
        self.too_long = ""

    def only_first_is_spoilt(self) -> None:
        """Give the record's lines after the first back, to be read as records of their own."""
        self._again.extendleft(reversed(self.record[1:]))
        self.n_done += 1
        self.record = []

    def _skip_rest(self) -> None:
        while (more := self._file.readline(_MAX_LINE_CHARS)) and more[-1] not in "\r\n":
            pass


def _rows(file: TextIO, path: Path, options: Options) -> Iterator[RawRow]:
    lines = _Lines(file)
    delimiter = _delimiter(file, path, options)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = _header(reader, lines, path)
    columns = columns_in(header, options, nested=False)
    if options.keeps_values:
        _refuse_same_names(header, path)
    text, pair, label, key, group = _places(header, columns)
    width = len(header)
    while True:
        lines.next_record()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield _unreadable(lines, str(error))
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            continue
        line = lines.n_done + 1
        if lines.too_long:
            yield _too_long(lines)
        elif len(values) == width:
            yield RawRow(
                line,
                values[text],
                values[label] if label is not None else None,
                values[key] if key is not None else None,
                values[group] if group is not None else None,
                text_pair=values[pair] if pair is not None else None,
                values=dict(zip(header, values, strict=True)) if options.keeps_values else None,
            )
        elif values:
            detail = f"{len(values)} fields, the header has {width}"
            yield RawRow(line, delimiter.join(values), error="unreadable", detail=detail)


def _header(reader: Iterator[list[str]], lines: _Lines, path: Path) -> list[str]:
    """The first line that is not empty."""
    try:
        while not (header := next(reader)):
            if lines.too_long:
                raise BadInput(
                    f"the header has more than {_MAX_LINE_CHARS:,} characters",
                    value=f"{lines.too_long[:40]}...",
                    next_step="Give a file with a line of column names first",
                )
            lines.next_record()
    except StopIteration:
        raise BadInput("the file is empty", value=str(path), next_step="Give a file with a header and rows") from None
    except csv.Error as error:
        raise BadInput(f"the header cannot be read: {error}", value=str(path), next_step="Correct line 1") from None
    return [name.strip() for name in header]


def _refuse_same_names(header: list[str], path: Path) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise BadInput(f"two columns are called {twice[0]!r}", value=str(path), next_step="Give each a name of its own")


def _places(header: list[str], columns: Columns) -> tuple[int, int | None, int | None, int | None, int | None]:
    place = {name: i for i, name in reversed(list(enumerate(header)))}
    wanted = (columns.pair, columns.label, columns.id, columns.group)
    pair, label, key, group = (None if column is None else place[column] for column in wanted)
    return place[columns.text], pair, label, key, group


def _too_long(lines: _Lines) -> RawRow:
    detail = f"over {_MAX_LINE_CHARS} characters in a line"
    return RawRow(lines.n_done + 1, lines.too_long, error="too_long", detail=detail)


def _unreadable(lines: _Lines, problem: str) -> RawRow:
    if lines.too_long:
        return _too_long(lines)
    first, n_lines = lines.n_done + 1, len(lines.record)
    raw = lines.record[0] if lines.record else ""
    if n_lines > 1:
        problem = "a quote is opened here and not closed properly"
    lines.only_first_is_spoilt()
    return RawRow(first, raw, error="unreadable", detail=problem)


def _delimiter(file: TextIO, path: Path, options: Options) -> str:
    """The suffix's delimiter, or another one that finds the text column in the first line."""
    first = file.readline(_MAX_LINE_CHARS)
    file.seek(0)
    usual = _DELIMITERS.get(path.suffix.lower(), ",")
    for delimiter in dict.fromkeys((usual, ",", "\t", ";", "|")):
        try:
            header = next(csv.reader([first], delimiter=delimiter), [])
        except csv.Error:
            continue
        if options.text in [name.strip() for name in header]:
            return delimiter
    return usual


def _refuse_utf16(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(2)
    if head in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise BadInput("the file is UTF-16, not UTF-8", value=str(path), next_step="Run: iconv -f UTF-16 -t UTF-8")
