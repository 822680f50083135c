"""What rows that stay say of somebody who goes: names of sources in the facts of snapshots, in suspensions and alarms.

The ledger cannot be changed, and nothing here writes a labeller or a text into it. A person may have, in a reason that
was given by hand: such lines are named.
"""

from collections.abc import Collection
from typing import Any

from headrace.lineage.workspace_files import Search
from headrace.store import erasures
from headrace.workspace import Workspace

_MAX_NAMES = 50  # that the ledger is searched for
_LEAST_CHARS = 3  # of a name that means somebody in a sentence
ERASED = "erased"


def forget(ws: Workspace, search: Search, sources: Collection[str]) -> None:
    """Take texts and sources out of what is told in rows that stay.

    Args:
        sources: as trust writes them, CHANNEL/LABELLER.
    """
    with ws.store.write() as conn:
        for told in erasures.told(conn):
            cleaned = without(told.value, search, frozenset(sources))
            if cleaned != told.value:
                erasures.rewrite(conn, told, cleaned)


def without(value: Any, search: Search, sources: frozenset[str], name: str = "") -> Any:
    """A JSON value in which what is looked for is replaced; entries of an object under such a key are left out."""
    if isinstance(value, str):
        is_one = value in sources or any(source in value.split() for source in sources)
        return ERASED if is_one or search.finds([(name, value)]) else value
    if isinstance(value, dict):
        kept = {key: inner for key, inner in value.items() if key not in sources and not search.is_in(key)}
        return {key: without(inner, search, sources, key) for key, inner in kept.items()}
    if isinstance(value, list):
        return [without(inner, search, sources, name) for inner in value]
    return value


def in_ledger(ws: Workspace, names: Collection[str]) -> list[int]:
    """Numbers of the ledger's lines in which people wrote one of some names."""
    wanted = sorted(name for name in names if len(name) >= _LEAST_CHARS)[:_MAX_NAMES]
    with ws.store.read() as conn:
        return erasures.ledger_lines_with(conn, wanted) if wanted else []
