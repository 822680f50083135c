"""The verbs for advice: what the team's own rows say about what to do."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.rendering import AsJson, Set, Task, Where, emit, interval, opened, progress_bar, table

_advise = typer.Typer(help="Advice that is computed from your own rows.", no_args_is_help=True)
_MARKS = {"act": "!", "not known": "?", "fine": "-"}


def register(app: typer.Typer) -> None:
    app.add_typer(_advise, name="advise")


@_advise.command("technical")
def technical(
    methods: Annotated[bool, typer.Option("--methods/--no-methods", help="Also try which method suits.")] = True,
    task: Task = None,
    where: Where = Path("."),
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Say where to label, which method suits, whether labels or the model stand in the way, and what int8 costs."""
    from headrace import advising

    with opened(where, settings) as ws, progress_bar("advise", quiet=as_json) as bar:
        advice = advising.advise_technical(ws, task=task, tries_methods=methods, report=bar)
    emit(advice, as_json, lambda: _say(advice))


@_advise.command("domain")
def domain(
    error_share: Annotated[
        float | None, typer.Option(help="Answers that may be wrong; advise.max_error_share by default.")
    ] = None,
    task: Task = None,
    where: Where = Path("."),
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Check what can be computed: personal data, balance, drift, groups, a threshold of confidence, scope."""
    from headrace import advising

    given = _given(max_error_share=error_share)
    with opened(where, settings, **given) as ws, progress_bar("advise", quiet=as_json) as bar:
        advice = advising.advise_domain(ws, task=task, report=bar)
    emit(advice, as_json, lambda: _say(advice))


@_advise.command("business")
def business(
    machine_hour: Annotated[
        float | None, typer.Option(help="What an hour of the machine costs; advise.machine_hour by default.")
    ] = None,
    price_per_call: Annotated[
        float | None, typer.Option(help="What somebody else asks for an answer; advise.price_per_call by default.")
    ] = None,
    label_price: Annotated[
        float | None, typer.Option(help="What one more label costs; advise.label_price by default.")
    ] = None,
    task: Task = None,
    where: Where = Path("."),
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Say what answers cost here and by the call, when that pays, what labels buy, and whether to train at all."""
    from headrace import advising

    given = _given(machine_hour=machine_hour, price_per_call=price_per_call, label_price=label_price)
    with opened(where, settings, **given) as ws, progress_bar("advise", quiet=as_json) as bar:
        advice = advising.advise_business(ws, task=task, report=bar)
    emit(advice, as_json, lambda: _say(advice))


@_advise.command("method")
def method(
    base_model: Annotated[list[str] | None, typer.Option(help="A base model to try besides the task's own.")] = None,
    task: Task = None,
    where: Where = Path("."),
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Say which base model and method suit your rows, in what time and memory, and whether labels are needed at all."""
    from headrace import advising

    with opened(where, settings) as ws, progress_bar("advise", quiet=as_json) as bar:
        advice = advising.advise_method(ws, task=task, base_models_tried=base_model or (), report=bar)
    emit(advice, as_json, lambda: _show(advice))


def _given(**prices: float | None) -> dict[str, Any]:
    return {f"advise.{name}": value for name, value in prices.items() if value is not None}


def _say(advice: dict[str, Any]) -> None:
    """A line for each sentence, those that ask for something first, and the command that shows its number."""
    for one in advice["sentences"]:
        print(f"{_MARKS[one['verdict']]} {one['text']}")
        print(f"    {one['command']}")


def _show(advice: dict[str, Any]) -> None:
    metric = advice["facts"]["main_metric"]
    rows: list[tuple[object, ...]] = []
    for one in advice["base_models"]:
        rows += [(one["base_model"], way, interval(found)) for way, found in one["measured"].items()]
    if rows:
        table(("base model", "without fine-tuning", metric), rows, title="Measured on your validation rows")
    _show_expected(advice)
    choice, enough = advice["choice"], advice["enough"]
    if enough is not None:
        print(f"No need to fine-tune: headrace {enough['run']}")
    if choice is not None:
        print(f"{'If you do all the same, take' if enough else 'Take'} {choice['method']} on {choice['base_model']}:")
        print(f"  headrace {choice['run']}")
    for reason in advice["reasons"]:
        print(f"- {reason}")


def _show_expected(advice: dict[str, Any]) -> None:
    """What methods should cost here, and give, where a bench has such a task."""
    bench = advice["facts"]["bench"]
    knows = bench["metric"] is not None
    rows = []
    for m in advice["methods"]:
        there = (f"{m['quality_in_bench']:.3f}",) if knows else ()
        rows.append(
            (m["method"], *there, f"{m['epochs']:g}", f"{m['seconds'] / 60:.1f}", f"{m['memory_bytes'] / 1e9:.1f}")
        )
    headings = ("method", *((f"{bench['metric']} of {bench['corpus']}",) if knows else ()))
    what = "quality as in the bench, time and memory as" if knows else "no bench has such a task; time and memory"
    title = f"Expected: {what} on this machine"
    table((*headings, "epochs", "minutes here", "memory, GB"), rows, title=title)
