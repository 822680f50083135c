"""What keys, channels and tasks used: counts by the hour (UTC), of each server process."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from headrace.records import Used
from headrace.store import schema

_USAGE = schema.usage
_COUNTS = tuple(Used.__dataclass_fields__)


class Place(NamedTuple):
    """What is counted apart."""

    key_id: str
    """Empty: no key was asked for, or none that counts was sent."""
    channel_id: str
    """Empty, as `task`: refused before that was read."""
    task: str
    hour: datetime


def add(conn: Connection, counts: Mapping[Place, Used], *, source: str) -> None:
    """Add to what is there.

    Args:
        source: names the process that counted.
    """
    dialect: Any = sqlite if conn.dialect.name == "sqlite" else postgresql
    adding = dialect.insert(_USAGE)
    sums = {name: _USAGE.c[name] + adding.excluded[name] for name in _COUNTS}
    statement = adding.on_conflict_do_update(index_elements=list(_USAGE.primary_key), set_=sums)
    rows = [{**place._asdict(), "source": source, **vars(used)} for place, used in counts.items()]
    if rows:
        conn.execute(statement, rows)


def rows_by_key(conn: Connection, *, since: datetime, until: datetime) -> dict[str, int]:
    """Rows answered in the hours from `since` until before `until`, of each key."""
    return _rows(conn, _USAGE.c.key_id, since, until)


def rows_by_channel(conn: Connection, *, since: datetime, until: datetime) -> dict[str, int]:
    """Rows answered in the hours from `since` until before `until`, of each channel, by its id."""
    return _rows(conn, _USAGE.c.channel_id, since, until)


def span(conn: Connection) -> tuple[datetime, datetime] | None:
    """The first and the last hour that anything was counted in."""
    first, last = conn.execute(select(func.min(_USAGE.c.hour), func.max(_USAGE.c.hour))).one()
    return None if first is None else (first, last)


def totals(
    conn: Connection, by: Sequence[str], *, since: datetime, until: datetime
) -> list[tuple[dict[str, str], Used]]:
    """Sums over the hours from `since` until before `until`.

    Args:
        by: of `key`, `channel` and `task`; none: all together.

    Returns:
        For each combination: `key` with `key_name`, `channel` by name and `task`, those of `by`; and its counts.
    """
    columns = [column.label(name) for column, name in _named(by)]
    query = (
        select(*columns, *(func.sum(_USAGE.c[name]).label(name) for name in _COUNTS))
        .select_from(
            _USAGE.outerjoin(schema.channels, schema.channels.c.id == _USAGE.c.channel_id).outerjoin(
                schema.api_keys, schema.api_keys.c.id == _USAGE.c.key_id
            )
        )
        .where(_USAGE.c.hour >= since, _USAGE.c.hour < until)
        .group_by(*(column for column, _ in _named(by)))
        .order_by(*(column for column, _ in _named(by)))
    )
    names = [column.name for column in columns]
    return [
        ({name: row[name] for name in names}, Used(**{name: row[name] or 0 for name in _COUNTS}))
        for row in conn.execute(query).mappings()
    ]


def _named(by: Sequence[str]) -> list[tuple[ColumnElement[Any], str]]:
    known: dict[str, list[tuple[ColumnElement[Any], str]]] = {
        "key": [(_USAGE.c.key_id, "key"), (func.coalesce(schema.api_keys.c.name, ""), "key_name")],
        "channel": [(func.coalesce(schema.channels.c.name, ""), "channel")],
        "task": [(_USAGE.c.task, "task")],
    }
    return [pair for name in by for pair in known[name]]


def _rows(conn: Connection, column: ColumnElement[str], since: datetime, until: datetime) -> dict[str, int]:
    query = select(column, func.sum(_USAGE.c.n_rows)).where(_USAGE.c.hour >= since, _USAGE.c.hour < until)
    return {name: int(n_rows) for name, n_rows in conn.execute(query.group_by(column))}
