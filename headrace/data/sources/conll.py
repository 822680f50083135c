"""CoNLL files: a word and its tag per line, sentences apart by empty lines; UTF-8.

The word is the first column and the tag the last, between tabs or spaces. Tags are BIO, BIOES, BILOU, IO or bare types.
A line `# id = 7` before a sentence names its id, or its group; other such lines and -DOCSTART- are passed over.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from headrace.data.sources import Options, file_at
from headrace.errors import Unusable
from headrace.records import RawRow
from headrace.tasks.spans import OUTSIDE, is_tag, joined

_SUFFIXES = {".conll", ".bio", ".iob", ".iob2"}
_MAX_LINE_BYTES = 1 << 16
_COMMENT = re.compile(r"#\s*([^\s=]+)\s*=\s*(.*)")
_BETWEEN_SENTENCES = "-DOCSTART-"


@dataclass
class _Sentence:
    """The lines of a sentence so far."""

    line: int = 0
    """Its first; 0 before there is one."""
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    n_chars: int = 0
    error: str = ""
    detail: str = ""

    def spoil(self, error: str, detail: str) -> None:
        self.error, self.detail = self.error or error, self.detail or detail


class Conll:
    """One row per sentence: its words with a space between, and the spans of its entities."""

    @staticmethod
    def looks_like(location: str) -> bool:
        return "://" not in location and Path(location).suffix.lower() in _SUFFIXES

    @staticmethod
    def read(location: str, options: Options) -> Iterator[RawRow]:
        path = file_at(location)
        try:
            with path.open("rb") as file:
                yield from _rows(file, options)
        except OSError as error:
            raise Unusable(f"the file cannot be read: {error.strerror}", value=location, next_step="Check it") from None


def _rows(file: BinaryIO, options: Options) -> Iterator[RawRow]:
    sentence = _Sentence()
    for line, raw in _lines(file):
        text = raw.decode(errors="surrogateescape").strip(" \r\n")
        if not text.strip("\t ") or text.lstrip("\t ").startswith(_BETWEEN_SENTENCES):
            if sentence.line:
                yield _row(sentence, options)
                sentence = _Sentence()
            continue
        columns = [column.strip(" ") for column in text.split("\t")] if "\t" in text else re.split(" +", text)
        if not sentence.line and (note := _note(text, columns)) is not None:
            sentence.notes |= note
            continue
        sentence.line = sentence.line or line
        if len(raw) >= _MAX_LINE_BYTES:
            sentence.spoil("too_long", f"over {_MAX_LINE_BYTES} bytes in line {line}")
        elif _is_broken(text):
            sentence.spoil("wrong_encoding", f"not UTF-8 in line {line}")
        else:
            _add(sentence, line, columns, options)
    if sentence.line:
        yield _row(sentence, options)


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(line, its bytes); of an over-long one, only the first _MAX_LINE_BYTES."""
    line = 0
    while raw := file.readline(_MAX_LINE_BYTES):
        line += 1
        yield line, raw.removeprefix(codecs.BOM_UTF8) if line == 1 else raw
        while len(raw) >= _MAX_LINE_BYTES and not raw.endswith(b"\n"):
            raw = file.readline(_MAX_LINE_BYTES)


def _note(text: str, columns: list[str]) -> dict[str, str] | None:
    """What a line before a sentence says of it; None for a word and its tag, which may begin with # as well."""
    if not text.startswith("#"):
        return None
    if found := _COMMENT.fullmatch(text):
        return {found[1]: found[2].strip()}
    return None if len(columns) < 2 or is_tag(columns[-1]) or len(columns[0]) > 1 else {}


def _is_broken(text: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in text)


def _add(sentence: _Sentence, line: int, columns: list[str], options: Options) -> None:
    """One word and its tag. A sentence that cannot be kept stops growing."""
    sentence.n_chars += len(columns[0]) + 1
    if sentence.n_chars > options.max_chars + 1:
        sentence.spoil("too_long", f"over {options.max_chars} characters in the sentence at line {sentence.line}")
    elif not columns[0]:
        sentence.spoil("unreadable", f"no word in line {line}")
    elif len(columns) < 2 and options.label:
        sentence.spoil("unreadable", f"no tag in line {line}")
    else:
        sentence.words.append(columns[0])
        sentence.tags.append(columns[-1] if options.label else OUTSIDE)


def _row(sentence: _Sentence, options: Options) -> RawRow:
    try:
        text, spans = joined(sentence.words, sentence.tags)
    except ValueError as error:
        sentence.spoil("unreadable", f"{error}, in the sentence at line {sentence.line}")
        text, spans = " ".join(sentence.words), []
    if sentence.error:
        return RawRow(sentence.line, text[:1000], error=sentence.error, detail=sentence.detail)
    key, group = sentence.notes.get(options.id), sentence.notes.get(options.group)
    return RawRow(sentence.line, text, spans if options.label else None, key, group)
