"""Channels and their labellers."""

from datetime import datetime

from sqlalchemy import insert, select
from sqlalchemy.engine import Connection

from headrace.errors import NotFound, nearest
from headrace.ids import new_id
from headrace.records import Channel
from headrace.store import schema
from headrace.store.noun import as_records, one_or_none

_CHANNELS = schema.channels
_LABELLERS = schema.labellers


def add(conn: Connection, channel: Channel) -> None:
    conn.execute(insert(_CHANNELS).values(**vars(channel)))


def find(conn: Connection, name: str) -> Channel | None:
    return one_or_none(Channel, conn.execute(select(_CHANNELS).where(_CHANNELS.c.name == name)).mappings().first())


def named(conn: Connection, name: str) -> Channel:
    """
    Raises:
        NotFound: no such channel; the message names the nearest, or how to add one.
    """
    found = find(conn, name)
    if found is None:
        known = [one.name for one in listing(conn)]
        hint = nearest(name, known) if known else f"Run: headrace channel add {name}"
        raise NotFound("no such channel", value=name, next_step=hint)
    return found


def check_channel(conn: Connection, name: str | None) -> None:
    """
    Raises:
        NotFound: see `named`; None is all channels.
    """
    if name is not None:
        named(conn, name)


def listing(conn: Connection) -> list[Channel]:
    return as_records(Channel, conn.execute(select(_CHANNELS).order_by(_CHANNELS.c.name)).mappings().all())


def labeller_ids(conn: Connection, channel_id: str, names: set[str], now: datetime) -> dict[str, str]:
    """Name to id for labellers of a channel, adding those not seen before."""
    query = select(_LABELLERS.c.name, _LABELLERS.c.id).where(_LABELLERS.c.channel_id == channel_id)
    known = {name: labeller_id for name, labeller_id in conn.execute(query)}
    fresh = {name: new_id("labeller") for name in sorted(names - known.keys())}
    if fresh:
        rows = [{"id": i, "channel_id": channel_id, "name": n, "created_at": now} for n, i in fresh.items()]
        conn.execute(insert(_LABELLERS), rows)
    return {name: (known | fresh)[name] for name in names}
