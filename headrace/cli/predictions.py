"""Verbs for the prediction log: read it, move what is old."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer

from headrace.cli.rendering import AsJson, Set, Task, Where, emit, instant, opened, plain

_predictions = typer.Typer(
    help="Read the prediction log, move what is old out of the store, or delete it.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    app.add_typer(_predictions, name="predictions")


@_predictions.command("export")
def export(
    out: Annotated[Path | None, typer.Argument(help="File of JSON lines; none: standard output.")] = None,
    channel: Annotated[str | None, typer.Option(help="Of this channel.")] = None,
    unit: Annotated[str | None, typer.Option(help="Of this unit.")] = None,
    since: Annotated[str | None, typer.Option(help="From this day or instant on, such as 2026-03-01.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to this day or instant, without it.")] = None,
    task: Task = None,
    where: Where = Path("."),
) -> None:
    """Write logged predictions as JSON lines, those in files and those in the store."""
    from headrace.retention import read

    first, last = instant("--since", since), instant("--until", until)
    with opened(where) as ws, _opened_for_writing(out) as file:
        n_rows = 0
        for one in read(ws, task=task, channel=channel, unit=unit, since=first, until=last):
            file.write(json.dumps(plain(one), ensure_ascii=False) + "\n")
            n_rows += 1
    print(f"{n_rows} predictions", file=sys.stderr)


@_predictions.command("move")
def move(where: Where = Path("."), settings: Set = None, as_json: AsJson = False) -> None:
    """Move what is older than serve.log_keep_days to files, as a server does now and then."""
    from headrace import retention

    with opened(where, settings) as ws:
        moved = retention.move(ws)
    removed = f"; deleted files of {', '.join(moved.days_removed)}" if moved.days_removed else ""
    emit(moved, as_json, lambda: print(f"{moved.n_rows} predictions moved to {moved.n_files} files{removed}"))


@_predictions.command("expire")
def expire(where: Where = Path("."), settings: Set = None, as_json: AsJson = False) -> None:
    """Delete for good what is older than its channel's keep_days, as a server does once a day."""
    from headrace.retention.expiry import expire

    with opened(where, settings) as ws:
        done = expire(ws)
    n_rows = done.n_rows + done.n_rows_in_files
    told = f"{n_rows} predictions deleted, and {done.n_values} values that surrogates stood for"
    emit(done, as_json, lambda: print(f"{told}; {len(done.channels)} channels keep for a time"))


@contextmanager
def _opened_for_writing(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    with path.open("w", encoding="utf-8") as file:
        yield file
