"""The verb that keeps the wheel turning."""

import json
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.rendering import AsJson, Set, Task, Where, opened, plain

_loop = typer.Typer(help="Keep the wheel turning without anybody at it.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(_loop, name="loop")


@_loop.callback()
def _only_verbs() -> None:
    """Keeps typer from making the group of one verb the verb itself."""


@_loop.command("run")
def run(
    once: Annotated[bool, typer.Option("--once", help="One turn.")] = False,
    interval_s: Annotated[float, typer.Option(min=0.1, help="Seconds from one turn to the next.")] = 300,
    task: Task = None,
    where: Where = Path("."),
    settings: Set = None,
    as_json: AsJson = False,
) -> None:
    """Collect feedback, make a new version when one is due, try it, decide; a line for each step, until SIGTERM."""
    from headrace import wheel

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with opened(where, settings) as ws:
        for step in wheel.run(ws, task, once=once, interval_s=interval_s, stop=stop):
            if as_json:
                print(json.dumps(plain(step), ensure_ascii=False), flush=True)
            else:
                print(f"{step.at:%Y-%m-%d %H:%M:%S} {step.step}: {step.said}", flush=True)
