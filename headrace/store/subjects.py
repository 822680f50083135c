"""The keys of people whose values were replaced, and those values, encrypted."""

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete, exists, insert, select, update
from sqlalchemy.engine import Connection

from headrace.store import schema
from headrace.store.noun import in_parts

_KEYS = schema.subject_keys
_REPLACED = schema.replaced


class Replaced(NamedTuple):
    kind: str
    ciphertext: str
    wrapped: str


def wrapped_keys(conn: Connection, ids: Iterable[str]) -> dict[str, str]:
    """Those of the people that have a key, with it."""
    found: dict[str, str] = {}
    for part in in_parts(set(ids)):
        query = select(_KEYS.c.id, _KEYS.c.wrapped).where(_KEYS.c.id.in_(part))
        found.update((row.id, row.wrapped) for row in conn.execute(query))
    return found


def all_wrapped(conn: Connection) -> Iterator[tuple[str, str]]:
    for row in conn.execute(select(_KEYS.c.id, _KEYS.c.wrapped)).all():
        yield row.id, row.wrapped


def rewrap(conn: Connection, subject_id: str, wrapped: str) -> None:
    conn.execute(update(_KEYS).where(_KEYS.c.id == subject_id).values(wrapped=wrapped))


def add_key(conn: Connection, subject_id: str, *, channel_id: str, wrapped: str, now: datetime) -> None:
    conn.execute(insert(_KEYS).values(id=subject_id, channel_id=channel_id, wrapped=wrapped, created_at=now))


def there(conn: Connection, ids: Iterable[str]) -> dict[str, datetime]:
    """Those of the values that are kept, and since when."""
    found: dict[str, datetime] = {}
    for part in in_parts(ids):
        query = select(_REPLACED.c.id, _REPLACED.c.created_at).where(_REPLACED.c.id.in_(part))
        found.update((row.id, row.created_at) for row in conn.execute(query))
    return found


def add(
    conn: Connection, row_id: str, *, subject_id: str, kind: str, surrogate: str, ciphertext: str, now: datetime
) -> None:
    conn.execute(
        insert(_REPLACED).values(
            id=row_id, subject_id=subject_id, kind=kind, surrogate=surrogate, ciphertext=ciphertext, created_at=now
        )
    )


def with_surrogate(conn: Connection, surrogate: str) -> list[Replaced]:
    query = (
        select(_REPLACED.c.kind, _REPLACED.c.ciphertext, _KEYS.c.wrapped)
        .join(_KEYS, _KEYS.c.id == _REPLACED.c.subject_id)
        .where(_REPLACED.c.surrogate == surrogate)
        .order_by(_REPLACED.c.id)
    )
    return [Replaced(*row) for row in conn.execute(query)]


def is_any(conn: Connection) -> bool:
    return bool(conn.execute(select(exists().select_from(_KEYS))).scalar())


def of_channel(conn: Connection, channel_id: str) -> set[str]:
    """People of a channel who have a key."""
    return set(conn.execute(select(_KEYS.c.id).where(_KEYS.c.channel_id == channel_id)).scalars())


def remove_values(conn: Connection, ids: Iterable[str]) -> None:
    for part in in_parts(ids):
        conn.execute(delete(_REPLACED).where(_REPLACED.c.id.in_(part)))


def remove_before(conn: Connection, channel_id: str, before: datetime) -> int:
    """Delete a channel's values kept since before an instant, and the keys of people of whom nothing is; how many."""
    _overwrite_what_goes(conn)
    people = select(_KEYS.c.id).where(_KEYS.c.channel_id == channel_id)
    is_old = _REPLACED.c.subject_id.in_(people) & (_REPLACED.c.created_at < before)
    n_values = conn.execute(delete(_REPLACED).where(is_old)).rowcount
    is_left = exists().where(_REPLACED.c.subject_id == _KEYS.c.id)
    conn.execute(delete(_KEYS).where(_KEYS.c.channel_id == channel_id, ~is_left))
    return n_values


def remove(conn: Connection, ids: Collection[str]) -> None:
    """Delete the keys of people with all that was encrypted under them."""
    _overwrite_what_goes(conn)
    for part in in_parts(ids):
        conn.execute(delete(_REPLACED).where(_REPLACED.c.subject_id.in_(part)))
        conn.execute(delete(_KEYS).where(_KEYS.c.id.in_(part)))


def _overwrite_what_goes(conn: Connection) -> None:
    if conn.dialect.name == "sqlite":
        conn.exec_driver_sql("PRAGMA secure_delete=ON")
