"""Verbs for what goes on while a version is in charge: accuracy, drift."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.rendering import AsJson, Channel, Task, Where, emit, instant, opened, table

if TYPE_CHECKING:
    from headrace.feedback.accuracy import Live, Part
    from headrace.records import Interval


def register(app: typer.Typer) -> None:
    app.command("accuracy")(accuracy)
    app.command("drift")(drift)


def accuracy(
    channel: Channel = None,
    since: Annotated[str | None, typer.Option(help="Of answers from this day or instant on.")] = None,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Say how often live answers are right, by audits, in each channel and in all."""
    from headrace.feedback.accuracy import live

    first = instant("--since", since)
    with opened(where) as ws:
        found = live(ws, task, channel=channel, since=first)
    emit(found, as_json, lambda: _show_accuracy(found))


def _show_accuracy(live: "Live") -> None:
    if live.overall is None:
        print(f"No version of {live.task} is in charge yet.")
        return
    parts = {"all": live.overall, **live.channels}
    rows = [
        (name, part.version, part.n_requests, part.n_audits, part.n_unanswered, _ends(part.accuracy), *_told(part))
        for name, part in parts.items()
    ]
    head = ("channel", "version", "answers", "audits", "unanswered", "right [95 %]", "told of", "of them right")
    table(
        head, rows, title=f"{live.task}: answers up to {live.until:%Y-%m-%d %H:%M} UTC, {live.window_days:g} days ago"
    )
    for name, part in parts.items():
        if part.reason:
            print(f"{name}: no figure: {part.reason}.")
        elif part.n_unanswered:
            print(f"{name}: were unanswered audits like the answered ones, it would be {_ends(part.if_alike)}.")
        if part.volunteered.n:
            print(f"{name}: what users told without being asked is {part.volunteered.bias}.")


def _ends(found: "Interval | None") -> str:
    return "not known" if found is None else f"{found.estimate:.1%} [{found.low:.1%}, {found.high:.1%}]"


def _told(part: "Part") -> tuple[int, str]:
    told = part.volunteered
    return told.n, "-" if told.share_right is None else f"{told.share_right:.1%}"


def drift(
    accept: Annotated[
        bool, typer.Option("--accept", help="The change is to stay: what comes now is the new reference.")
    ] = False,
    channel: Annotated[str | None, typer.Option(help="With --accept: of this channel only.")] = None,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Look at the answers since the last look; say what has changed, since when, and whether answers are worse."""
    from headrace.feedback import drift as streams
    from headrace.watching import watch

    with opened(where) as ws:
        watched = watch(ws, task)
        if accept:
            streams.accept(ws, task, channel=channel)
        found = {**streams.standing(ws, task), "left_out": watched.left_out}
    emit(found, as_json, lambda: _show_drift(found))


def _show_drift(found: dict[str, Any]) -> None:
    rows = [
        (one["channel"] or "all", one["version"], *(_stream(one["streams"].get(name)) for name in _STREAMS))
        for one in found["watched"]
    ]
    if rows:
        until = found["looked_until"][:16].replace("T", " ")
        table(("channel", "version", *_STREAMS), rows, title=f"{found['task']}: looked at until {until} UTC")
    else:
        print("Nothing has been answered since a version took charge.")
    for alarm in found["alarms"]:
        print(f"ALARM {alarm['in_words']}.")
    if rows and not found["alarms"]:
        print("No change is known.")
    if found["left_out"]:
        print(f"Not watched: {found['left_out']}.")


_STREAMS = ("classes", "confidence", "errors", "embeddings")


def _stream(state: dict[str, Any] | None) -> str:
    if state is None:
        return "-"
    if "n_audits" in state:
        allowed = "" if state["allowed_share"] is None else f", {state['allowed_share']:.1%} allowed"
        return f"{state['n_audits']:,} audits{allowed}"
    return f"{state['n_answers']:,} answers" if state["is_watched"] else f"{state['n_gathered']:,} gathered"
