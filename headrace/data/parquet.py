"""A snapshot's rows as one Parquet file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.records import SnapshotRow

FILE = "rows.parquet"
_TEXT_FIELDS = ("example_id", "channel", "key", "text", "side", "origin")


def write_rows(folder: Path, rows: Sequence[SnapshotRow]) -> None:
    """Write FILE into a folder. Targets are all text or all numbers."""
    columns: dict[str, Any] = {name: pa.array([getattr(r, name) for r in rows], pa.string()) for name in _TEXT_FIELDS}
    columns["target"] = pa.array([row.target for row in rows])
    columns["weight"] = pa.array([row.weight for row in rows], pa.float64())
    pq.write_table(pa.table(columns), folder / FILE, compression="zstd")


def read_rows(folder: Path, side: str | None = None) -> list[SnapshotRow]:
    """The rows of FILE, or of one side, in the order written."""
    filters = None if side is None else [("side", "=", side)]
    table = pq.read_table(folder / FILE, filters=filters, partitioning=None)
    return [SnapshotRow(**row) for row in table.to_pylist()]
