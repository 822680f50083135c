"""Keys of who may ask a server: never deleted, so that a workspace that had one stays closed."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, or_, select, update
from sqlalchemy.engine import Connection, RowMapping

from headrace.records import ApiKey
from headrace.store import schema
from headrace.store.noun import as_record, origin

_KEYS = schema.api_keys


def add(conn: Connection, key: ApiKey, *, secret_hash: str, config_hash: str) -> None:
    """
    Args:
        secret_hash: digest of the whole key, as access.keys makes it.
    """
    values: dict[str, Any] = vars(key) | {"scopes": list(key.scopes), "secret_hash": secret_hash}
    values["channels"] = None if key.channels is None else list(key.channels)
    conn.execute(insert(_KEYS).values(**values, **origin(config_hash)))


def find(conn: Connection, key_id: str) -> ApiKey | None:
    row = conn.execute(select(_KEYS).where(_KEYS.c.id == key_id)).mappings().first()
    return None if row is None else _key(row)


def listing(conn: Connection) -> list[ApiKey]:
    """All, the oldest first."""
    return [_key(row) for row in conn.execute(select(_KEYS).order_by(_KEYS.c.created_at, _KEYS.c.id)).mappings()]


def with_hashes(conn: Connection) -> list[tuple[ApiKey, str]]:
    """All that were not revoked, each with the digest of its secret."""
    query = select(_KEYS).where(_KEYS.c.revoked_at.is_(None))
    return [(_key(row), row["secret_hash"]) for row in conn.execute(query).mappings()]


def replaced(conn: Connection) -> dict[str, str]:
    """Id of each key that took the place of another one, to the id of that."""
    query = select(_KEYS.c.id, _KEYS.c.replaces).where(_KEYS.c.replaces.is_not(None))
    return {key_id: before for key_id, before in conn.execute(query)}


def state(conn: Connection) -> tuple[Any, ...]:
    """What differs after any change but that of `last_used_at`; the first is how many keys were ever made."""
    n, revoked, expires = func.count(), func.count(_KEYS.c.revoked_at), func.max(_KEYS.c.expires_at)
    newest, last = func.max(_KEYS.c.created_at), func.max(_KEYS.c.revoked_at)
    return tuple(conn.execute(select(n, revoked, expires, newest, last).select_from(_KEYS)).one())


def expire(conn: Connection, key_id: str, at: datetime) -> bool:
    """Have a key count no longer than until `at`; False if it did not anyway."""
    later = or_(_KEYS.c.expires_at.is_(None), _KEYS.c.expires_at > at)
    return conn.execute(update(_KEYS).where(_KEYS.c.id == key_id, later).values(expires_at=at)).rowcount == 1


def revoke(conn: Connection, key_id: str, at: datetime) -> bool:
    """Revoke a key; False if it was revoked already."""
    query = update(_KEYS).where(_KEYS.c.id == key_id, _KEYS.c.revoked_at.is_(None))
    return conn.execute(query.values(revoked_at=at)).rowcount == 1


def note_used(conn: Connection, used: Mapping[str, datetime]) -> None:
    """
    Args:
        used: id of a key to when it was last used.
    """
    for key_id, at in used.items():
        earlier = or_(_KEYS.c.last_used_at.is_(None), _KEYS.c.last_used_at < at)
        conn.execute(update(_KEYS).where(_KEYS.c.id == key_id, earlier).values(last_used_at=at))


def _key(row: RowMapping) -> ApiKey:
    channels = None if row["channels"] is None else tuple(row["channels"])
    return as_record(ApiKey, {**row, "scopes": tuple(row["scopes"]), "channels": channels})
