"""Verbs for people's answers: the review queue, and labels to and from files."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.rendering import AsJson, Channel, Set, Task, Where, answer_in_words, emit, opened, progress_bar, table

_review = typer.Typer(
    help="Answer what is asked of people: audits, disagreements, doubtful labels.", no_args_is_help=True
)
_label = typer.Typer(help="Take labels to and from files, such as Label Studio's.", no_args_is_help=True)
_Labeller = Annotated[str | None, typer.Option(help="Who answers; default: who runs the workspace.")]


def register(app: typer.Typer) -> None:
    app.add_typer(_review, name="review")
    app.add_typer(_label, name="label")


@_review.command("fill")
def fill(task: Task = None, where: Where = Path("."), settings: Set = None, as_json: AsJson = False) -> None:
    """Open the reviews that are due; the suspected label errors among them take the training parts."""
    from headrace import reviewing

    with opened(where, settings) as ws, progress_bar("review", quiet=as_json) as bar:
        filled = reviewing.fill(ws, task, report=bar)
    shown = ", ".join(f"{n} {name[2:].replace('_', ' ')}" for name, n in vars(filled).items())
    emit(filled, as_json, lambda: print(f"Opened: {shown}. Next: headrace review next"))


@_review.command("list")
def list_(
    state: Annotated[str, typer.Option(help="open, answered, skipped, or all.")] = "open",
    n: Annotated[int, typer.Option("-n", min=1, help="At most so many.")] = 100,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """List the queue with the reason of each; for who runs it, not for who answers."""
    from headrace.feedback import reviews

    with opened(where) as ws:
        found = reviews.listing(ws, task, state=None if state == "all" else state, n=n)
    rows = [
        (r.id, r.reason, r.channel, r.state, r.labeller, "" if r.output is None else answer_in_words(r.output), r.text)
        for r in found
    ]
    headings = ("review", "reason", "channel", "state", "labeller", "the model said", "text")
    emit(found, as_json, lambda: table(headings, rows, title=f"{len(found)} reviews"))


@_review.command("next")
def next_(
    labeller: _Labeller = None,
    n: Annotated[int, typer.Option("-n", min=1, max=1000, help="How many.")] = 1,
    channel: Channel = None,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Show what to answer next; the same until it is answered."""
    from headrace.feedback import reviews

    with opened(where) as ws:
        found = [reviews.shown(one) for one in reviews.next_of(ws, task, labeller=labeller, channel=channel, n=n)]
    emit(found, as_json, lambda: _show(found, labeller))


def _show(found: list[dict[str, Any]], labeller: str | None) -> None:
    who = "" if labeller is None else f" --labeller {labeller}"
    for one in found:
        print(f"{one['id']}  ({one['channel']})")
        print("\n".join(part for part in (one["text"], one["text_pair"]) if part is not None))
        print(f"  headrace review answer {one['id']} ANSWER{who}\n")
    if not found:
        print("Nothing is open.")


@_review.command("answer")
def answer(
    review: Annotated[str, typer.Argument(help="Id of the review.")],
    answer: Annotated[str, typer.Argument(help="A label of the task: a name, a number, or JSON.")],
    labeller: _Labeller = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Answer a review."""
    from headrace.feedback import reviews

    with opened(where) as ws:
        done = reviews.answer(ws, review, answer, labeller)
    emit({"id": done.id, "answer": done.answer}, as_json, lambda: print(f"Answered {done.id}: {done.answer}"))


@_review.command("skip")
def skip(
    review: Annotated[str, typer.Argument(help="Id of the review.")],
    labeller: _Labeller = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Leave a review without an answer."""
    from headrace.feedback import reviews

    with opened(where) as ws:
        done = reviews.skip(ws, review, labeller)
    emit({"id": done.id, "state": done.state}, as_json, lambda: print(f"Skipped {done.id}"))


@_label.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="File to write.")],
    format_: Annotated[
        str | None, typer.Option("--format", help="label-studio, csv or jsonl; default: by name.")
    ] = None,
    labelled: Annotated[bool, typer.Option("--labelled", help="The labelled examples, instead of the queue.")] = False,
    prelabels: Annotated[bool, typer.Option(help="The model's answers with them, but for audits.")] = True,
    labeller: Annotated[
        str | None, typer.Option(help="For whom: known questions are mixed in accordingly; default: none are.")
    ] = None,
    n: Annotated[int | None, typer.Option("-n", min=1, help="At most so many.")] = None,
    channel: Channel = None,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Write what waits for a label, for people to label elsewhere."""
    from headrace import labelling

    with opened(where) as ws:
        done = labelling.export_labels(
            ws,
            file,
            format=format_,
            task=task,
            channel=channel,
            labeller=labeller,
            labelled=labelled,
            prelabels=prelabels,
            n=n,
        )
    emit(done, as_json, lambda: print(f"{done.n_rows} rows in {file} ({done.format})"))


@_label.command("config")
def config(task: Task = None, where: Where = Path("."), as_json: AsJson = False) -> None:
    """Print a labelling config of Label Studio that fits the task."""
    from headrace import labelling

    with opened(where) as ws:
        found = labelling.labelling_config(ws, task)
    emit({"config": found}, as_json, lambda: print(found))


@_label.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="File that label export wrote, with labels in it.")],
    labeller: Annotated[
        str | None, typer.Option(help="Who labelled, where a row does not say; default: who runs the workspace.")
    ] = None,
    label: Annotated[str, typer.Option(help="Column, or Label Studio's control, with the label.")] = "label",
    format_: Annotated[
        str | None, typer.Option("--format", help="label-studio, csv or jsonl; default: by looks.")
    ] = None,
    task: Task = None,
    where: Where = Path("."),
    as_json: AsJson = False,
) -> None:
    """Take labels in: answers of reviews, corrections of predictions, labels of examples."""
    from headrace import labelling

    with opened(where) as ws:
        done = labelling.import_labels(ws, file, format=format_, task=task, labeller=labeller, label=label)

    def show() -> None:
        print(f"{done.n_labels} labels of {done.n_rows} rows; {done.n_unlabelled} rows had none")
        if done.refused:
            table(("line", "id", "why"), [(bad.line, bad.id, bad.problem) for bad in done.refused[:20]])

    emit(done, as_json, show)
