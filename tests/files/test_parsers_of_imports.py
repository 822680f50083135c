"""Every parser of imports on made-up bytes (S30, R9). Catches: an exception that is none of ours, a parser that does
not end, a small file that takes the memory of a large one."""

import json
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from headrace.data.sources import SOURCES, Options
from headrace.data.sources import parquet as source
from headrace.errors import BadInput, HeadraceError
from headrace.records import RawRow

FILES = ("csv", "conll", "label-studio", "squad", "jsonl", "parquet")
SECONDS = 20  # of a busy machine; a parser that hangs takes more
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
KEYS = ("data", "annotations", "result", "value", "choices", "type", "from_name", "text", "label", "id", "completed_by")
SHAPED = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["choices", "labels", "x", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=25,
)
SQUAD = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["x", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["data", "paragraphs", "qas", "context", "question", "answers", "answer_start", "id"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


def rows_of(format_: str, content: bytes, path: Path, **options: Any) -> list[RawRow] | HeadraceError:
    """What a source makes of a file's bytes: rows, or its error."""
    path.write_bytes(content)
    read: Iterator[RawRow] = SOURCES.get(format_).read(str(path), Options(**options))
    try:
        return list(islice(read, 10_000))
    except HeadraceError as error:
        return error


def copes(format_: str, content: bytes, path: Path, **options: Any) -> bool:
    """Whether a source makes rows or an error of ours of a file's bytes, and soon; another error is raised."""
    began_at = time.monotonic()
    found = rows_of(format_, content, path, **options)
    soon = time.monotonic() - began_at < SECONDS
    return soon and (isinstance(found, HeadraceError) or all(row.line >= 1 for row in found))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "rows"


many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("format_", FILES)
@many
@given(
    content=st.binary(max_size=400),
    start=st.sampled_from([b"", b"text,label\n", b"PAR1", b"[{", b'{"text":', b"\xef\xbb\xbf"]),
)
def test_any_bytes_give_rows_or_our_errors(format_: str, place: Path, content: bytes, start: bytes) -> None:
    assert copes(format_, start + content, place)


@pytest.mark.parametrize("format_", ["label-studio", "squad", "jsonl"])
@many
@given(value=JSON | SHAPED | SQUAD | st.fixed_dictionaries({"data": st.lists(SQUAD, max_size=2)}))
def test_any_json_gives_rows_or_our_errors(format_: str, place: Path, value: Any) -> None:
    for whole in (value, [value], [{"data": value, "annotations": [value]}], {"data": [value]}):
        assert copes(format_, json.dumps(whole).encode(), place)


@many
@given(text=st.text(st.characters(codec="utf-8"), max_size=200), quotes=st.integers(0, 3), takes=st.booleans())
def test_any_text_in_csv_and_conll_gives_rows_or_our_errors(place: Path, text: str, quotes: int, takes: bool) -> None:
    assert copes("csv", f"text,label\n{chr(34) * quotes}{text}".encode(), place, keeps_values=takes)
    assert copes("conll", text.encode(), place)


@many
@given(data=st.data())
def test_a_parquet_file_with_any_byte_changed_gives_rows_or_our_errors(place: Path, data: st.DataObject) -> None:
    table = pyarrow.table({"text": ["good", "bad"] * 20, "label": ["a", "b"] * 20})
    parquet.write_table(table, place)
    whole = bytearray(place.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    assert copes("parquet", bytes(whole), place)


def test_a_table_that_is_a_thousand_times_larger_inside_is_refused(place: Path) -> None:
    """S30: pages that unpack to more than a hundred times their size."""
    table = pyarrow.table({"text": ["x" * 2**20 + str(i) for i in range(64)]})
    parquet.write_table(table, place, compression="zstd", use_dictionary=False)
    assert place.stat().st_size < 2**18
    with pytest.raises(BadInput, match="times larger"):
        list(SOURCES.get("parquet").read(str(place), Options(label="")))


def test_a_value_that_repeats_is_not_unpacked_all_at_once(place: Path) -> None:
    """One long text, kept once in the file and named by every row."""
    long = "".join(chr(97 + i * 7919 % 26) for i in range(2**20))
    shared = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 5_000, pyarrow.int32()), [long])
    parquet.write_table(pyarrow.table({"text": shared}), place, compression="none", dictionary_pagesize_limit=2**30)
    assert place.stat().st_size < 2**22
    with parquet.ParquetFile(place, read_dictionary=["text"]) as file:
        pieces = list(source._pieces(next(file.iter_batches(batch_size=2_000))))
    assert sum(map(len, pieces)) == 2_000
    assert max(map(len, pieces)) * len(long) <= 2**28
    found = islice(SOURCES.get("parquet").read(str(place), Options(label="")), 3)
    assert [len(str(row.text)) for row in found] == [2**20] * 3
    parquet.write_table(pyarrow.table({"text": ["short", "long"] * 5_000}), place)
    with parquet.ParquetFile(place, read_dictionary=["text"]) as file:
        assert len(list(source._pieces(next(file.iter_batches(batch_size=2_000))))) == 1


def test_a_parquet_file_whose_columns_are_described_wrongly_does_not_end_the_process(place: Path) -> None:
    """pyarrow aborts where it is asked for a column's metadata that contradict themselves."""
    parquet.write_table(pyarrow.table({"text": ["good", "bad"] * 20}), place)
    whole = place.read_bytes()
    begin = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # of the footer, byte by byte
    found = [
        rows_of("parquet", whole[:i] + bytes([whole[i] ^ 0x10]) + whole[i + 1 :], place)
        for i in range(begin, len(whole))
    ]
    assert {isinstance(one, HeadraceError) for one in found} == {True, False}  # some are refused, others are read
