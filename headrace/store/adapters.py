"""Adapters of channels: what each adds to a version's shared model, and the evidence for it."""

from collections.abc import Sequence

from sqlalchemy import insert, select
from sqlalchemy.engine import Connection

from headrace.records import Adapter
from headrace.store import schema
from headrace.store.noun import as_records

_ADAPTERS = schema.adapters
_CHANNELS = schema.channels


def add(conn: Connection, version_id: str, adapters: Sequence[Adapter]) -> None:
    """Write what was decided about each channel of a version.

    Raises:
        KeyError: no such channel.
    """
    ids = {name: channel_id for name, channel_id in conn.execute(select(_CHANNELS.c.name, _CHANNELS.c.id))}
    rows = [
        {
            "version_id": version_id,
            "channel_id": ids[one.channel],
            "artifact": one.artifact,
            "weights": one.weights,
            "is_kept": one.is_kept,
            "evidence": one.evidence,
        }
        for one in adapters
    ]
    if rows:
        conn.execute(insert(_ADAPTERS), rows)


def of_version(conn: Connection, version_id: str) -> list[Adapter]:
    """Every channel that was looked at, by name; only those that are kept have an artifact."""
    query = (
        select(_ADAPTERS, _CHANNELS.c.name.label("channel"))
        .join(_CHANNELS, _CHANNELS.c.id == _ADAPTERS.c.channel_id)
        .where(_ADAPTERS.c.version_id == version_id)
        .order_by(_CHANNELS.c.name)
    )
    return as_records(Adapter, conn.execute(query).mappings().all())
