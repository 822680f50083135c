"""A snapshot's rows as one Parquet file."""

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headrace.records import SnapshotRow

FILE = "rows.parquet"
_TEXT_FIELDS = ("example_id", "channel", "key", "text", "side", "origin")
_GROUP_ROWS = 10_000  # ids of an import are in order, so most groups are passed over when one row is looked for
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
    pq.write_table(pa.table(columns), folder / FILE, compression="zstd", row_group_size=_GROUP_ROWS)


def read_rows(folder: Path, side: str | None = None) -> list[SnapshotRow]:
    """The rows of FILE, or of one side, in the order written."""
    filters = None if side is None else [("side", "=", side)]
    found = pq.read_table(folder / FILE, filters=filters, partitioning=None).to_pylist()
    for row in found:
        if _JSON_TARGET in row:
            row["target"] = json.loads(row.pop(_JSON_TARGET))
    return [SnapshotRow(**row) for row in found]


def is_snapshot(folder: Path) -> bool:
    """Whether a folder holds the rows of a snapshot."""
    return (folder / FILE).exists()


def count_rows(folder: Path, channel: str, example_ids: Collection[str] | None) -> dict[str, dict[str, int]]:
    """Channel to side to rows: of some examples of a channel, or of all of them with None. Reads no texts."""
    wanted = pc.field("channel") == channel
    if example_ids is not None:
        wanted &= pc.field("example_id").isin(pa.array(list(example_ids), pa.string()))
    found = pq.read_table(folder / FILE, columns=["channel", "side"], filters=wanted, partitioning=None)
    counts: dict[str, dict[str, int]] = {}
    for row in found.group_by(["channel", "side"]).aggregate([([], "count_all")]).to_pylist():
        counts.setdefault(row["channel"], {})[row["side"]] = row["count_all"]
    return counts


def find_row(folder: Path, example_id: str) -> dict[str, Any] | None:
    """An example's row without its texts: channel, key, side, target, weight, origin. None where it is not there.

    Row groups whose statistics rule it out are passed over. pyarrow does that, too, by parts that import pandas, which
    takes longer than this takes to look through a million rows.
    """
    with pq.ParquetFile(folder / FILE) as file:
        names = file.schema_arrow.names
        place, columns = names.index("example_id"), [name for name in names if name not in ("text", "text_pair")]
        for group in range(file.num_row_groups):
            known = file.metadata.row_group(group).column(place).statistics
            if known is not None and known.has_min_max and not known.min <= example_id <= known.max:
                continue
            ids = file.read_row_group(group, columns=["example_id"]).column(0).to_pylist()
            if example_id in ids:
                (row,) = file.read_row_group(group, columns=columns).slice(ids.index(example_id), 1).to_pylist()
                if _JSON_TARGET in row:
                    row["target"] = json.loads(row.pop(_JSON_TARGET))
                return dict(row)
    return None


def values_in(path: Path) -> Iterator[tuple[str, Any]]:
    """Every value of any Parquet file with the name of its column."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches():
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                yield from ((name, value) for value in column.to_pylist())
