"""Verbs for what comes in: init, channel, import, check, snapshot, config."""

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.rendering import AsJson, Set, Task, Where, emit, opened, progress_bar, table

_channel = typer.Typer(help="Add and list channels.", no_args_is_help=True)
_config = typer.Typer(help="Look at the settings.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.command("init")(init)
    app.add_typer(_channel, name="channel")
    app.command("import")(import_)
    app.command("check")(check)
    app.command("snapshot")(snapshot)
    app.add_typer(_config, name="config")


def init(
    where: Annotated[Path, typer.Argument(help="Folder to make.")] = Path("."),
    task: Annotated[str, typer.Option(help="Name of the task.")] = "task",
    task_type: Annotated[str, typer.Option("--type", help="Task type.")] = "text-classification",
    labels: Annotated[str, typer.Option(help="Classes, separated by commas.")] = "",
    catalogue: Annotated[str, typer.Option(help="File of JSON lines with label and text, in that folder.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a workspace."""
    from headrace.loop import init as make

    names = tuple(name.strip() for name in labels.split(",") if name.strip())
    with make(where, task=task, task_type=task_type, labels=names, catalogue=catalogue) as ws:
        emit(
            {"workspace": ws.root, "task": task},
            as_json,
            lambda: print(f"Made a workspace in {ws.root}. Next: headrace channel add NAME"),
        )


@_channel.command("add")
def channel_add(
    name: str,
    description: Annotated[str, typer.Option(help="What it holds.")] = "",
    owner: Annotated[str, typer.Option(help="Who answers for it.")] = "",
    licence: Annotated[str, typer.Option(help="Under which terms it may be used.")] = "",
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Add a channel."""
    from headrace.data import channels

    with opened(where) as ws:
        channel = channels.add(ws, name, description=description, owner=owner, licence=licence)
        emit(channel, as_json, lambda: print(f"Added channel {name}. Next: headrace import {name} FILE"))


@_channel.command("list")
def channel_list(where: Where = Path("."), as_json: AsJson = False) -> None:
    """List the channels."""
    from headrace.data import channels

    with opened(where) as ws:
        found = channels.listing(ws)
        headings = ("channel", "owner", "licence", "description")
        rows = [(c.name, c.owner, c.licence, c.description) for c in found]
        emit(found, as_json, lambda: table(headings, rows))


def import_(
    channel: Annotated[str, typer.Argument(help="Channel the rows belong to.")],
    source: Annotated[str, typer.Argument(help="File, Hugging Face dataset, or database URL.")],
    format_: Annotated[str | None, typer.Option("--format", help="A source: csv, jsonl, conll, squad ...")] = None,
    text: Annotated[str | None, typer.Option(help="Column with the text; default: as the task type calls it.")] = None,
    pair: Annotated[str | None, typer.Option(help="Column with the second part of inputs with two.")] = None,
    label: Annotated[str, typer.Option(help="Column with the label.")] = "label",
    id_: Annotated[str, typer.Option("--id", help="Column with the row's own id.")] = "id",
    group: Annotated[str, typer.Option(help="Column whose equal values stay on one side of the split.")] = "group",
    query: Annotated[str | None, typer.Option(help="SELECT statement, for a database URL.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Import nothing if any row is bad.")] = False,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Take in rows; bad ones go to quarantine with their line and the reason."""
    from headrace.data.importing import import_rows

    with opened(where) as ws, progress_bar(f"import {channel}", quiet=as_json) as bar:
        report = import_rows(
            ws,
            channel,
            source,
            task=task,
            format=format_,
            text_column=text,
            pair_column=pair,
            label_column=label,
            id_column=id_,
            group_column=group,
            query=query,
            strict=strict,
            progress=lambda done, total: bar("rows", done, total),
        )
    emit(report, as_json, lambda: _show_import(report))


def _show_import(report: object) -> None:
    from headrace.records import ImportReport

    assert isinstance(report, ImportReport)
    print(
        f"{report.channel}: {report.n_rows} rows read, {report.n_added} added, {report.n_known} known already, "
        f"{report.n_labels} labels, {report.n_quarantined} to quarantine ({report.seconds:.1f} s)"
    )
    if report.n_quarantined:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(report.reasons.items()))
        print(f"  Quarantined: {reasons}. See them: {report.quarantine}")


def check(
    quarantine: Annotated[str | None, typer.Option(help="Show the quarantined rows of this import.")] = None,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Report the quality of the rows: duplicates, conflicts, leakage, balance, length."""
    with opened(where) as ws:
        if quarantine is not None:
            from headrace.data.importing import quarantined

            bad = quarantined(ws, quarantine)
            rows = [(r["line"], r["reason"], r["detail"], r["raw"]) for r in bad]
            emit(bad, as_json, lambda: table(("line", "reason", "detail", "row"), rows))
            return
        from headrace.loop import check_quality

        with progress_bar("check", quiet=as_json) as bar:
            report = check_quality(ws, task=task, report=bar)
        emit(report.as_json(), as_json, lambda: table(*report.rows()))


def snapshot(task: Task = None, where: Where = Path("."), settings: Set = None, as_json: AsJson = False) -> None:
    """Freeze the labelled rows into an immutable, hashed snapshot."""
    from headrace.trusting import freeze

    with opened(where, settings) as ws:
        made = freeze(ws, task=task)
    sides = ", ".join(f"{n} {side}" for side, n in made.n_by_side.items())
    emit(made, as_json, lambda: print(f"Snapshot {made.id}: {made.n_rows} rows ({sides}), hash {made.content_hash}"))


@_config.command("show")
def config_show(where: Where = Path("."), settings: Set = None, as_json: AsJson = False) -> None:
    """Print every setting with where it came from."""
    with opened(where, settings) as ws:
        rows = [(s.key, "" if s.value is None else str(s.value), s.source) for s in ws.shown]
        emit(ws.shown, as_json, lambda: table(("setting", "value", "from"), rows, title=f"hash {ws.config_hash}"))
