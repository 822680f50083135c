"""CSV, JSON lines, Parquet, Hugging Face and SQL in their own ways: lines, quotes, encodings, labellers."""

import csv
import io
import json
import re
import sqlite3
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.data.sources import Options, Source, open_source, shown
from headrace.data.sources.conll import Conll
from headrace.data.sources.csv import Csv
from headrace.data.sources.hf import HuggingFaceDataset
from headrace.data.sources.jsonl import Jsonl
from headrace.data.sources.parquet import Parquet
from headrace.data.sources.sql import Sql
from headrace.data.sources.squad import Squad
from headrace.errors import BadInput, MissingExtra, NotFound, Unavailable, Unusable
from headrace.records import RawLabel, RawRow

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)


def _written(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def _csv(folder: Path, content: bytes, **options: str) -> list[RawRow]:
    return list(Csv.read(_written(folder, "rows.csv", content), Options(**options)))


def _jsonl(folder: Path, content: bytes) -> list[RawRow]:
    return list(Jsonl.read(_written(folder, "rows.jsonl", content), Options()))


@given(rows=st.lists(st.tuples(TEXT, TEXT), max_size=8), delimiter=st.sampled_from(",\t;|"))
def test_csv_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("text", "label"), *rows])
    found = _csv(tmp_path_factory.mktemp("csv"), file.getvalue().encode())
    assert [(row.text, row.label) for row in found] == rows
    assert [row.error for row in found] == [None] * len(rows)


@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8), ascii_only=st.booleans())
def test_jsonl_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], ascii_only: bool
) -> None:
    lines = [json.dumps({"text": text, "label": label}, ensure_ascii=ascii_only) for text, label in rows]
    found = _jsonl(tmp_path_factory.mktemp("jsonl"), "\n".join(lines).encode())
    assert [(row.line, row.text, row.label) for row in found] == [(i, *row) for i, row in enumerate(rows, start=1)]


@given(content=st.binary(max_size=200))
def test_no_bytes_at_all_make_csv_or_jsonl_fail_otherwise(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any")
    lines = content.count(b"\n") + content.count(b"\r") + 2
    assert len(_csv(folder, b"text,label\n" + content)) <= lines
    assert len(_jsonl(folder, b'{"text": "a", "label": "b"}\n' + content)) <= lines


def test_csv_counts_lines_of_the_file_not_records(tmp_path: Path) -> None:
    found = _csv(tmp_path, b'\xef\xbb\xbftext,label\n"one\ntwo\n",a\n\nthree,b\n')
    assert [(row.line, row.text) for row in found] == [(2, "one\ntwo\n"), (6, "three")]


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"])
def test_csv_takes_every_line_ending(tmp_path: Path, ending: bytes) -> None:
    found = _csv(tmp_path, ending.join([b"text,label", b"one,a", b"two,b"]))
    assert [(row.line, row.text) for row in found] == [(2, "one"), (3, "two")]


def test_an_unclosed_quote_spoils_its_own_line_only(tmp_path: Path) -> None:
    found = _csv(tmp_path, b'text,label\n"never closed,a\ntwo,b\n"well ""closed""",c\nfour,d\n')
    assert [(row.line, row.text, row.error) for row in found] == [
        (2, '"never closed,a\n', "unreadable"), (3, "two", None), (4, 'well "closed"', None), (5, "four", None),
    ]  # fmt: skip
    assert "quote" in found[0].detail


def test_csv_rows_with_too_few_or_many_fields_are_not_guessed_at(tmp_path: Path) -> None:
    found = _csv(tmp_path, b"text,label\na comma, not quoted,x\nonly text\nfine,y\n")
    assert [(row.line, row.error) for row in found] == [(2, "unreadable"), (3, "unreadable"), (4, None)]
    assert "3 fields, the header has 2" in found[0].detail


def test_an_over_long_csv_line_is_one_bad_row(tmp_path: Path) -> None:
    found = _csv(tmp_path, b"text,label\n" + b"x" * 5_000_000 + b",a\ntwo,b\n")
    assert [(row.line, row.error) for row in found] == [(2, "too_long"), (3, None)]
    assert len(str(found[0].text)) <= 1000


def test_csv_finds_the_delimiter_by_suffix_or_header(tmp_path: Path) -> None:
    for name, content in (("a.tsv", b"text\tlabel\none, two\ta"), ("a.csv", b"text;label\none, two;a")):
        assert [r.text for r in Csv.read(_written(tmp_path, name, content), Options())] == ["one, two"]


def test_csv_whose_header_is_too_long_is_not_called_empty(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"the header has more than 4,194,304 characters: texttext"):
        _csv(tmp_path, b"text" * 2**20 + b",label\nso,good\n")


def test_csv_passes_over_a_delimiter_that_makes_a_field_too_large(tmp_path: Path) -> None:
    """The header is one field of more than csv takes, but by the delimiter that it has."""
    csv.field_size_limit(131_072)  # others may have raised it
    names = ["text", *(f"column{i}" for i in range(200_000 // 9))]
    content = ";".join(names).encode() + b"\n" + b";".join([b"one", *[b""] * (len(names) - 1)])
    assert [(row.text, row.error) for row in _csv(tmp_path, content, label="")] == [("one", None)]


def test_a_csv_header_that_cannot_be_read_is_explained(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"the header cannot be read: .*Correct line 1"):
        _csv(tmp_path, b'"text"more,label\none,a\n')


def test_utf16_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"UTF-16.*iconv"):
        _csv(tmp_path, "text,label\n".encode("utf-16"))


def test_columns_without_labels_need_a_word_only_where_labels_may_be_missed(tmp_path: Path) -> None:
    assert [row.label for row in _csv(tmp_path, b"id,text\n1,one\n")] == [None]
    with pytest.raises(BadInput, match=r"no column 'label'.*sentiment"):
        _csv(tmp_path, b"text,sentiment\none,good\n")
    assert [row.label for row in _csv(tmp_path, b"text,sentiment\none,good\n", label="")] == [None]


def test_jsonl_tells_each_bad_line_apart(tmp_path: Path) -> None:
    content = (
        b'{"text": "a", "label": "x"}\n\n{"text": \n[1]\n{"text": "\xff"}\n{"text": "b", "labels": [{"label": 1}]}\n'
    )
    found = _jsonl(tmp_path, content)
    assert [(row.line, row.error) for row in found] == [
        (1, None), (3, "unreadable"), (4, "unreadable"), (5, "wrong_encoding"), (6, "unreadable"),
    ]  # fmt: skip


def test_labellers_labels_are_read_with_their_scores(tmp_path: Path) -> None:
    row = {"text": "a", "labels": [{"labeller": "ann", "label": "x", "score": 2}, {"labeller": 7, "label": "y"}]}
    assert _jsonl(tmp_path, json.dumps(row).encode())[0].labels == (RawLabel("ann", "x", 2.0), RawLabel("7", "y"))


def test_parquet_reads_labellers_from_a_list_of_structs(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "rows.parquet"
    labels = [[{"labeller": "ann", "label": "x", "score": 1.5}], None]
    pq.write_table(pa.table({"text": ["a", "b"], "labels": labels, "unused": [1, 2]}), path)
    found = list(Parquet.read(str(path), Options()))
    assert [row.labels for row in found] == [(RawLabel("ann", "x", 1.5),), ()]


def test_hugging_face_splits_follow_each_other_and_classes_have_names(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    parts = {
        "train": datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features),
        "test": datasets.Dataset.from_dict({"text": ["c"], "label": [-1]}, features=features),
    }
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "two"))
    found = list(HuggingFaceDataset.read(str(tmp_path / "two"), Options()))
    assert [(row.line, row.text, row.label) for row in found] == [(1, "a", "good"), (2, "b", "bad"), (3, "c", None)]


def test_sql_changes_nothing_and_says_what_failed(tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    with sqlite3.connect(path) as conn:
        conn.execute("create table rows (text)")
        conn.execute("insert into rows values ('a')")
    conn.close()
    url = f"sqlite:///{path}"
    for query, problem in (
        ("delete from rows", "gives no rows"), ("select absent from rows", "no such column"), (None, "needs a query"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=problem):
            list(Sql.read(url, Options(query=query)))
    assert [row.text for row in Sql.read(url, Options(query="select text from rows"))] == ["a"]


def test_hugging_face_directories_that_are_damaged_are_told(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"text": ["a"], "label": ["b"]}).save_to_disk(str(tmp_path / "one"))
    (table,) = (tmp_path / "one").glob("*.arrow")
    table.write_bytes(table.read_bytes()[:10])
    with pytest.raises(BadInput, match=r"the dataset cannot be read: .*Write it again") as caught:
        list(HuggingFaceDataset.read(str(tmp_path / "one"), Options()))
    assert caught.value.value == str(tmp_path / "one")


def test_a_hub_that_cannot_be_reached_may_be_tried_again() -> None:
    """No test reaches it: see HF_HUB_OFFLINE in conftest.py."""
    with pytest.raises(Unavailable, match=r"the hub cannot be reached .*hf://nobody/nothing\. Try again"):
        list(HuggingFaceDataset.read("hf://nobody/nothing", Options()))


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("no url at all", "not a database URL: no url at all. Use sqlite:///PATH"),
        ("nosuch://ann:secret@host/db", "not a database URL: nosuch://ann:***@host/db"),
        ("oracle://ann:secret@host/db", "needs oracledb, which is not installed: oracle://ann:***@host/db"),
    ],
)
def test_databases_that_nothing_here_reads_are_told_without_their_passwords(
    url: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "oracledb", None)
    with pytest.raises(BadInput, match=re.escape(problem)):
        list(Sql.read(url, Options(query="select 1")))


def test_a_database_that_an_extra_reads_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"pip install 'headrace\[postgres\]'"):
        list(Sql.read("postgresql+psycopg://host/db", Options(query="select 1")))


@pytest.mark.parametrize("kind", [Conll, Csv, Jsonl, Squad])
def test_a_file_that_the_system_cannot_read_is_told(kind: Source, tmp_path: Path) -> None:
    """As on a disk that fails: the system gives this file's name, opens it and then reads nothing from it."""
    (tmp_path / "rows").symlink_to("/proc/self/mem")
    with pytest.raises(Unusable, match=r"the file cannot be read: Input/output error.*rows\. Check it"):
        list(kind.read(str(tmp_path / "rows"), Options()))


def test_passwords_are_not_shown() -> None:
    assert shown("postgresql://ann:secret@host/db") == "postgresql://ann:***@host/db"


@pytest.mark.parametrize(
    ("location", "kind"), [("no/such.csv", Csv), ("x.NDJSON", Jsonl), ("hf://a/b", HuggingFaceDataset)]
)
def test_a_source_is_picked_by_its_looks(location: str, kind: Source) -> None:
    assert open_source(location) is kind


def test_unclear_locations_are_explained(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        open_source(str(tmp_path / "none"))
    with pytest.raises(BadInput, match="directory"):
        open_source(str(tmp_path))
    with pytest.raises(BadInput, match=r"--format, one of: conll, csv, hf"):
        open_source(_written(tmp_path, "rows.xyz", b""))
    with pytest.raises(NotFound, match="Did you mean 'jsonl'"):
        open_source("x", format="json")


def test_a_json_array_is_told_from_json_lines(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="a JSON array"):
        _jsonl(tmp_path, b'[\n{"text": "a"},\n{"text": "b"}\n]')


@pytest.mark.parametrize(("library", "kind"), [("pyarrow", Parquet), ("datasets", HuggingFaceDataset)])
def test_a_missing_library_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, kind: Source
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtra, match=r"pip install 'headrace\[train\]'"):
        list(kind.read(_written(tmp_path, "rows.parquet", b""), Options()))
