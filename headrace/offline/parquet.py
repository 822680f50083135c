"""Answers as Parquet: the columns of a Parquet source keep their types, those of others get the narrowest that fits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from headrace.errors import BadInput
from headrace.offline.formats import Line, json_text
from headrace.offline.naming import PREFIX
from headrace.offline.table import Table

_TYPES = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "truth": pa.bool_(), "json": pa.string()}


def facts_of(path: Path) -> tuple[Any, int]:
    """Schema and number of rows of a file.

    Raises:
        BadInput: not a Parquet file.
    """
    try:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow, file.metadata.num_rows
    except pa.ArrowException as error:
        raise BadInput(f"not a readable Parquet file: {error}", value=str(path), next_step="Write it again") from None


class Parquet:
    """One table; its row groups are the parts it was written in."""

    def __init__(self, path: Path, table: Table) -> None:
        self._kinds = table.kinds
        fields = [(name, _TYPES[kind]) for name, kind in table.kinds.items()]
        self._schema = pa.schema(fields) if table.schema is None else table.schema.remove_metadata()

    def write(self, path: Path, lines: Sequence[Line], answer_names: Sequence[str]) -> None:
        columns = {field.name: pa.array(self._own(lines, field.name), field.type) for field in self._schema}
        for name in answer_names:
            values = [line[f"{PREFIX}{name}"] for line in lines]
            is_nested = any(isinstance(value, dict | list) for value in values)
            columns[f"{PREFIX}{name}"] = pa.array([json_text(value) for value in values] if is_nested else values)
        pq.write_table(pa.table(columns), path, compression="zstd")

    def join(self, parts: Sequence[Path], whole: Path, answer_names: Sequence[str]) -> None:
        schema = self._schema
        if parts:
            found = pa.unify_schemas([pq.read_schema(part) for part in parts], promote_options="permissive")
            schema = pa.schema([(f.name, pa.string() if pa.types.is_null(f.type) else f.type) for f in found])
        with pq.ParquetWriter(whole, schema, compression="zstd") as file:
            for part in parts:
                file.write_table(pq.read_table(part, partitioning=None).cast(schema))

    def _own(self, lines: Sequence[Line], name: str) -> list[Any]:
        values = [line.get(name) for line in lines]
        if self._kinds.get(name) != "json":
            return values
        return [None if value is None else json_text(value) for value in values]
