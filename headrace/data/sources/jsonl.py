"""JSON lines: one object per line, in UTF-8. `labels` may hold single labellers' labels."""

import codecs
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from headrace.data.sources import Columns, Options, columns_in, file_at, row_of
from headrace.errors import BadInput, Unusable
from headrace.records import RawRow

_SUFFIXES = {".jsonl", ".ndjson", ".json"}
_MAX_LINE_BYTES = 1 << 24
_N_PEEKED = 100  # objects that tell which columns there are


class Jsonl:
    """One object per line."""

    @staticmethod
    def looks_like(location: str) -> bool:
        return "://" not in location and Path(location).suffix.lower() in _SUFFIXES

    @staticmethod
    def read(location: str, options: Options) -> Iterator[RawRow]:
        path = file_at(location)
        try:
            with path.open("rb") as file:
                columns = _columns(file, path, options)
                file.seek(0)
                for line, parsed in _objects(file):
                    if isinstance(parsed, RawRow):
                        yield parsed
                    else:
                        yield row_of(line, parsed, columns, keeps_values=options.keeps_values)
        except OSError as error:
            raise Unusable(f"the file cannot be read: {error.strerror}", value=location, next_step="Check it") from None


def _columns(file: BinaryIO, path: Path, options: Options) -> Columns:
    found: dict[str, None] = {}
    some = list(islice(_objects(file), _N_PEEKED))
    if not some:
        raise BadInput("the file is empty", value=str(path), next_step="Give a file with one JSON object per line")
    first = some[0][1]
    if isinstance(first, RawRow) and str(first.text).lstrip().startswith("["):
        raise BadInput("a JSON array, not JSON lines", value=str(path), next_step="Run: jq -c '.[]' FILE > FILE.jsonl")
    for _, parsed in some:
        if isinstance(parsed, dict):
            found.update(dict.fromkeys(parsed))
    if not found:
        detail = first.detail if isinstance(first, RawRow) else ""
        raise BadInput(
            f"no JSON objects in the first lines ({detail})", value=str(path), next_step="Write one object per line"
        )
    return columns_in(list(found), options)


def _objects(file: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | RawRow]]:
    """(line, object), or (line, RawRow with its error); empty lines are passed over."""
    line = 0
    while raw := file.readline(_MAX_LINE_BYTES):
        line += 1
        if line == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        if len(raw) >= _MAX_LINE_BYTES - 3 and not raw.endswith(b"\n"):
            _skip_line(file)
            yield line, _bad(line, raw[:1000], "too_long", f"over {_MAX_LINE_BYTES} bytes in a line")
        elif raw.strip():
            yield line, _parse(line, raw)


def _parse(line: int, raw: bytes) -> dict[str, Any] | RawRow:
    try:
        parsed = json.loads(raw.decode())
    except UnicodeDecodeError as error:
        return _bad(line, raw, "wrong_encoding", f"not UTF-8 at byte {error.start + 1} of the line")
    except (ValueError, RecursionError) as error:
        return _bad(line, raw, "unreadable", f"not JSON: {error}")
    if not isinstance(parsed, dict):
        return _bad(line, raw, "unreadable", "not a JSON object")
    return parsed


def _bad(line: int, raw: bytes, error: str, detail: str) -> RawRow:
    return RawRow(line, raw.decode(errors="replace").rstrip("\r\n"), error=error, detail=detail)


def _skip_line(file: BinaryIO) -> None:
    while (more := file.readline(_MAX_LINE_BYTES)) and not more.endswith(b"\n"):
        pass
