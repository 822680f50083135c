"""The verb usage: what keys, channels and tasks used, for bills."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.rendering import AsJson, Where, emit, opened, table

if TYPE_CHECKING:
    from headrace.access.usage import Usage


def register(app: typer.Typer) -> None:
    app.command("usage")(usage)


def usage(
    by: Annotated[
        list[str] | None, typer.Option(help="Told apart: key, channel or task; again for more. Default: all three.")
    ] = None,
    month: Annotated[str | None, typer.Option(help="Such as 2026-11, in UTC; default: all, each by itself.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the lines to this CSV file.")] = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Print what was asked of servers: requests, rows, tokens and seconds of workers, in each month."""
    from headrace.access import usage as stage

    with opened(where) as ws:
        found = stage.usage(ws, by=by or stage.BY, month=month)
    if csv is not None:
        stage.write_csv(found, csv)
    emit(stage.as_json(found), as_json, lambda: _show(found))


def _show(found: "Usage") -> None:
    from headrace.access.usage import COUNTS

    if not found.lines:
        print("Nothing was used yet.")
        return
    rows = [(line.month, *line.names.values(), *vars(line.used).values()) for line in found.lines]
    total = ("total", *("" for _ in found.names), *vars(found.total).values())
    headings = ("month", *found.names, *(name.removeprefix("n_") for name in COUNTS))
    table(headings, [*rows, total])
