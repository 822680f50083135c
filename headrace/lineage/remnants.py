"""What rows that stay say of somebody who goes: names of sources in the facts of snapshots, in suspensions and alarms.

The ledger cannot be changed, and nothing here writes a labeller or a text into it. A person may have, in a reason that
was given by hand: such lines are named.
"""

from collections.abc import Collection
from typing import Any

from headrace.lineage.searching import LEAST_CHARS, Search
from headrace.store import erasures
from headrace.workspace import Workspace

_MAX_NAMES = 50  # that the ledger is searched for
ERASED = "erased"


def forget(ws: Workspace, search: Search) -> None:
    """Take texts and names out of what is told in rows that stay."""
    with ws.store.write() as conn:
        for told in erasures.told(conn):
            cleaned = without(told.value, search, told.column.name)
            if isinstance(cleaned, str):
                cleaned = search.without_names(cleaned, ERASED)
            if cleaned != told.value:
                erasures.rewrite(conn, told, cleaned)


def without(value: Any, search: Search, name: str = "") -> Any:
    """A JSON value in which what is looked for is replaced; entries of an object under such a key are left out."""
    if isinstance(value, str):
        return ERASED if search.finds([(name, value)]) else value
    if isinstance(value, dict):
        return {key: without(inner, search, key) for key, inner in value.items() if not search.is_in(key)}
    if isinstance(value, list):
        return [without(inner, search, name) for inner in value]
    return value


def in_ledger(ws: Workspace, names: Collection[str]) -> list[int]:
    """Numbers of the ledger's lines in which people wrote one of some names."""
    wanted = sorted(name for name in names if len(name) >= LEAST_CHARS)[:_MAX_NAMES]
    with ws.store.read() as conn:
        return erasures.ledger_lines_with(conn, wanted) if wanted else []
