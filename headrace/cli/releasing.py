"""The verbs of `release`: try a version beside the one in charge, look how it does, and decide."""

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.rendering import AsJson, Set, Task, Where, emit, opened, progress_bar, table

_release = typer.Typer(help="Try a version beside the one in charge, and decide.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(_release, name="release")


@_release.command("start")
def release_start(
    version: Annotated[str, typer.Argument(help="Version to try: a number, or TASK/NUMBER.")],
    policy: Annotated[str | None, typer.Option(help="Rule that decides; default: release.policy.")] = None,
    despite: Annotated[
        str | None, typer.Option(help="Why it is tried though a gate fails; goes to the ledger.")
    ] = None,
    task: Task = None,
    where: Where = Path("."),
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Try a version beside the one in charge, if it passes its gates."""
    from headrace import releasing

    with opened(where, settings) as ws, progress_bar("release", quiet=as_json) as bar:
        made = releasing.start(ws, candidate=version, task=task, policy=policy, despite=despite, report=bar)
    emit(made, as_json, lambda: print(f"Opened {made.id} ({made.policy})"))


@_release.command("status")
def release_status(task: Task = None, where: Where = Path("."), as_json: AsJson = False) -> None:
    """Say who answers, who is tried, and what the evidence says."""
    from headrace.loop import release_status as look

    with opened(where) as ws:
        state = look(ws, task=task)
    rows = [(k, "-" if state[k] is None else state[k]) for k in state if k != "evidence"]
    emit(state, as_json, lambda: table(("", "release"), rows))


@_release.command("promote")
def release_promote(
    version: Annotated[str, typer.Argument(help="Version to put in charge.")],
    reason: Annotated[str, typer.Option(help="Why; goes to the ledger.")] = "by hand",
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Put a version in charge by hand."""
    from headrace.release import releases

    with opened(where) as ws:
        entry = releases.promote(ws, version, task=task, reason=reason)
    emit(entry, as_json, lambda: print(f"{version} is in charge"))


@_release.command("rollback")
def release_rollback(
    to: Annotated[str | None, typer.Option(help="Version; default: the one before.")] = None,
    reason: Annotated[str, typer.Option(help="Why; goes to the ledger.")] = "by hand",
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Put an earlier version back in charge."""
    from headrace.release import releases

    with opened(where) as ws:
        entry = releases.rollback(ws, to=to, task=task, reason=reason)
    emit(entry, as_json, lambda: print(entry.reason))


@_release.command("stop")
def release_stop(task: Task = None, where: Where = Path("."), as_json: AsJson = False) -> None:
    """Close the open release without a decision."""
    from headrace.release import releases

    with opened(where) as ws:
        entry = releases.stop(ws, task)
    emit(entry, as_json, lambda: print(entry.reason))
