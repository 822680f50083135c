"""Parquet files. `labels` may hold single labellers' labels as a list of structs."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from headrace.data.sources import Options, columns_in, file_at, row_of
from headrace.errors import BadInput, Unusable
from headrace.records import RawRow
from headrace.registry import resolve

_SUFFIXES = {".parquet", ".pq"}
_N_BATCH = 2000
_MAX_RATIO, _ALWAYS_BYTES = 100, 16 * 2**20
"""How much larger a table may be inside, once it is larger than a few megabytes."""
_BATCH_BYTES = 256 * 2**20


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
                _refuse_bombs(file.metadata, path)
                columns, texts = columns_in(file.schema_arrow.names, options), _texts(file.schema)
            with open_file(path, read_dictionary=texts) as file:
                line = 0
                used = None if options.keeps_values else columns.used()
                for batch in file.iter_batches(batch_size=_N_BATCH, columns=used):
                    for values in chain.from_iterable(piece.to_pylist() for piece in _pieces(batch)):
                        line += 1
                        yield row_of(line, values, columns, keeps_values=options.keeps_values)
        except (broken, UnicodeDecodeError, OverflowError) as error:  # values that are not what their type says, too
            raise BadInput(
                f"not a readable Parquet file: {error}", value=location, next_step="Write it again"
            ) from None
        except OSError as error:
            raise Unusable(f"the file cannot be read: {error}", value=location, next_step="Check it") from None


def _refuse_bombs(metadata: Any, path: Path) -> None:
    """Check that a small file does not stand for a large table.

    Raises:
        BadInput: its pages unpack to more than a hundred times the file, or its metadata says what cannot be.
    """
    n_bytes = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if n_bytes < 0 or n_bytes > max(_ALWAYS_BYTES, _MAX_RATIO * path.stat().st_size):
        raise BadInput(
            f"the file is over {_MAX_RATIO} times larger inside",
            value=str(path),
            next_step="Write it again without compression, if it is what it should be",
        )


def _texts(schema: Any) -> list[str]:
    """Paths of the columns whose values have no fixed length."""
    columns = [schema.column(i) for i in range(len(schema))]
    return [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]


def _pieces(batch: Any) -> Iterator[Any]:
    """A batch, in which equal texts are there once, in pieces that fit into memory with a text for every row.

    What the file's metadata says of its columns would tell as much beforehand, but pyarrow (26) ends the process where
    that is damaged.
    """
    n_rows = max(1, _BATCH_BYTES // max(1, batch.nbytes))
    return (_plain(batch.slice(start, n_rows)) for start in range(0, batch.num_rows, n_rows))


def _plain(batch: Any) -> Any:
    """A batch with its columns' own values, which `to_pylist` takes several times as fast as a dictionary's."""
    columns = [column.dictionary_decode() if hasattr(column, "dictionary") else column for column in batch.columns]
    return resolve("pyarrow:RecordBatch").from_arrays(columns, names=batch.schema.names)
