"""A snapshot's rows as one Parquet file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.records import SnapshotRow

FILE = "rows.parquet"
_TEXT_FIELDS = ("example_id", "channel", "key", "text", "side", "origin")
_JSON_TARGET = "target_json"  # in place of `target` where targets are lists or objects


def write_rows(folder: Path, rows: Sequence[SnapshotRow]) -> None:
    """Write FILE into a folder. Targets are all text, all numbers, or any JSON values."""
    columns: dict[str, Any] = {name: pa.array([getattr(r, name) for r in rows], pa.string()) for name in _TEXT_FIELDS}
    targets = [row.target for row in rows]
    if any(isinstance(target, list | dict) for target in targets):
        columns[_JSON_TARGET] = pa.array([json.dumps(t) for t in targets], pa.string())
    else:
        columns["target"] = pa.array(targets)
    columns["weight"] = pa.array([row.weight for row in rows], pa.float64())
    if any(row.text_pair is not None for row in rows):
        columns["text_pair"] = pa.array([row.text_pair for row in rows], pa.string())
    pq.write_table(pa.table(columns), folder / FILE, compression="zstd")


def read_rows(folder: Path, side: str | None = None) -> list[SnapshotRow]:
    """The rows of FILE, or of one side, in the order written."""
    filters = None if side is None else [("side", "=", side)]
    found = pq.read_table(folder / FILE, filters=filters, partitioning=None).to_pylist()
    for row in found:
        if _JSON_TARGET in row:
            row["target"] = json.loads(row.pop(_JSON_TARGET))
    return [SnapshotRow(**row) for row in found]
