"""Old predictions as Parquet. One schema for all files, so that they can be read as one table."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.retention.files import COLUMNS

_OTHERS = {
    "row": pa.int32(),
    "latency_ms": pa.float64(),
    "probability": pa.float64(),
    "audit_probability": pa.float64(),
    "at": pa.timestamp("us", tz="UTC"),
}
_SCHEMA = pa.schema([(name, _OTHERS.get(name, pa.string())) for name in COLUMNS])
_BATCH_ROWS = 2000


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    lines = [{**row, "output": json.dumps(row["output"], ensure_ascii=False)} for row in rows]
    pq.write_table(pa.Table.from_pylist(lines, schema=_SCHEMA), path, compression="zstd")


def read(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS):
            for row in batch.to_pylist():
                yield {**row, "output": json.loads(row["output"])}
