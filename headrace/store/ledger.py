"""The append-only ledger: a chain (see chain.py) of lines that the database itself refuses to change or delete."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.engine import Connection

from headrace.records import LedgerEntry
from headrace.store import chain, schema
from headrace.store.noun import as_record, as_records, lock_table, origin

_LEDGER = schema.ledger
_CHANNELS = schema.channels
IN_CHARGE = ("promote", "rollback")
"""The kinds of line that put a version in charge."""


def lock(conn: Connection) -> None:
    """Let no other transaction append until this one ends; before the state is read that a line rests on."""
    lock_table(conn, _LEDGER)


def append(conn: Connection, *, config_hash: str, channel: str | None = None, **content: Any) -> LedgerEntry:
    """Write one line.

    Args:
        channel: name of a channel that is there; None: the line is about the whole task.
        content: the columns of the table but `seq` and the hashes.
    """
    channel_id = None if channel is None else conn.execute(select(_id_of(channel))).scalar_one()
    line = chain.append(conn, _LEDGER, {**content, "channel_id": channel_id, **origin(config_hash)})
    return entry(conn, line["seq"])


def line_hash(line: Mapping[str, Any]) -> str:
    """See `chain.line_hash`."""
    return chain.line_hash(_LEDGER, line)


def check(conn: Connection) -> chain.Checked:
    """Read every line and compute its hash again."""
    return chain.check(conn, _LEDGER)


def last_seq(conn: Connection) -> int:
    """Number of the newest line; a server watches it for changes of release."""
    return conn.execute(select(func.max(_LEDGER.c.seq))).scalar() or 0


def entry(conn: Connection, seq: int) -> LedgerEntry:
    return as_record(LedgerEntry, conn.execute(_lines().where(_LEDGER.c.seq == seq)).mappings().one())


def last(conn: Connection, task: str) -> LedgerEntry | None:
    """The newest line of a task."""
    seq = conn.execute(select(func.max(_LEDGER.c.seq)).where(_LEDGER.c.task == task)).scalar()
    return None if seq is None else entry(conn, seq)


def listing(conn: Connection, task: str | None = None, *, channel: str | None = None) -> list[LedgerEntry]:
    """Lines, oldest first; of one task or of all, with `channel` those about it or about the whole task."""
    query = _lines().order_by(_LEDGER.c.seq)
    if task is not None:
        query = query.where(_LEDGER.c.task == task)
    if channel is not None:
        query = query.where(or_(_LEDGER.c.channel_id.is_(None), _CHANNELS.c.name == channel))
    return as_records(LedgerEntry, conn.execute(query).mappings().all())


def of_release(conn: Connection, release_id: str) -> list[LedgerEntry]:
    """The lines about a release, oldest first."""
    query = _lines().where(_LEDGER.c.release_id == release_id).order_by(_LEDGER.c.seq)
    return as_records(LedgerEntry, conn.execute(query).mappings().all())


def changes(conn: Connection, task: str, channel: str | None) -> list[tuple[int, str, str]]:
    """(seq, kind, version id) of all lines that put a version in charge, oldest first.

    Args:
        channel: lines about it and about the whole task; None: those about the whole task only.
    """
    found: list[tuple[int, str, str]] = []
    for condition in _putting_in_charge(task, channel):
        query = select(_LEDGER.c.seq, _LEDGER.c.kind, _LEDGER.c.version_id).where(condition)
        found += [(row.seq, row.kind, row.version_id) for row in conn.execute(query)]
    return sorted(found)


def in_charge(conn: Connection, task: str, channel: str | None = None, *, at: datetime | None = None) -> int | None:
    """Number of the line that put the version in charge that answers for a channel, or answered at an instant.

    That is the newest of the lines about the channel and about the whole task. Newest is the highest number: clocks may
    go back, numbers do not.

    Args:
        channel: None: of the whole task, where no line about a channel says otherwise.
    """
    found = []
    for condition in _putting_in_charge(task, channel):
        query = select(_LEDGER.c.seq).where(condition)
        if at is not None:
            query = query.where(_LEDGER.c.at <= at)
        found.append(conn.execute(query.order_by(_LEDGER.c.seq.desc()).limit(1)).scalar())
    return max((seq for seq in found if seq is not None), default=None)


def control_id(conn: Connection, task: str, channel: str | None = None) -> str | None:
    """The version in charge of a channel, or of the whole task; None where none is."""
    return _version_of(conn, in_charge(conn, task, channel))


def controls(conn: Connection, task: str) -> dict[str | None, str]:
    """Who is in charge: under None the version of the whole task, under a channel the one that answers for it instead.

    Empty where no version is in charge.
    """
    whole = in_charge(conn, task)
    if whole is None:
        return {}
    newest = [
        select(func.max(_LEDGER.c.seq))
        .where(_LEDGER.c.task == task, _LEDGER.c.channel_id == _CHANNELS.c.id, _LEDGER.c.kind == kind)
        .scalar_subquery()
        for kind in IN_CHARGE
    ]
    found: dict[str | None, str] = {None: _version_of(conn, whole) or ""}
    for name, *seqs in conn.execute(select(_CHANNELS.c.name, *newest).order_by(_CHANNELS.c.name)):
        seq = max((seq for seq in seqs if seq is not None), default=0)
        if seq > whole:
            found[name] = _version_of(conn, seq) or ""
    return found


def all_lines(conn: Connection) -> Iterator[dict[str, Any]]:
    """All lines with all their columns, oldest first, a few at a time."""
    return chain.rows(conn, _LEDGER)


def _version_of(conn: Connection, seq: int | None) -> str | None:
    found: str | None = conn.execute(select(_LEDGER.c.version_id).where(_LEDGER.c.seq == seq)).scalar()
    return found


def _putting_in_charge(task: str, channel: str | None) -> Iterator[ColumnElement[bool]]:
    """The lines that may put a version in charge of a channel, as ranges of one index each; of the task with None."""
    for name in {channel, None}:
        same = _LEDGER.c.channel_id.is_(None) if name is None else _LEDGER.c.channel_id == _id_of(name)
        for kind in IN_CHARGE:
            yield and_(_LEDGER.c.task == task, same, _LEDGER.c.kind == kind)


def _id_of(channel: str) -> Any:
    return select(_CHANNELS.c.id).where(_CHANNELS.c.name == channel).scalar_subquery()


def _lines() -> Select[Any]:
    return select(_LEDGER, _CHANNELS.c.name.label("channel")).outerjoin(
        _CHANNELS, _CHANNELS.c.id == _LEDGER.c.channel_id
    )
