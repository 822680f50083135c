"""How verbs open a workspace and show results: JSON, tables, progress bars."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headrace.errors import BadInput

if TYPE_CHECKING:
    from headrace.records import Job
    from headrace.workspace import Workspace

Where = Annotated[Path, typer.Option("--workspace", "-w", envvar="HEADRACE_WORKSPACE", help="Folder of the workspace.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting: KEY=VALUE, such as finetune.epochs=1.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Channel = Annotated[str | None, typer.Option("--channel", help="Of this channel only.")]
Task = Annotated[str | None, typer.Option("--task", help="Task; needed only when there are several.")]


@contextmanager
def opened(where: Path, settings: Sequence[str] | None = None, **overrides: object) -> "Iterator[Workspace]":
    """The workspace at `where`, with `--set` options and further overrides applied."""
    from headrace.workspace import open_workspace

    with open_workspace(where, overrides=_parsed(settings or []) | overrides) as ws:
        yield ws


def emit(result: object, as_json: bool, show: Callable[[], None]) -> None:
    """Print a result: as JSON for programs, or as `show` does for people."""
    if as_json:
        print(json.dumps(plain(result), ensure_ascii=False))
    else:
        show()


def plain(value: Any) -> Any:
    """Records, instants and paths as JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value


def table(headings: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """Print a table; cells that are numbers stand right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE, title=title or None, title_justify="left")
    for i, heading in enumerate(headings):
        numeric = bool(rows) and all(isinstance(row[i], int | float) or row[i] is None for row in rows)
        shown.add_column(heading, justify="right" if numeric else "left")
    for row in rows:
        shown.add_row(*(Text(_cell(cell)) for cell in row))
    Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(shown)


@contextmanager
def progress_bar(title: str, *, quiet: bool) -> "Iterator[Callable[..., None]]":
    """A function `(step, done, total, **facts)` that moves a bar on stderr; silent when `quiet`."""
    if quiet:
        yield lambda *_args, **_facts: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task(title, total=None, facts="")

        def move(step: str, done: float, total: float | None, **facts: object) -> None:
            shown = " ".join(f"{k}={_cell(v)}" for k, v in facts.items() if v is not None)
            bars.update(bar, description=f"{title}: {step}", completed=done, total=total, facts=shown)

        try:
            yield move
        except BaseException:
            bars.live.transient = True  # a bar that stopped halfway says nothing beside the error
            bars.update(bar, visible=False)
            raise


def watch(ws: "Workspace", job: "Job", *, quiet: bool, title: str = "train") -> dict[str, Any]:
    """Follow a job with a bar and return its result; Ctrl-C leaves it running."""
    from headrace import jobs

    seen = job
    try:
        with progress_bar(title, quiet=quiet) as bar:
            for seen in jobs.follow(ws, job.id):
                at = seen.progress
                if at:
                    facts = {k: v for k, v in at.items() if k not in ("step", "done", "total")}
                    bar(at["step"], at["done"], at["total"], **facts)
    except KeyboardInterrupt:
        print(f"\nStill running. Watch it: headrace job follow {job.id}", file=sys.stderr)
        raise typer.Exit(130) from None
    return jobs.result_of(seen)


def instant(option: str, text: str | None) -> datetime | None:
    """What an option says as an instant; in local time where no zone is given.

    Raises:
        BadInput: it is none.
    """
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise BadInput(f"{option} is no day or instant", value=text, next_step="Write it as 2026-03-01") from None


def interval(figure: dict[str, Any] | None, *, digits: int = 3) -> str:
    """`.764 [.742, .785]` of an interval as evaluate writes it."""
    if not figure or figure.get("estimate") is None:
        return "not known"
    shown = [f"{figure[k]:.{digits}f}".replace("0.", ".", 1) for k in ("estimate", "low", "high")]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]"


def answer_in_words(answer: Mapping[str, Any]) -> str:
    """An answer as served, of any task type, in one line; what is sure of its parts stands beside them."""
    if "labels" in answer:
        parts = [f"{name} ({answer['scores'][name]:.2f})" for name in answer["labels"]]
    elif "entities" in answer:
        parts = [f"{one['text']} = {one['label']} ({one['confidence']:.2f})" for one in answer["entities"]]
    elif "hits" in answer:
        parts = [f"{answer['label']} (cosine {answer['score']:.2f}): {answer['text']}"]
    elif "answer" in answer:
        parts = [answer["answer"]] if answer["answer"] else []
    elif "low" in answer:
        parts = [f"{answer['value']:.4g} ({answer['low']:.4g} to {answer['high']:.4g})"]
    else:
        parts = [_cell(answer.get("label", answer.get("value")))]
    return ", ".join(parts) or "(none)"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return str(value)


def _parsed(settings: Sequence[str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise BadInput("--set needs KEY=VALUE", value=text, next_step="For example: --set finetune.epochs=1")
        values[key.strip()] = value.strip()
    return values
