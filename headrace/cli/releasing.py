"""The verbs of `release`: try a version beside the one in charge, look how it does, and decide."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headrace.cli.rendering import AsJson, Channel, Set, Task, Where, emit, opened, progress_bar
from headrace.cli.standing import show_plan, show_status

if TYPE_CHECKING:
    from headrace.records import LedgerEntry

Reason = Annotated[str, typer.Option(help="Why; goes to the ledger.")]
_release = typer.Typer(help="Try a version beside the one in charge, and decide.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(_release, name="release")


@_release.command("start")
def release_start(
    version: Annotated[str, typer.Argument(help="Version to try: a number, or TASK/NUMBER.")],
    policy: Annotated[str | None, typer.Option(help="Rule that decides; default: release.policy.")] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="Another version to try at once; again for more (bandit).")
    ] = None,
    despite: Annotated[
        str | None, typer.Option(help="Why it is tried though a gate fails; goes to the ledger.")
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option("--channel", help="Channel to try it in; again for more. Default: release.scope."),
    ] = None,
    task: Task = None,
    where: Where = Path("."),
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Try a version beside the one in charge, if it passes its gates."""
    from headrace.releasing import starting

    with opened(where, settings) as ws, progress_bar("release", quiet=as_json) as bar:
        made = starting.start(
            ws,
            candidate=version,
            task=task,
            policy=policy,
            scope=scope or (),
            others=also or (),
            despite=despite,
            report=bar,
        )
    emit(made, as_json, lambda: print(f"Opened {made.id} ({made.policy})"))


@_release.command("plan")
def release_plan(
    version: Annotated[str, typer.Argument(help="Version that would be tried: a number, or TASK/NUMBER.")],
    drop: Annotated[float, typer.Option(help="Points that it is worse; below 0 for a gain.")] = 2.0,
    price: Annotated[float | None, typer.Option(help="Of one label, in any currency.")] = None,
    label_share: Annotated[float, typer.Option(help="Of the answers that could use a label, how many get one.")] = 1.0,
    policy: Annotated[str | None, typer.Option(help="Rule that would decide; default: release.policy.")] = None,
    task: Task = None,
    where: Where = Path("."),
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Say how many requests and labels a release would take to find a drop, how long, and at what cost."""
    from headrace.releasing import planning

    with opened(where, settings) as ws, progress_bar("plan", quiet=as_json) as bar:
        found = planning.plan(
            ws, version, drop=drop, price=price, label_share=label_share, policy=policy, task=task, report=bar
        )
    emit(found, as_json, lambda: show_plan(found))


@_release.command("status")
def release_status(task: Task = None, where: Where = Path("."), as_json: AsJson = False) -> None:
    """Say who answers, who is tried, how that stands in each channel, and what it waits for."""
    from headrace.releasing.standing import release_status as look

    with opened(where) as ws:
        state = look(ws, task=task)
    emit(state, as_json, lambda: show_status(state))


@_release.command("promote")
def release_promote(
    version: Annotated[str | None, typer.Argument(help="Version; default: the one that the release tries.")] = None,
    reason: Annotated[
        str | None, typer.Option(help="Why, which goes to the ledger; a first version needs none.")
    ] = None,
    channel: Channel = None,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Put a version in charge by hand, of the whole task or of one channel."""
    from headrace.release import controls
    from headrace.releasing import starting

    with opened(where) as ws:
        entry = starting.promote(ws, version, task=task, channel=channel, reason=reason)
        control = controls.find_version(ws, entry.task, entry.version_id or "").name
    emit(entry, as_json, lambda: print(_in_charge(control, entry)))


@_release.command("rollback")
def release_rollback(
    to: Annotated[str | None, typer.Option(help="Version; default: the one before.")] = None,
    reason: Reason = "by hand",
    channel: Channel = None,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Put an earlier version back in charge, of the whole task or of one channel."""
    from headrace.release import controls, rollbacks

    with opened(where) as ws:
        entry = rollbacks.rollback(ws, to=to, task=task, channel=channel, reason=reason)
        control = controls.find_version(ws, entry.task, entry.version_id or "").name
    emit(entry, as_json, lambda: print(_in_charge(control, entry)))


@_release.command("reject")
def release_reject(
    reason: Reason = "by hand",
    channel: Channel = None,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Close the open release for bad: what it tried is not tried again."""
    from headrace.release import releases

    with opened(where) as ws:
        entry = releases.reject(ws, task=task, channel=channel, reason=reason)
    emit(entry, as_json, lambda: print(f"Rejected {entry.release_id}: {entry.reason}"))


@_release.command("stop")
def release_stop(
    reason: Reason = "by hand",
    channel: Channel = None,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Close the open release without a decision."""
    from headrace.release import releases

    with opened(where) as ws:
        entry = releases.stop(ws, task, channel=channel, reason=reason)
    emit(entry, as_json, lambda: print(f"Stopped {entry.release_id}: {entry.reason}"))


def _in_charge(version: str, entry: "LedgerEntry") -> str:
    where = f"channel {entry.channel}" if entry.channel else "the whole task"
    return f"{version} is in charge of {where}: {entry.reason}"
