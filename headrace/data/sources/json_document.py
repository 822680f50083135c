"""Files that are one JSON value, such as exports of labelling tools: how they begin, and what they hold."""

import codecs
import json
from pathlib import Path
from typing import Any

from headrace.data.sources import file_at
from headrace.errors import BadInput, Unusable

MAX_BYTES = 1 << 28
"""The largest file; parsed, it takes some five times its size in memory."""
_PEEKED_BYTES = 1 << 16


def beginning(location: str) -> bytes:
    """The first 64 KiB of a .json file, without leading space; empty for anything else."""
    path = Path(location)
    if "://" in location or path.suffix.lower() != ".json":
        return b""
    try:
        with path.open("rb") as file:
            return file.read(_PEEKED_BYTES).removeprefix(codecs.BOM_UTF8).lstrip()
    except OSError:
        return b""


def document(location: str) -> Any:
    """The value of the whole file.

    Raises:
        NotFound, Unusable: there is no such file, or it cannot be read.
        BadInput: it is too large, or no JSON in UTF-8.
    """
    path = file_at(location)
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise Unusable(f"the file cannot be read: {error.strerror}", value=location, next_step="Check it") from None
    if len(raw) > MAX_BYTES:
        raise BadInput(
            f"over {MAX_BYTES} bytes in one JSON value", value=location, next_step="Split it, or export JSON lines"
        )
    try:
        return json.loads(raw.removeprefix(codecs.BOM_UTF8).decode())
    except UnicodeDecodeError as error:
        raise BadInput(
            f"the file is not UTF-8 at byte {error.start + 1}", value=location, next_step="Write it again in UTF-8"
        ) from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the file is not JSON: {error}", value=location, next_step="Export it again") from None
