"""Keys: made, listed, rotated, revoked.

    hr_live_4fXq0TbVw2Zk_<secret: 32 random bytes in base62>_<CRC-32 of all before it, in hex>

What is before the secret is the key's id, which is no secret. The store has the id and a digest of the whole key:
HMAC-SHA-256 under the workspace's pepper, a file that is in no database: who can write to the database alone can make
no key. A slow hash would add nothing to 256 random bits. The CRC tells a key that was cut or mistyped from one that is
not known, here and in scanners that look for keys where none should be.
"""

import base64
import hmac
import os
import re
import secrets
import string
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from headrace import auditing
from headrace.access.scopes import SCOPES
from headrace.errors import BadInput, NotFound, WrongState, nearest
from headrace.records import ApiKey
from headrace.secret_files import write_secret
from headrace.store import channels as channel_rows
from headrace.store import keys as rows
from headrace.workspace import Workspace

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

PEPPER = "pepper"
"""File in the state folder."""
PREFIXES = ("hr_live_", "hr_test_")

_ALPHABET = string.digits + string.ascii_letters
_ID_CHARS, _SECRET_CHARS = 12, 43  # 62 ** 43 > 2 ** 256
_SHAPE = re.compile(rf"(hr_(?:live|test)_[0-9A-Za-z]{{{_ID_CHARS}}})_[0-9A-Za-z]{{{_SECRET_CHARS}}}_([0-9a-f]{{8}})")
_PEPPER_BYTES = 32
_PEPPERED = "hmac"
_MOST_OVERLAP = timedelta(days=3660)
_END = datetime(9999, 12, 31, tzinfo=UTC)  # later than that no key expires
_LEAST_PER_S, _MOST_PER_S = 1e-6, 1e9
_MOST_PER_DAY = 2**31 - 1  # width of the column
_MAX_NAME_CHARS = 200  # width of the column


@dataclass(frozen=True)
class Made:
    """A key that was just made. Nobody can show it again."""

    key: str = field(repr=False)
    record: ApiKey


def create(
    ws: Workspace,
    name: str,
    *,
    scopes: Sequence[str],
    channels: Sequence[str] | None = None,
    expires_at: datetime | None = None,
    requests_per_s: float | None = None,
    rows_per_day: int | None = None,
    is_test: bool = False,
) -> Made:
    """Make a key. From the first one on, a server answers nobody without one.

    Args:
        scopes: what it allows, of `scopes.SCOPES`.
        channels: names of the channels that it may speak of; None: all, also those to come.
        requests_per_s: over time; None: `access.requests_per_s`.
        rows_per_day: None: `access.rows_per_day`.
        is_test: its requests take no part in releases and audits.

    Raises:
        BadInput: no scope or an unknown one, a name, a limit or an expiry that cannot be.
        NotFound: no such channel.
    """
    now = ws.clock()
    _check(name, scopes, expires_at, now)
    _check_limits(requests_per_s, rows_per_day)
    record = ApiKey(
        id=PREFIXES[is_test] + _random(_ID_CHARS),
        name=name,
        scopes=tuple(scope for scope in SCOPES if scope in scopes),
        channels=None if channels is None else tuple(dict.fromkeys(channels)),
        requests_per_s=requests_per_s,
        rows_per_day=rows_per_day,
        created_at=now,
        expires_at=expires_at,
    )

    def check_channels(conn: "Connection") -> None:
        for channel in record.channels or ():
            channel_rows.check_channel(conn, channel)

    return _write(ws, record, "key.create", check_channels)


def rotate(
    ws: Workspace, key_id: str, *, overlap: timedelta = timedelta(days=1), expires_at: datetime | None = None
) -> Made:
    """Make a key that takes the place of another: the same name, scopes, channels and limits.

    Args:
        overlap: how long the other one counts beside it.
        expires_at: None: as long from now as the other one was made for.

    Raises:
        NotFound: no such key.
        WrongState: it was revoked, or has expired.
        BadInput: an overlap or expiry that cannot be.
    """
    now, old = ws.clock(), find(ws, key_id)
    if not timedelta() <= overlap <= _MOST_OVERLAP:
        problem = f"an overlap is between nothing and {_MOST_OVERLAP.days} days"
        raise BadInput(problem, value=str(overlap), next_step="Leave it out for a day")
    if expires_at is None and old.expires_at is not None:
        expires_at = now + min(old.expires_at - old.created_at, _END - now)
    _check(old.name, old.scopes, expires_at, now)
    made_id = key_id[: len(PREFIXES[0])] + _random(_ID_CHARS)
    record = replace(old, id=made_id, created_at=now, expires_at=expires_at, last_used_at=None, replaces=old.id)

    def end_old(conn: "Connection") -> None:
        found = rows.find(conn, old.id)  # once more: it may have been revoked since
        assert found is not None  # no key is ever deleted
        if (stands := standing(found, now)) != "valid":
            raise WrongState(f"the key is {stands}", value=key_id, next_step="Make another: headrace key create")
        rows.expire(conn, old.id, now + overlap)

    return _write(ws, record, "key.rotate", end_old)


def revoke(ws: Workspace, key_id: str) -> ApiKey:
    """Have a key count no more, from now on and for ever; servers know within a second.

    Raises:
        NotFound: no such key.
        WrongState: it was revoked before.
    """
    find(ws, key_id)
    with ws.store.write() as conn:
        if not rows.revoke(conn, key_id, ws.clock()):
            raise WrongState("the key was revoked before", value=key_id, next_step="Nothing is to be done")
        auditing.note(ws, conn, "key.revoke", key_id)
    return find(ws, key_id)


def were_made(ws: Workspace) -> bool:
    """Whether there was ever a key, so that a server asks for one."""
    with ws.store.read() as conn:
        return bool(rows.state(conn)[0])


def listing(ws: Workspace) -> list[ApiKey]:
    """All keys, the oldest first; revoked and expired ones too."""
    with ws.store.read() as conn:
        return rows.listing(conn)


def standing(key: ApiKey, now: datetime) -> str:
    """valid, expired or revoked."""
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if _has_expired(key, now) else "valid"


def find(ws: Workspace, key_id: str) -> ApiKey:
    """The key of that id.

    Raises:
        NotFound: there is none.
        BadInput: what was given is a whole key.
    """
    if _SHAPE.fullmatch(key_id):
        raise BadInput(
            "this is a whole key, and a command line is seen by others",
            next_step=f"Name it by its id, {id_of(key_id)}; if others may have seen it, revoke that",
        )
    with ws.store.read() as conn:
        found = rows.find(conn, key_id)
    if found is None:
        raise NotFound("no such key", value=key_id, next_step="Run: headrace key list")
    return found


def id_of(key: str) -> str | None:
    """The id of what has the form of a key and fits its check digits; None of all else."""
    found = _SHAPE.fullmatch(key)
    if found is None or int(found[2], 16) != zlib.crc32(key[:-9].encode()):
        return None
    return found[1]


def digest(key: str, pepper: bytes) -> bytes:
    """32 bytes that tell nobody the key."""
    return hmac.digest(pepper, key.encode(), "sha256")


def read_pepper(ws: Workspace) -> bytes | None:
    """The workspace's pepper; None where it has none."""
    try:
        return (ws.state_folder / PEPPER).read_bytes()
    except FileNotFoundError:
        return None


def read_digest(written: str) -> bytes | None:
    """The digest that the store has of a key; None where no key is made like that, so that it never counts."""
    how, _, text = written.partition(":")
    with suppress(ValueError):
        return base64.b64decode(text, validate=True) if how == _PEPPERED else None
    return None


def _write(ws: Workspace, record: ApiKey, action: str, also: "Callable[[Connection], object]") -> Made:
    """Make the key of a record; `also` runs in its transaction, first."""
    body = f"{record.id}_{_random(_SECRET_CHARS)}"
    key = f"{body}_{zlib.crc32(body.encode()):08x}"
    pepper = _made_pepper(ws)
    secret_hash = f"{_PEPPERED}:{base64.b64encode(digest(key, pepper)).decode()}"
    with ws.store.write() as conn:
        also(conn)
        rows.add(conn, record, secret_hash=secret_hash, config_hash=ws.config_hash)
        auditing.note(ws, conn, action, record.id, facts=_told(record))
    return Made(key, record)


def _told(record: ApiKey) -> dict[str, Any]:
    """What the audit log says of a key."""
    facts: dict[str, Any] = {"scopes": list(record.scopes)}
    if record.channels is not None:
        facts["channels"] = list(record.channels)
    if record.expires_at is not None:
        facts["expires_at"] = record.expires_at.isoformat()
    return facts if record.replaces is None else facts | {"replaces": record.replaces}


def _random(n_chars: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(n_chars))


def _made_pepper(ws: Workspace) -> bytes:
    """The pepper, made now if there is none and no key was made with one."""
    pepper = read_pepper(ws)
    if pepper is not None:
        return pepper
    with ws.store.read() as conn:
        orphans = [key.id for key, written in rows.with_hashes(conn) if read_digest(written)]
    if orphans:
        raise WrongState(
            f"the file .headrace/{PEPPER} is gone, without which these keys do not count",
            value=", ".join(orphans),
            next_step="Put it back from a backup, or revoke them",
        )
    write_secret(ws.state_folder / PEPPER, os.urandom(_PEPPER_BYTES))
    return (ws.state_folder / PEPPER).read_bytes()  # another process may have been faster


def _check(name: str, scopes: Sequence[str], expires_at: datetime | None, now: datetime) -> None:
    if not 1 <= len(name) <= _MAX_NAME_CHARS or not name.isprintable():
        raise BadInput(
            f"a key's name is 1 to {_MAX_NAME_CHARS} characters in a line", value=name, next_step="Say who uses it"
        )
    if not scopes:
        raise BadInput("a key without a scope allows nothing", next_step=f"Give one: {', '.join(SCOPES)}")
    for scope in scopes:
        if scope not in SCOPES:
            raise BadInput("no such scope", value=scope, next_step=nearest(scope, list(SCOPES)))
    if expires_at is not None and not now < expires_at <= _END:
        raise BadInput(
            "a key expires between now and the year 9999", value=str(expires_at), next_step="Give another time"
        )


def _check_limits(requests_per_s: float | None, rows_per_day: int | None) -> None:
    if requests_per_s is not None and not _LEAST_PER_S <= requests_per_s <= _MOST_PER_S:
        problem = f"requests in a second are limited to a number from {_LEAST_PER_S} to {_MOST_PER_S:.0f}"
        raise BadInput(problem, value=requests_per_s, next_step="Leave it out for none")
    if rows_per_day is not None and not 1 <= rows_per_day <= _MOST_PER_DAY:
        problem = f"rows in a day are limited to a number from 1 to {_MOST_PER_DAY}"
        raise BadInput(problem, value=rows_per_day, next_step="Leave it out for none")


def _has_expired(key: ApiKey, now: datetime) -> bool:
    return key.expires_at is not None and key.expires_at <= now
