"""Verbs for feedback: give it, one by one or from a file, and look at it."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from headrace.cli.rendering import AsJson, Channel, Task, Where, emit, instant, opened, plain, table

if TYPE_CHECKING:
    from headrace.feedback.signals import Heard, Signal
    from headrace.records import Feedback

_MAX_SHOWN = 10
_ONE = "give"


class _GivesByDefault(TyperGroup):
    """Takes what names no verb as an argument of `give`; typer has no such group."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [_ONE, *args]
        return super().parse_args(ctx, args)


_feedback = typer.Typer(
    cls=_GivesByDefault, help="Say what came of predictions, or see what was said.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    app.add_typer(_feedback, name="feedback")


@_feedback.command(_ONE)
def give(
    prediction: Annotated[str, typer.Argument(help="Id of the prediction.")],
    correction: Annotated[str | None, typer.Option(help="The right answer.")] = None,
    metric: Annotated[str | None, typer.Option(help="Name of a metric that headrace.toml declares.")] = None,
    value: Annotated[str | None, typer.Option(help="Value of the metric: a number, true or false.")] = None,
    comment: Annotated[str | None, typer.Option(help="Free text.")] = None,
    event: Annotated[str | None, typer.Option(help="shown, clicked, accepted, edited or escalated.")] = None,
    channel: Annotated[str | None, typer.Option(help="Who says so; another channel's prediction is none.")] = None,
    labeller: Annotated[str, typer.Option(help="Who says so.")] = "anonymous",
    key: Annotated[str | None, typer.Option(help="Idempotency key: taken once, however often it comes.")] = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Say what was right, how good it was, what the user did, or anything. The word give may be left out."""
    from headrace.feedback import intake

    with opened(where) as ws:
        given = intake.give(
            ws,
            prediction,
            correction=correction,
            metric=metric,
            value=None if value is None else _number(value),
            comment=comment,
            event=event,
            channel=channel,
            labeller=labeller,
            idempotency_key=key,
        )
    emit(given, as_json, lambda: print(f"Recorded {given.id}"))


@_feedback.command("batch")
def batch(
    source: Annotated[Path, typer.Argument(help="File of JSON lines, each as a line of /v1/feedback/stream.")],
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Take feedback from a file. Lines that are wrong keep no others out; exit status 2 if there are any."""
    from headrace.errors import HeadraceError
    from headrace.feedback import intake

    n_taken, refused = 0, []
    with opened(where) as ws:
        for line, taken in intake.give_file(ws, source):
            if isinstance(taken, HeadraceError):
                refused.append({"line": line, **taken.envelope()})
            else:
                n_taken += 1
    result = {"n_taken": n_taken, "n_refused": len(refused), "refused": refused}
    emit(result, as_json, lambda: _show_batch(n_taken, refused))
    raise typer.Exit(2 if refused else 0)


@_feedback.command("list")
def listing(
    channel: Channel = None,
    kind: Annotated[str | None, typer.Option(help="correction, metric, comment or event.")] = None,
    labeller: Annotated[str | None, typer.Option(help="Of this labeller.")] = None,
    since: Annotated[str | None, typer.Option(help="From this day or instant on, such as 2026-03-01.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 20,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Print the newest feedback."""
    from headrace.feedback import signals

    moment = instant("--since", since)
    with opened(where) as ws:
        found = signals.listing(ws, task, channel=channel, kind=kind, labeller=labeller, since=moment, limit=limit)
    emit(found, as_json, lambda: _show_list(found))


@_feedback.command("summary")
def summary(
    channel: Channel = None,
    since: Annotated[str | None, typer.Option(help="From this day or instant on, such as 2026-03-01.")] = None,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Print what metrics and events say of each version in each channel."""
    from headrace.feedback import signals

    moment = instant("--since", since)
    with opened(where) as ws:
        found = signals.summary(ws, task, channel=channel, since=moment)
    emit(found, as_json, lambda: _show_summary(found))


def _show_batch(n_taken: int, refused: "list[dict[str, Any]]") -> None:
    for one in refused[:_MAX_SHOWN]:
        error = one["error"]
        print(f"Line {one['line']}: {error['message']}: {error['value']}. {error['next_step']}", file=sys.stderr)
    if len(refused) > _MAX_SHOWN:
        print(f"and {len(refused) - _MAX_SHOWN} more; --json has all of them", file=sys.stderr)
    print(f"{n_taken} recorded, {len(refused)} refused")


def _show_list(found: "list[Heard]") -> None:
    rows = [
        (
            one.feedback.at,
            one.channel,
            one.feedback.labeller,
            one.feedback.kind + (" (replaced)" if one.is_replaced else ""),
            _in_words(one.feedback),
            one.feedback.prediction_id,
        )
        for one in found
    ]
    table(("at", "channel", "labeller", "kind", "said", "prediction"), rows)


def _show_summary(found: "list[Signal]") -> None:
    rows = [
        (
            one.channel,
            one.version,
            one.name,
            one.better,
            one.n_answers,
            "not known" if one.mean is None else f"{one.mean.estimate:.3g} [{one.mean.low:.3g}, {one.mean.high:.3g}]",
            ", ".join(f"{event} {n}" for event, n in one.counts.items()),
        )
        for one in found
    ]
    table(("channel", "version", "signal", "better", "answers", "mean", "events"), rows)
    print("Volunteered, so not a sample of all answers; headrace accuracy has what audits say.")


def _in_words(feedback: "Feedback") -> str:
    if feedback.kind == "metric":
        return f"{feedback.metric} = {feedback.value:g}"
    said = {"correction": feedback.correction, "comment": feedback.comment, "event": feedback.event}[feedback.kind]
    return said if isinstance(said, str) else json.dumps(plain(said), ensure_ascii=False)


def _number(text: str) -> float:
    """A value as typed: a number, or a truth.

    Raises:
        BadInput: it is neither.
    """
    from headrace.errors import BadInput

    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        raise BadInput("the value of a metric is a number, true or false", value=text, next_step="Send one") from None
