"""Verbs for who counts: trust, known."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.cli.rendering import AsJson, Task, Where, emit, instant, opened, plain, table

if TYPE_CHECKING:
    from headrace.feedback.known import Added, Asked
    from headrace.feedback.trust import SourceTrust
    from headrace.records import Interval, Suspension

_trust = typer.Typer(help="See whose feedback counts, suspend it, or take it back in.", no_args_is_help=True)
_known = typer.Typer(help="Questions with a known answer, by which sources are judged.", no_args_is_help=True)
_MOST_CHARS = 50  # of an input in a table, so that ids stay whole
Because = Annotated[str, typer.Option("--because", help="Why; kept with the decision.")]


def register(app: typer.Typer) -> None:
    app.add_typer(_trust, name="trust")
    app.add_typer(_known, name="known")


@_trust.command("list")
def trust_list(task: Task = None, where: Where = Path("."), as_json: AsJson = False) -> None:
    """List the sources of feedback, what is known of each, and what is suspended."""
    from headrace.feedback import suspensions, trust

    with opened(where) as ws:
        sources, held = trust.judge(ws, task), suspensions.listing(ws, task)
    shown: dict[str, Any] = {"sources": [_flat(one) for one in sources], "suspensions": held}
    emit(shown, as_json, lambda: _show_trust(sources, held))


def _flat(one: "SourceTrust") -> dict[str, Any]:
    found: dict[str, Any] = plain(one)
    return {**found.pop("source"), **found}


def _show_trust(sources: "tuple[SourceTrust, ...]", held: "list[Suspension]") -> None:
    if not sources:
        print("No labels came back as feedback yet. `headrace improve` makes them of corrections.")
    else:
        rows = [
            (str(one.source), one.n_labels, f"{one.share:.1%}", _ends(one.accuracy), one.weight, one.reason)
            for one in sources
        ]
        table(("source", "labels", "share", "right on known answers", "counts", "because"), rows)
    if held:
        print("Suspended (headrace trust lift ID --because ...):")
        for one in held:
            print(f"  {_in_words(one)}")


def _ends(found: "Interval | None") -> str:
    return "not asked" if found is None else f"{found.estimate:.0%} [{found.low:.0%}, {found.high:.0%}]"


def _in_words(one: "Suspension") -> str:
    source = one.channel if one.labeller is None else f"{one.channel}/{one.labeller}"
    since = f"from {one.since:%Y-%m-%d %H:%M}" if one.since.year > 1970 else "all"
    until = "" if one.until is None else f" to {one.until:%Y-%m-%d %H:%M}"
    lifted = "" if one.lifted_at is None else f"; lifted by {one.lifted_by}: {one.lifted_because}"
    return f"{one.id}  {source}, {since}{until}: {one.reason}{lifted}"


@_trust.command("suspend")
def trust_suspend(
    channel: Annotated[str, typer.Argument(help="Channel of the feedback.")],
    because: Because,
    labeller: Annotated[str | None, typer.Option(help="Of this labeller only; default: the whole channel.")] = None,
    since: Annotated[str | None, typer.Option(help="Feedback from then on, such as 2026-11-01; default: all.")] = None,
    until: Annotated[str | None, typer.Option(help="Feedback before then; default: for ever.")] = None,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Have feedback of a labeller or a channel not count, until this is lifted. Nothing is deleted."""
    from headrace.feedback import suspensions

    span = {"since": instant("--since", since), "until": instant("--until", until)}
    with opened(where) as ws:
        made = suspensions.suspend(ws, channel, labeller, because=because, task=task, **span)
    emit(made, as_json, lambda: print(f"Suspended: {made.id}"))


@_trust.command("lift")
def trust_lift(
    suspension: Annotated[str, typer.Argument(help="Id of the suspension.")],
    because: Because,
    by: Annotated[str, typer.Option(help="Who decides so.")] = "anonymous",
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Have suspended feedback count again, as if it had never been suspended."""
    from headrace.feedback import suspensions

    with opened(where) as ws:
        lifted = suspensions.lift(ws, suspension, because=because, by=by)
    emit(lifted, as_json, lambda: print(f"Lifted {lifted.id}"))


@_known.command("add")
def known_add(
    source: Annotated[str | None, typer.Argument(help="File of inputs with their labels: JSON lines, CSV ...")] = None,
    agreed: Annotated[
        int | None, typer.Option(help="Take so many examples that three or more labellers agree on.")
    ] = None,
    format_: Annotated[str | None, typer.Option("--format", help="A source: csv, jsonl ...")] = None,
    label: Annotated[str, typer.Option(help="Column with the label.")] = "label",
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Take questions whose answers are known, from a file or from examples that people agree on."""
    from headrace.errors import BadInput

    if (source is None) == (agreed is None):
        raise BadInput("known add takes a file or --agreed", value=source, next_step="Give one of the two")
    with opened(where) as ws:
        if source is not None:
            from headrace.trusting import add_known

            added = add_known(ws, source, task=task, format=format_, label_column=label)
        else:
            from headrace.feedback.known import add_agreed

            added = add_agreed(ws, agreed or 0, task=task)
    emit(added, as_json, lambda: _show_added(added))


def _show_added(added: "Added") -> None:
    print(f"{added.n_added} added, {added.n_changed} changed, {added.n_known} known before")


@_known.command("list")
def known_list(
    retired: Annotated[bool, typer.Option("--retired", help="Those that are not in force, too.")] = False,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """List known answers, and how often sources were right about each."""
    from headrace.feedback import known

    with opened(where) as ws:
        found = known.listing(ws, task, retired=retired)
    emit(found, as_json, lambda: _show_known(found))


def _show_known(found: "list[Asked]") -> None:
    rows = [(one.known.id, _cut(one.known.text), str(one.known.answer), one.n_asked, one.n_right) for one in found]
    table(("known answer", "input", "answer", "asked", "right"), rows)


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARS else f"{text[: _MOST_CHARS - 1]}…"


@_known.command("retire")
def known_retire(
    known_answer: Annotated[str, typer.Argument(help="Id of the known answer.")],
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Ask it no more, and judge nobody by it."""
    from headrace.feedback import known

    with opened(where) as ws:
        retired = known.retire(ws, known_answer)
    emit(retired, as_json, lambda: print(f"Retired {retired.id}"))
