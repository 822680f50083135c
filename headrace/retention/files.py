"""Files of old predictions: Parquet, or JSON lines under gzip where pyarrow is not installed; both are read anywhere.

The task is in the path alone, so that tools that read partitioned folders find it once.
"""

import gzip
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headrace.errors import Damaged
from headrace.registry import resolve

DRAFT = ".draft"
COLUMNS = (
    "id", "request_id", "row", "channel", "channel_id", "unit", "arm", "release_id", "version_id", "artifact",
    "adapter", "text", "text_pair", "text_hash", "output", "latency_ms", "error", "at", "config_hash", "code_version",
    "probability",
    "audit_probability",
)  # fmt: skip
"""In order; `output` is JSON text in Parquet."""
_LATER = {"probability": 1.0, "audit_probability": None}  # columns that the first files did not have
_PARQUET, _JSONL = ".parquet", ".jsonl.gz"


def suffix() -> str:
    """Of files that this installation writes."""
    return _PARQUET if find_spec("pyarrow") is not None else _JSONL


def is_one(path: Path) -> bool:
    """Whether a path names a file whose rows have left the store."""
    return path.name.endswith((_PARQUET, _JSONL))


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows so that the file is whole and on disk before it has its name."""
    draft = path.with_name(path.name + DRAFT)
    plain = [{name: row[name] for name in COLUMNS} for row in rows]
    if _PARQUET in path.suffixes:
        resolve("headrace.retention.parquet:write")(draft, plain)
    else:
        with gzip.open(draft, "wt", encoding="utf-8", compresslevel=6) as file:
            for row in plain:
                file.write(json.dumps({**row, "at": row["at"].isoformat()}, ensure_ascii=False) + "\n")
    with draft.open("rb") as written:
        os.fsync(written.fileno())
    rename(draft, path)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file.

    Raises:
        Damaged: it is not as it was written.
        MissingExtra: Parquet, and pyarrow is not installed.
    """
    try:
        if _PARQUET in path.suffixes:
            for row in resolve("headrace.retention.parquet:read", purpose="reading old predictions")(path):
                yield _LATER | row
        else:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                for line in file:
                    row = json.loads(line)
                    yield _LATER | row | {"at": datetime.fromisoformat(row["at"])}
    except (OSError, EOFError, ValueError) as error:  # pyarrow's errors of format are ValueErrors
        raise Damaged(
            f"a file of old predictions cannot be read: {error}", value=str(path), next_step="Restore it from a backup"
        ) from None


def rename(path: Path, to: Path) -> None:
    """Rename, and have the folder on disk say so."""
    os.replace(path, to)
    folder = os.open(to.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
