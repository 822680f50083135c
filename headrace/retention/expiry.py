"""Predictions and feedback of a channel are deleted for good after its `keep_days`, by whole days (UTC).

Out of the store with all that was said of them and all that their surrogates stand for, out of the files of old
predictions, then out of the database's free pages and its log. What became a training row of them stays: that is what
an erasure is for. Killed at any moment, the
next run does it again; what is done is noted, so that files are read once a day.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from headrace import retention
from headrace.ids import first_id
from headrace.store import channels, predictions, subjects
from headrace.workspace import Workspace

_DONE = "expired.json"
"""In the state folder: the first day that is kept of each channel, as of the last run."""
_REMOVED_AT_ONCE = 500  # rows per transaction, so that a server's writes find gaps


@dataclass(frozen=True)
class Expired:
    """What a run deleted."""

    n_rows: int
    """Predictions, out of the store."""
    n_rows_in_files: int
    n_values: int
    """That surrogates stood for, and that did not come in again since."""
    channels: tuple[str, ...]
    """That keep predictions for a time."""


def expire(ws: Workspace) -> Expired:
    """Delete what is older than its channel keeps it.

    Raises:
        WrongState: another process moves or reads old predictions.
        Unavailable: something reads the database for so long that its log cannot be emptied.
    """
    limits = _limits(ws)
    days = {name: before for name, (_, before) in sorted(limits.items())}
    if not limits or days == _noted(ws):
        return Expired(0, 0, 0, tuple(days))
    by_id = dict(limits.values())
    n_in_files = retention.remove(ws, lambda row: _is_old(row, by_id), until=datetime.fromisoformat(max(days.values())))
    n_rows = sum(_removed(ws, channel_id, before) for channel_id, before in by_id.items())
    n_values = sum(_forgotten(ws, channel_id, before) for channel_id, before in by_id.items())
    if n_rows or n_in_files or n_values:
        ws.store.scrub()
    draft = ws.state_folder / f"{_DONE}.{os.getpid()}"
    draft.write_text(json.dumps(days) + "\n", "utf-8")
    os.replace(draft, ws.state_folder / _DONE)
    return Expired(n_rows, n_in_files, n_values, tuple(days))


def _limits(ws: Workspace) -> dict[str, tuple[str, str]]:
    """Channel to its id and the first day that it keeps, for those that do not keep all."""
    settings, found = ws.settings, {}
    with ws.store.read() as conn:
        known = channels.listing(conn)
    for one in known:
        table = settings.channels.get(one.name)
        keep_days = (table and table.keep_days) or settings.privacy.keep_days
        if keep_days:
            first = retention.midnight(ws.clock() - timedelta(days=keep_days))
            found[one.name] = (one.id, first.isoformat())
    return found


def _noted(ws: Workspace) -> dict[str, str] | None:
    try:
        noted: dict[str, str] = json.loads((ws.state_folder / _DONE).read_text("utf-8"))
    except (OSError, ValueError):  # never done, or cut off: once more
        return None
    return noted


def _first(day: str) -> str:
    """The least id of a prediction made from an instant on."""
    return first_id("prediction", datetime.fromisoformat(day))


def _is_old(row: Mapping[str, Any], limits: Mapping[str, str]) -> bool:
    before = limits.get(row["channel_id"])
    return before is not None and bool(row["id"] < _first(before))


def _removed(ws: Workspace, channel_id: str, before: str) -> int:
    n_rows, more = 0, True
    while more:
        with ws.store.write() as conn:
            ids = predictions.of_channel_before(conn, channel_id, _first(before), limit=_REMOVED_AT_ONCE)
            predictions.remove_for_good(conn, ids)
        n_rows += len(ids)
        more = len(ids) == _REMOVED_AT_ONCE
    return n_rows


def _forgotten(ws: Workspace, channel_id: str, before: str) -> int:
    with ws.store.write() as conn:
        return subjects.remove_before(conn, channel_id, datetime.fromisoformat(before))
