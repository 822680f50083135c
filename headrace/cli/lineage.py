"""Verbs for where rows came from and how they go: history, erase."""

import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.rendering import (
    AsJson,
    Channel,
    Set,
    Task,
    Where,
    answer_in_words,
    emit,
    instant,
    opened,
    progress_bar,
    table,
)
from headrace.errors import BadInput

if TYPE_CHECKING:
    from headrace.lineage.erasing import Erased, Plan
    from headrace.lineage.tracing import Trace
    from headrace.release.controls import Served

_history = typer.Typer(help="Print the ledger, or where a row came from and what used it.")


def register(app: typer.Typer) -> None:
    app.add_typer(_history, name="history")
    app.command("erase")(erase)


@_history.callback(invoke_without_command=True)
def history(
    context: typer.Context,
    at: Annotated[str | None, typer.Option(help="Who answered at this instant, such as 2026-11-01T12:00Z.")] = None,
    channel: Channel = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check that no line was changed or is missing.")] = False,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Print the ledger: what was decided, when, by whom, why; or who answered at an instant."""
    if context.invoked_subcommand is not None:
        return
    from headrace.release import controls, ledger

    moment = instant("--at", at)
    with opened(where) as ws:
        if verify:
            found = ledger.verify(ws)
            emit(found, as_json, lambda: _show_soundness(found))
            raise typer.Exit(0 if found["first_broken"] is None else 1)
        if moment is not None:
            served = controls.served_at(ws, moment, task=task, channel=channel)
            emit(served, as_json, lambda: _show_served(served))
            return
        lines, names = ledger.history(ws, task, channel=channel), controls.version_names(ws)
    rows = [(e.seq, e.at, e.channel or "all", e.kind, names.get(e.version_id or ""), e.actor, e.reason) for e in lines]
    emit(lines, as_json, lambda: table(("", "at", "channel", "what", "version", "by", "why"), rows))


def _show_soundness(found: dict[str, Any]) -> None:
    if found["first_broken"] is None:
        print(f"{found['n_lines']} lines, as they were written. Newest hash: {found['head'] or 'none'}")
    else:
        print(f"Line {found['first_broken']} is missing or not as it was written, of {found['n_lines']} lines.")


def _show_served(served: "Served") -> None:
    who = f"channel {served.channel}" if served.channel else f"task {served.task}"
    line = served.line
    print(f"At {served.at:%Y-%m-%d %H:%M:%S %Z}, {served.version} was in charge of {who},")
    print(f"since {served.since:%Y-%m-%d %H:%M:%S} UTC, by {line.actor} ({served.rule}): {line.reason}")
    print(f"Ledger line {line.seq}, {line.id}, {line.hash}")
    if served.tried is not None:
        shares = ", ".join(f"{arm} {share:g}" for arm, share in served.tried["weights"].items())
        versions = ", ".join(served.tried["versions"])
        print(f"Tried beside it: {versions} ({served.tried['policy']} {served.tried['release']}: {shares})")


@_history.command("row")
def row(
    row_id: Annotated[
        str, typer.Argument(metavar="ID", help="Of an example, label, feedback, prediction, snapshot, run or version.")
    ],
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Say where a row came from, and every snapshot, run, version, adapter and release that used it."""
    from headrace.lineage.tracing import trace

    with opened(where) as ws:
        found = trace(ws, row_id)
    emit(found, as_json, lambda: _show_trace(found))


def _show_trace(found: "Trace") -> None:
    print(f"{found.kind} {found.id}{'' if found.channel is None else f' of channel {found.channel}'}")
    for name, (first, *others) in _SHOWN.items():
        lines = getattr(found, name)
        if lines:
            print(f"\n{name}")
        for line in lines:
            told = [f"{one} {_in_words(line[one])}" for one in others if line.get(one) not in (None, [], {})]
            print(f"  {line[first]}  {', '.join(told)}")


_SHOWN: Mapping[str, tuple[str, ...]] = {
    "examples": ("id", "key", "source", "import_id", "prediction_id", "text", "text_pair"),
    "predictions": ("id", "at", "unit", "arm", "output"),
    "feedback": ("id", "labeller", "correction", "metric", "value", "event", "comment", "at"),
    "labels": ("id", "labeller", "origin", "value", "feedback_id"),
    "reviews": ("id", "reason", "state", "labeller", "answer"),
    "snapshots": ("id", "side", "target", "weight", "origin", "created_at"),
    "runs": ("id", "how", "method", "state"),
    "versions": ("name", "how", "run_id", "in_charge"),
    "adapters": ("version", "channel", "how"),
    "releases": ("id", "state", "versions", "started_at", "ended_at"),
}
"""Of each kind of row what is printed, its name first; `--json` has the rest."""


def _in_words(value: object) -> str:
    if isinstance(value, dict):
        return answer_in_words(value)
    if isinstance(value, list):
        return " and ".join(str(one) for one in value)
    return f"{value:%Y-%m-%d %H:%M:%S}" if isinstance(value, datetime) else str(value)


def erase(
    labeller: Annotated[str | None, typer.Option(help="What this labeller of --channel said and asked.")] = None,
    channel: Annotated[str | None, typer.Option(help="All of this channel, or where the labeller is.")] = None,
    example: Annotated[str | None, typer.Option(help="This example, and its input in its channel.")] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Train what is in charge again without what was erased.")
    ] = False,
    files: Annotated[
        bool | None,
        typer.Option(
            "--files/--keep-files", help="Take it out of files of yours in the workspace; with --yes, leave them."
        ),
    ] = None,
    verify: Annotated[Path | None, typer.Option(help="Only check this receipt.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    where: Where = Path("."),
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Erase a labeller, a channel or an example for good, from the store, the files and restored backups.

    Without options it lists what was erased, and by when versions that used it should be replaced.
    """
    given = {"labeller": labeller, "channel": channel, "example": example}
    with opened(where, settings) as ws:
        if verify is not None:
            from headrace.lineage import receipts

            receipt = receipts.verify(ws, verify)
            emit(receipt, as_json, lambda: print(f"As it was signed: {receipt['id']}, done {receipt['done_at']}"))
            return
        result: dict[str, Any] = {}
        if any(given.values()):
            from headrace.lineage import erasing

            _ask(erasing.plan(ws, **given), yes=yes, as_json=as_json)
            with progress_bar("erase", quiet=as_json) as bar:
                result["erased"] = erasing.erase(
                    ws, **given, keep_files=not (files or (files is None and not yes)), report=bar
                )
        if rebuild:
            from headrace.lineage import rebuilding

            with progress_bar("rebuild", quiet=as_json) as bar:
                result["rebuilt"] = rebuilding.rebuild(ws, report=bar)
        if not result:
            from headrace.lineage import erasing

            result["erasures"] = erasing.listing(ws)
    emit(result, as_json, lambda: _show_result(result))


def _ask(planned: "Plan", *, yes: bool, as_json: bool) -> None:
    """Print what will go, and go on only if that is wanted.

    Raises:
        BadInput: nobody can be asked.
    """
    if not as_json:
        _show_plan(planned)
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise BadInput("an erasure cannot be taken back", value="nobody to ask", next_step="Say --yes if you mean it")
    typer.confirm("Erase it for good?", abort=True)


def _show_plan(planned: "Plan") -> None:
    print(f"This takes out of channel {planned.channel}, for good:")
    for name, n in planned.rows.items():
        print(f"  {n} {name.replace('_', ' ')}")
    print("  what old predictions in files, caches and logs hold of it")
    if planned.snapshots:
        print(f"  the files of snapshots {', '.join(planned.snapshots)}")
    for path in planned.files:
        print(f"  {path}")
    if planned.versions:
        print(f"Made with it: {', '.join(planned.versions)}. In charge: {', '.join(planned.in_charge) or 'none'}.")


def _show_result(result: Mapping[str, Any]) -> None:
    if "erased" in result:
        _show_erased(result["erased"])
    for one in result.get("rebuilt", ()):
        if one["version"] is None:
            print(f"{one['task']}: {one['reason']}; nothing to train.")
        else:
            print(f"{one['task']}: {one['reason']}. Made {one['version']} without it.")
            print(f"Next: headrace release start {one['version'].rpartition('/')[2]} --task {one['task']}")
    if result.get("rebuilt") == []:
        print("Nothing waits to be rebuilt.")
    if result.get("erasures") == []:
        print("Nothing was erased yet.")
    for one in result.get("erasures", ()):
        print(f"{one['id']}  {one['at']:%Y-%m-%d %H:%M}  {one['kind']}, {one['channel']}: {_due(one)}")


def _due(one: Mapping[str, Any]) -> str:
    if one["state"] != "done":
        return "not finished, the next erasure does that"
    if not one["versions"]:
        return "no version used it"
    used = f"{', '.join(one['versions'])} used it"
    if not one["in_charge"]:
        return f"{used}; none is in charge"
    made = f"; {', '.join(one['made'])} made, not in charge everywhere yet" if one["made"] else ""
    return f"{used}; to be replaced by {one['retrain_by']:%Y-%m-%d}{', which is over' if one['is_late'] else ''}{made}"


def _show_erased(done: "Erased") -> None:
    n_rows = sum(done.plan.rows.values())
    print(f"Erased {done.id}: {n_rows} rows of the store, {done.n_log_rows} old predictions in files.")
    for path in done.files_left:
        print(f"Left, a file of yours that holds some of it (--files takes it out): {path}")
    if done.ledger_lines:
        print(f"Somebody wrote such a name into the ledger, which keeps it: lines {done.ledger_lines}")
    if done.plan.versions:
        print(f"Replace {', '.join(done.plan.versions)} by {done.retrain_by:%Y-%m-%d}: headrace erase --rebuild")
    print(f"Receipt: {done.receipt}")
