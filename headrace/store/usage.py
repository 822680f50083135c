"""What keys, channels and tasks used: counts by the hour (UTC), of each server process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from headrace.store import schema


@dataclass(frozen=True)
class Used:
    """Counts of what was asked of a server; of disjoint requests they add up."""

    n_requests: int = 0
    """Answered requests for predictions."""
    n_refused: int = 0
    """For too many requests or rows."""
    n_rows: int = 0
    """Answered, without those that the model failed on."""
    n_tokens: int = 0
    """Of those rows, about: a text's bytes by four, and two, up to the task's `max_tokens`."""
    seconds: float = 0.0
    """Of workers: of each batch the share that the tokens had of it."""

    def __add__(self, other: "Used") -> "Used":
        return Used(
            self.n_requests + other.n_requests,
            self.n_refused + other.n_refused,
            self.n_rows + other.n_rows,
            self.n_tokens + other.n_tokens,
            self.seconds + other.seconds,
        )


_USAGE = schema.usage
_COUNTS = tuple(Used.__dataclass_fields__)
_NAMED: Mapping[str, ColumnElement[Any]] = {
    "key": _USAGE.c.key_id,
    "key_name": schema.api_keys.c.name,
    "channel": schema.channels.c.name,
    "task": _USAGE.c.task,
}
_NAMES = {"key": ("key", "key_name"), "channel": ("channel",), "task": ("task",)}


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


def names_of(by: Sequence[str]) -> list[str]:
    """What `totals` names each combination by."""
    return [name for one in by for name in _NAMES[one]]


def totals(
    conn: Connection, by: Sequence[str], *, since: datetime, until: datetime
) -> list[tuple[dict[str, str], Used]]:
    """Sums over the hours from `since` until before `until`.

    Args:
        by: of `key`, `channel` and `task`; none: all together.

    Returns:
        For each combination: `key` with `key_name`, `channel` by name and `task`, those of `by`; and its counts.
    """
    names = names_of(by)
    columns = [_NAMED[name] for name in names]
    query = (
        select(*columns, *(func.sum(_USAGE.c[name]) for name in _COUNTS))
        .select_from(
            _USAGE.outerjoin(schema.channels, schema.channels.c.id == _USAGE.c.channel_id).outerjoin(
                schema.api_keys, schema.api_keys.c.id == _USAGE.c.key_id
            )
        )
        .where(_USAGE.c.hour >= since, _USAGE.c.hour < until)
        .group_by(*columns)
    )
    found = []
    for row in conn.execute(query):
        said, counts = row[: len(names)], row[len(names) :]
        found.append((dict(zip(names, (one or "" for one in said), strict=True)), Used(*(one or 0 for one in counts))))
    return sorted(found, key=lambda line: tuple(line[0].values()))


def _rows(conn: Connection, column: ColumnElement[str], since: datetime, until: datetime) -> dict[str, int]:
    query = select(column, func.sum(_USAGE.c.n_rows)).where(_USAGE.c.hour >= since, _USAGE.c.hour < until)
    return {name: int(n_rows) for name, n_rows in conn.execute(query.group_by(column))}
