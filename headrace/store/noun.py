"""What every noun module needs: rows to records, and the origin that is stored on each row."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import Table, insert, text
from sqlalchemy.engine import Connection, Dialect, RowMapping

from headrace.version import VERSION

T = TypeVar("T")
_N_BOUND = 400  # values in a query, which may name them twice; SQLite allows 999 in old builds


def origin(config_hash: str) -> dict[str, str]:
    """The two columns that say which settings and which code made a row."""
    return {"config_hash": config_hash, "code_version": VERSION}


def as_record(kind: type[T], row: RowMapping | Mapping[str, Any]) -> T:
    """The record whose fields are columns of the same name."""
    return kind(**{f.name: row[f.name] for f in fields(kind)})  # type: ignore[arg-type]


def as_records(kind: type[T], rows: Sequence[RowMapping]) -> list[T]:
    return [as_record(kind, row) for row in rows]


def one_or_none(kind: type[T], row: Any) -> T | None:
    return None if row is None else as_record(kind, row)


def in_parts(values: Iterable[str]) -> Iterator[list[str]]:
    """As many values at a time as a query can have."""
    left = iter(values)
    while part := list(islice(left, _N_BOUND)):
        yield part


def lock_table(conn: Connection, table: Table) -> None:
    """Let no other transaction write to a table until this one ends; SQLite has one writer anyway."""
    if conn.dialect.name != "sqlite":
        conn.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))


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
    order = (*columns, *constants)
    statement, names, converters = _insertion(table, order, conn.dialect)
    ready = list(rows)
    if not ready:
        return
    tail = tuple(
        convert(value) if convert else value
        for convert, value in zip(converters[len(columns) :], constants.values(), strict=True)
    )
    converted = [(place, convert) for place, convert in enumerate(converters[: len(columns)]) if convert]
    full = []
    for row in ready:
        values = [*row, *tail]
        for place, convert in converted:
            values[place] = convert(values[place])
        full.append(values)
    if names is None:
        conn.exec_driver_sql(statement, [dict(zip(order, values, strict=True)) for values in full])
    elif names == order:
        conn.exec_driver_sql(statement, [tuple(values) for values in full])
    else:
        in_order = itemgetter(*(order.index(name) for name in names))
        conn.exec_driver_sql(statement, [in_order(values) for values in full])


@lru_cache(maxsize=32)  # compiling takes longer than writing a row
def _insertion(
    table: Table, columns: tuple[str, ...], dialect: Dialect
) -> tuple[str, tuple[str, ...] | None, list[Any]]:
    """The statement, the order of its values where they have no names, and what converts the value of each column."""
    compiled = insert(table).compile(dialect=dialect, column_keys=list(columns))
    converters = [table.c[name].type.dialect_impl(dialect).bind_processor(dialect) for name in columns]
    places = compiled.positiontup
    return str(compiled), None if places is None else tuple(places), converters
