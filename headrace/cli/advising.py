"""The verb for advice: what the team's own rows say about what to do."""

from pathlib import Path
from typing import Annotated, Any

import typer

from headrace.cli.rendering import AsJson, Set, Task, Where, emit, interval, opened, progress_bar, table

_advise = typer.Typer(help="Advice that is computed from your own rows.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(_advise, name="advise")


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


def _show(advice: dict[str, Any]) -> None:
    metric = advice["facts"]["main_metric"]
    rows: list[tuple[object, ...]] = []
    for one in advice["base_models"]:
        rows += [(one["base_model"], way, interval(found)) for way, found in one["measured"].items()]
    if rows:
        table(("base model", "without fine-tuning", metric), rows, title="Measured on your validation rows")
    table(
        ("method", f"{metric} there", "minutes here", "memory, GB"),
        [
            (m["method"], f"{m['quality_in_bench']:.3f}", f"{m['seconds'] / 60:.1f}", f"{m['memory_bytes'] / 1e9:.1f}")
            for m in advice["methods"]
        ],
        title="Expected: quality as in the bench, time and memory as on this machine",
    )
    choice = advice["choice"]
    if choice is not None:
        print(f"Take {choice['method']} on {choice['base_model']}:")
        print(f"  headrace train --method {choice['method']}")
    for reason in advice["reasons"]:
        print(f"- {reason}")
