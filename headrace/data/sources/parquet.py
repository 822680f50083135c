"""Parquet files. `labels` may hold single labellers' labels as a list of structs."""

from collections.abc import Iterator
from pathlib import Path

from headrace.data.sources import Options, columns_in, file_at, row_of
from headrace.errors import BadInput, Unusable
from headrace.records import RawRow
from headrace.registry import resolve

_SUFFIXES = {".parquet", ".pq"}
_N_BATCH = 2000


class Parquet:
    """A table in one file; `line` is the number of the row, from 1."""

    @staticmethod
    def looks_like(location: str) -> bool:
        return "://" not in location and Path(location).suffix.lower() in _SUFFIXES

    @staticmethod
    def read(location: str, options: Options) -> Iterator[RawRow]:
        path = file_at(location)
        open_file = resolve("pyarrow.parquet:ParquetFile", purpose="a Parquet file")
        broken = resolve("pyarrow:ArrowException")
        try:
            with open_file(path) as file:
                columns = columns_in(file.schema_arrow.names, options)
                line = 0
                used = None if options.keeps_values else columns.used()
                for batch in file.iter_batches(batch_size=_N_BATCH, columns=used):
                    for values in batch.to_pylist():
                        line += 1
                        yield row_of(line, values, columns, keeps_values=options.keeps_values)
        except broken as error:
            raise BadInput(
                f"not a readable Parquet file: {error}", value=location, next_step="Write it again"
            ) from None
        except OSError as error:
            raise Unusable(f"the file cannot be read: {error}", value=location, next_step="Check it") from None
