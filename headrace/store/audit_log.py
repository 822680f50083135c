"""SQL of the audit log: an append-only chain (see chain.py) of who did what, when."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.engine import Connection

from headrace.store import chain, schema
from headrace.store.noun import as_record, as_records, one_or_none, origin

_LOG = schema.audit_log


@dataclass(frozen=True)
class AuditLine:
    """One line of the audit log: who did what. Never changed, and free of personal data."""

    seq: int
    actor: str
    """Id of a key, or `user:NAME` of the machine."""
    action: str
    """A noun and a verb, such as `key.create`."""
    object: str
    before_hash: str | None
    after_hash: str | None
    request_id: str | None
    facts: dict[str, Any]
    at: datetime
    config_hash: str
    hash: str
    """sha256 over the line with the hash of the line before."""


def append(conn: Connection, content: Mapping[str, Any], *, config_hash: str) -> AuditLine:
    """Write one line; nobody else appends until the transaction ends.

    Args:
        content: the columns but `seq`, the hashes of the chain and the origin.
    """
    return as_record(AuditLine, chain.append(conn, _LOG, {**content, **origin(config_hash)}))


def head(conn: Connection) -> tuple[int, str]:
    """Number and hash of the newest line; 0 and nothing where there is none."""
    return chain.head(conn, _LOG)


def check(conn: Connection, anchors: Iterable[tuple[int, str]] = ()) -> chain.Checked:
    """Read every line and compute its hash again; see `chain.check`."""
    return chain.check(conn, _LOG, anchors)


def newest(conn: Connection, action: str) -> AuditLine | None:
    """The last line of an action."""
    query = select(_LOG).where(_LOG.c.action == action).order_by(_LOG.c.seq.desc()).limit(1)
    return one_or_none(AuditLine, conn.execute(query).mappings().first())


def listing(
    conn: Connection, *, action: str | None = None, actor: str | None = None, since: int = 0, limit: int | None = None
) -> list[AuditLine]:
    """Lines with a number above `since`, oldest first; with `limit` the last so many of them."""
    query = select(_LOG).where(_LOG.c.seq > since).order_by(_LOG.c.seq.desc()).limit(limit)
    if action is not None:
        query = query.where(_LOG.c.action == action)
    if actor is not None:
        query = query.where(_LOG.c.actor == actor)
    return as_records(AuditLine, conn.execute(query).mappings().all())[::-1]
