"""Verbs for what runs: serve, improve, report."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.models import show_version
from headrace.cli.rendering import (
    AsJson,
    Set,
    Task,
    Where,
    emit,
    interval,
    opened,
    progress_bar,
    table,
)


def register(app: typer.Typer) -> None:
    app.command("serve")(serve)
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
