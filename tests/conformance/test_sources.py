"""What every source must do, whichever format it reads. Catches: lost or reordered rows, nulls read as text, a wrong
location that ends in a traceback."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.data.sources import SOURCES, Options, open_source
from headrace.errors import BadInput, UserError
from headrace.records import RawRow

ROWS = [
    {"id": "1", "text": "plain", "label": "positive", "group": "g1"},
    {"id": "2", "text": 'a "quoted", one;\twith é and 漢字', "label": "neutral", "group": "g1"},
    {"id": "3", "text": "two\nlines", "label": None, "group": None},
]


def _csv(folder: Path, rows: list[dict[str, str | None]]) -> str:
    quoted = ['"' + (value or "").replace('"', '""') + '"' for row in rows for value in row.values()]
    lines = [",".join(quoted[i : i + 4]) for i in range(0, len(quoted), 4)]
    path = folder / "rows.csv"
    path.write_text("\r\n".join([",".join(ROWS[0]), *lines]), "utf-8", newline="")
    return str(path)


def _jsonl(folder: Path, rows: list[dict[str, str | None]]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return str(path)


def _parquet(folder: Path, rows: list[dict[str, str | None]]) -> str:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "rows.parquet"
    pq.write_table(pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in ROWS[0]}), path)
    return str(path)


def _hf(folder: Path, rows: list[dict[str, str | None]]) -> str:
    import datasets

    path = folder / "rows-hf"
    features = datasets.Features({name: datasets.Value("string") for name in ROWS[0]})
    columns = {name: [row[name] for row in rows] for name in ROWS[0]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(path))
    return str(path)


def _sql(folder: Path, rows: list[dict[str, str | None]]) -> str:
    path = folder / "rows.db"
    with sqlite3.connect(path) as conn:
        conn.execute('create table rows (id, text, label, "group")')
        conn.executemany("insert into rows values (?, ?, ?, ?)", [tuple(row.values()) for row in rows])
    conn.close()
    return f"sqlite:///{path}"


MAKERS: dict[str, Callable[[Path, list[dict[str, str | None]]], str]] = {
    "csv": _csv, "jsonl": _jsonl, "parquet": _parquet, "hf": _hf, "sql": _sql,
}  # fmt: skip
OPTIONS = Options(query="select * from rows")


def _read(name: str, location: str, options: Options = OPTIONS) -> list[RawRow]:
    return list(SOURCES.get(name).read(location, options))


@pytest.mark.parametrize("name", SOURCES.names())
def test_a_location_that_is_not_there_is_the_users_error(name: str, tmp_path: Path) -> None:
    location = f"sqlite:///{tmp_path}/none.db" if name == "sql" else str(tmp_path / "none")
    with pytest.raises(UserError, match="none"):
        _read(name, location)


@pytest.mark.parametrize("name", SOURCES.names())
def test_looks_are_judged_without_reading(name: str) -> None:
    assert not SOURCES.get(name).looks_like("/nowhere/at-all.xyz")


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_rows_come_back_whole_and_in_order(name: str, tmp_path: Path) -> None:
    location = MAKERS[name](tmp_path, ROWS)
    assert SOURCES.get(name).looks_like(location)
    assert open_source(location) is SOURCES.get(name)
    found = _read(name, location)
    assert [row.text for row in found] == [row["text"] for row in ROWS]
    assert [row.key for row in found] == ["1", "2", "3"]
    assert [row.label or None for row in found] == ["positive", "neutral", None]
    assert [row.group or None for row in found] == ["g1", "g1", None]
    assert [row.error for row in found] == [None] * 3
    assert [row.line for row in found] == ([2, 3, 4] if name == "csv" else [1, 2, 3])


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_a_missing_column_is_named_with_those_there_are(name: str, tmp_path: Path) -> None:
    location = MAKERS[name](tmp_path, ROWS)
    with pytest.raises(BadInput, match=r"no column 'labl'.*Did you mean 'label'"):
        _read(name, location, Options(label="labl", query=OPTIONS.query))
    with pytest.raises(BadInput, match=r"no column 'body' for the text.*columns: id, text"):
        _read(name, location, Options(text="body", query=OPTIONS.query))


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_rows_can_be_read_without_their_labels(name: str, tmp_path: Path) -> None:
    found = _read(name, MAKERS[name](tmp_path, ROWS), Options(label="", query=OPTIONS.query))
    assert [row.label for row in found] == [None] * 3


@pytest.mark.parametrize("name", ["csv", "jsonl", "parquet", "label-studio", "squad"])
def test_a_file_source_refuses_a_directory_and_garbage(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="directory"):
        _read(name, str(tmp_path))
    path = tmp_path / "garbage"
    path.write_bytes(b"\x00\x01PAR1 nothing here")
    with pytest.raises(UserError):
        _read(name, str(path))
