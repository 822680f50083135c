"""What every noun module needs: rows to records, and the origin that is stored on each row."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from sqlalchemy import Table, insert
from sqlalchemy.engine import Connection, RowMapping

from headrace.version import VERSION

T = TypeVar("T")


def origin(config_hash: str) -> dict[str, str]:
    """The two columns that say which settings and which code made a row."""
    return {"config_hash": config_hash, "code_version": VERSION}


def as_record(kind: type[T], row: RowMapping) -> T:
    """The record whose fields are columns of the same name."""
    return kind(**{f.name: row[f.name] for f in fields(kind)})  # type: ignore[arg-type]


def as_records(kind: type[T], rows: Sequence[RowMapping]) -> list[T]:
    return [as_record(kind, row) for row in rows]


def one_or_none(kind: type[T], row: Any) -> T | None:
    return None if row is None else as_record(kind, row)


def insert_many(
    conn: Connection, table: Table, columns: Sequence[str], rows: Iterable[Sequence[Any]], constants: Mapping[str, Any]
) -> None:
    """Insert many rows through the driver's own executemany.

    Core converts every value of every row, which is most of the time of a large import; here only the columns whose
    type needs it are converted, and `constants` once for all rows.

    Args:
        columns: names of the values in each of `rows`.
        constants: column to the value it has in all rows.
    """
    compiled = insert(table).compile(dialect=conn.dialect, column_keys=[*columns, *constants])
    convert = {name: table.c[name].type.dialect_impl(conn.dialect).bind_processor(conn.dialect) for name in columns}
    ready = list(rows)
    for place, name in enumerate(columns):
        if process := convert[name]:
            ready = [(*row[:place], process(row[place]), *row[place + 1 :]) for row in ready]
    if not ready:
        return
    same = {}
    for name, value in constants.items():
        process = table.c[name].type.dialect_impl(conn.dialect).bind_processor(conn.dialect)
        same[name] = process(value) if process else value
    order = [*columns, *same]
    tail = tuple(same.values())
    if compiled.positiontup is None:
        conn.exec_driver_sql(str(compiled), [dict(zip(order, (*row, *tail), strict=True)) for row in ready])
        return
    places = [order.index(name) for name in compiled.positiontup]
    conn.exec_driver_sql(
        str(compiled), [tuple([full[p] for p in places]) for row in ready for full in ((*row, *tail),)]
    )
