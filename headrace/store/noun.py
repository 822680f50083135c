"""What every noun module needs: rows to records, and the origin that is stored on each row."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, TypeVar

from sqlalchemy.engine import RowMapping

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
