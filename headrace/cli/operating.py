"""Verbs for what runs: serve, history, improve, report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.models import show_version
from headrace.cli.rendering import (
    AsJson,
    Channel,
    Set,
    Task,
    Where,
    emit,
    instant,
    interval,
    opened,
    progress_bar,
    table,
)

if TYPE_CHECKING:
    from headrace.release.controls import Served


def register(app: typer.Typer) -> None:
    app.command("serve")(serve)
    app.command("history")(history)
    app.command("improve")(improve)
    app.command("report")(report)


def serve(
    host: Annotated[str | None, typer.Option(help="Address; default: serve.host of the settings.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one.")] = None,
    where: Where = Path("."),
    settings: Set = None,
) -> None:
    """Answer requests over HTTP until stopped."""
    from headrace.server.running import start_server

    with opened(where, settings) as ws:
        start_server(ws, host=host, port=port)


def history(
    at: Annotated[str | None, typer.Option(help="Who answered at this instant, such as 2026-11-01T12:00Z.")] = None,
    channel: Channel = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check that no line was changed or is missing.")] = False,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Print the ledger: what was decided, when, by whom, why; or who answered at an instant."""
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
        lines = ledger.history(ws, task, channel=channel)
    rows = [(e.seq, e.at, e.task, e.channel or "all", e.kind, e.actor, e.reason) for e in lines]
    emit(lines, as_json, lambda: table(("", "at", "task", "channel", "what", "by", "why"), rows))


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


def improve(task: Task = None, where: Where = Path("."), settings: Set = None, as_json: AsJson = False) -> None:
    """Turn the wheel by one step: try a version made from new labels, or decide on the one being tried."""
    from headrace import loop

    with opened(where, settings) as ws, progress_bar("improve", quiet=as_json) as bar:
        result = loop.improve(ws, task=task, report=bar)
    emit(result, as_json, lambda: _show_step(result))


def _show_step(result: dict[str, Any]) -> None:
    if "feedback" in result:
        _show_feedback(result["feedback"])
    if result["step"] == "waiting":
        print(result.get("reason") or f"{result['n_new_labels']} new labels; a new version needs {result['n_needed']}.")
        return
    if result["step"] == "decision":
        print(f"Decision on {result['candidate']}: {result['verdict']}. {result['reason']}")
        return
    show_version(result["version"])
    compared = result["comparison"]
    parts = {"overall": compared["overall"], **compared["channels"]}
    rows = [(name, interval(part["difference"]), part["wins"], part["losses"]) for name, part in parts.items()]
    title = f"{result['candidate']} against {result['control']} on the same held-out rows"
    table(("channel", f"difference of {compared['main_metric']}", "wins", "losses"), rows, title=title)
    for gate in result["gates"]:
        print(f"  {'passed' if gate['passed'] else 'FAILED'}  {gate['gate']}: {gate['reason']}")
    if result["step"] == "gate":
        print(f"{result['candidate']} meets no traffic; {result['control']} stays in charge.")
    else:
        print(f"{result['candidate']} is tried beside {result['control']} ({result['step']}). Improve again to decide.")


def _show_feedback(facts: dict[str, Any]) -> None:
    """How many labels came back, and how many of them count."""
    if not facts["n_labels"]:
        return
    held = ", ".join(f"{n} ({why})" for why, n in facts["held_back"].items())
    print(f"{facts['n_labels']} labels from {facts['n_sources']} sources came back; {facts['n_counted']} count", end="")
    print(f". Held back: {held}." if held else ".")
    if facts["n_capped_sources"]:
        most = f"{facts['max_source_share']:.0%}"
        print(f"{facts['n_capped_sources']} sources count less, so that none is more than {most} of the rows.")
    if facts["left_out"]:
        print(f"Without a look at suspected errors and influence: {facts['left_out']}.")


def report(
    path: Annotated[Path | None, typer.Option("--to", help="File; default: report.html in the workspace.")] = None,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Draw what happened as one HTML file."""
    from headrace.registry import resolve

    with opened(where) as ws:
        written = resolve("headrace.console.report:write", purpose="the report")(ws, task=task, path=path)
    emit({"path": written}, as_json, lambda: print(f"Wrote {written}"))
