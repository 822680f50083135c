"""Parquet files. `labels` may hold single labellers' labels as a list of structs."""

from collections.abc import Iterator
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
                columns = columns_in(file.schema_arrow.names, options)
                line = 0
                used = None if options.keeps_values else columns.used()
                for batch in file.iter_batches(batch_size=_n_batch(file.metadata), columns=used):
                    for values in batch.to_pylist():
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


def _n_batch(metadata: Any) -> int:
    """Rows at once, so that the longest value of a dictionary, which all rows may share, fits as often into memory."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
    longest = max((_dictionary_bytes(chunk) for chunk in chunks if chunk.has_dictionary_page), default=0)
    return max(1, min(_N_BATCH, _BATCH_BYTES // max(1, longest)))


def _dictionary_bytes(chunk: Any) -> int:
    """About how large a column's dictionary is when it is unpacked."""
    times = -(-chunk.total_uncompressed_size // max(1, chunk.total_compressed_size))
    packed = chunk.data_page_offset - (chunk.dictionary_page_offset or 0)
    return max(0, int(packed)) * max(1, int(times))
