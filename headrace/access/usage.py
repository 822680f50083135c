"""What was used, by key, channel and task, in each month: what a team needs to bill a customer."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from headrace import cells
from headrace.errors import BadInput, Unusable, nearest
from headrace.store import usage as rows
from headrace.store.usage import Used
from headrace.workspace import Workspace

BY = ("key", "channel", "task")
COUNTS = tuple(Used.__dataclass_fields__)


@dataclass(frozen=True)
class UsageLine:
    """Of one month, and of one key, channel and task as far as they are told apart."""

    month: str
    """Such as 2026-11, in UTC."""
    names: dict[str, str]
    """`key` and `key_name`, `channel`, `task`; empty: no key was asked for, or it was refused before that was read."""
    used: Used


@dataclass(frozen=True)
class Usage:
    """What was used, and all of it together."""

    names: list[str]
    """Of `names` of every line."""
    lines: list[UsageLine]
    total: Used


def usage(ws: Workspace, *, by: Sequence[str] = BY, month: str | None = None) -> Usage:
    """What servers counted; what the last second brought may not be there yet.

    Args:
        by: what is told apart, of `key`, `channel` and `task`.
        month: such as 2026-11, in UTC; None: all, each by itself.

    Raises:
        BadInput: an unknown `by`, or no month.
    """
    for name in by:
        if name not in BY:
            raise BadInput("usage is not told apart by this", value=name, next_step=nearest(name, list(BY)))
    by = tuple(dict.fromkeys(by))
    lines = []
    with ws.store.read() as conn:
        span = rows.span(conn)
        months = [_month(month)] if month is not None else [] if span is None else list(_months(*span))
        for since in months:
            found = rows.totals(conn, by, since=since, until=_next(since))
            lines += [UsageLine(f"{since:%Y-%m}", names, used) for names, used in found if used != Used()]
    return Usage(rows.names_of(by), lines, sum((line.used for line in lines), Used()))


def as_json(found: Usage) -> dict[str, Any]:
    """`lines`, each flat, and `total`."""
    return {"lines": [flat(line) for line in found.lines], "total": vars(found.total)}


def flat(line: UsageLine) -> dict[str, Any]:
    """A line as one row of a table."""
    return {"month": line.month, **line.names, **vars(line.used)}


def write_csv(found: Usage, path: Path | str) -> None:
    """Write the lines to a CSV file, names first, without the total.

    Raises:
        Unusable: the file cannot be written.
    """
    names = ["month", *found.names, *COUNTS]
    try:
        with Path(path).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            for line in found.lines:
                names_of = {name: cells.safe(value) for name, value in line.names.items()}
                writer.writerow({**flat(line), **names_of})
    except OSError as error:
        raise Unusable(f"the file cannot be written: {error.strerror}", value=str(path), next_step="Check it") from None


def _month(text: str) -> datetime:
    try:
        month = datetime.strptime(text, "%Y-%m").replace(tzinfo=UTC)
        _next(month)  # the last month that there is has none
        return month
    except ValueError:
        raise BadInput("no such month", value=text, next_step="Write it as 2026-11") from None


def _months(first: datetime, last: datetime) -> Iterator[datetime]:
    at = first.replace(day=1, hour=0)
    while at <= last:
        yield at
        at = _next(at)


def _next(month: datetime) -> datetime:
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
