"""What servers counted of a release's requests, per arm, channel and stage: running totals of each server process."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import func, insert, select, update
from sqlalchemy.engine import Connection

from headrace.records import Traffic
from headrace.store import schema

_TRAFFIC = schema.traffic
_COUNTS = tuple(Traffic.__dataclass_fields__)


def put(
    conn: Connection,
    release_id: str,
    counts: Mapping[tuple[str, str, int], Traffic],
    *,
    source: str,
    now: datetime,
) -> None:
    """Replace what a server process said before by what it has counted until now.

    Args:
        counts: (arm, id of the channel, stage) to the totals since the process started.
        source: names the process; no two may share one.
    """
    for (arm, channel_id, stage), total in counts.items():
        place = {"release_id": release_id, "arm": arm, "channel_id": channel_id, "source": source, "stage": stage}
        values = {**vars(total), "at": now}
        here = [_TRAFFIC.c[name] == value for name, value in place.items()]
        if not conn.execute(update(_TRAFFIC).where(*here).values(**values)).rowcount:
            conn.execute(insert(_TRAFFIC).values(**place, **values))


def totals(conn: Connection, release_id: str) -> dict[str, dict[str, Traffic]]:
    """Arm to name of the channel to the counts of all processes and stages together."""
    found: dict[str, dict[str, Traffic]] = {}
    for arms in by_stage(conn, release_id).values():
        for arm, by_channel in arms.items():
            mine = found.setdefault(arm, {})
            for name, counts in by_channel.items():
                mine[name] = mine.get(name, Traffic()) + counts
    return found


def by_stage(conn: Connection, release_id: str) -> dict[int, dict[str, dict[str, Traffic]]]:
    """Stage to arm to name of the channel to the counts of all processes together."""
    sums = [func.sum(_TRAFFIC.c[name]).label(name) for name in _COUNTS]
    query = (
        select(_TRAFFIC.c.stage, _TRAFFIC.c.arm, schema.channels.c.name, *sums)
        .join(schema.channels, schema.channels.c.id == _TRAFFIC.c.channel_id)
        .where(_TRAFFIC.c.release_id == release_id)
        .group_by(_TRAFFIC.c.stage, _TRAFFIC.c.arm, schema.channels.c.name)
        .order_by(_TRAFFIC.c.stage, _TRAFFIC.c.arm, schema.channels.c.name)
    )
    found: dict[int, dict[str, dict[str, Traffic]]] = {}
    for row in conn.execute(query).mappings():
        arms = found.setdefault(row["stage"], {})
        arms.setdefault(row["arm"], {})[row["name"]] = Traffic(*(int(row[name]) for name in _COUNTS))
    return found


def last_at(conn: Connection, release_id: str) -> dict[str, datetime]:
    """Arm to when a server last counted a request to it."""
    query = select(_TRAFFIC.c.arm, func.max(_TRAFFIC.c.at).label("at")).where(_TRAFFIC.c.release_id == release_id)
    return {row.arm: row.at for row in conn.execute(query.group_by(_TRAFFIC.c.arm))}
