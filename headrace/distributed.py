"""`torchrun --nproc-per-node N -m headrace train`: the same training by several processes, in the foreground.

All work on one run. The first process does all that writes: snapshot, run, checkpoint, export, evaluation, version. The
others take their part of every batch, and see the same validation side.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from headrace import jobs, making, trusting
from headrace.data import snapshot
from headrace.records import Run
from headrace.registry import resolve
from headrace.workspace import Workspace

Report = Callable[..., None]


def is_first() -> bool:
    """Whether torchrun made this process the first; known before the processes have met, and without torch."""
    return os.environ.get("RANK", "0") == "0"


def train_together(ws: Workspace, *, task: str | None = None, report: Report) -> dict[str, Any] | None:
    """Take this process's part in making a version; what is known of it, from the first process alone.

    Raises:
        BadInput: the rows cannot train the task, or the method is not one that processes can share.
        MissingExtra: the training parts are not installed.
    """
    name = ws.task_name(task)
    making.check_ready(ws, name)
    together = resolve("headrace.finetune.processes:together", purpose="training")
    told = resolve("headrace.finetune.processes:told", purpose="training")
    with together():
        mine = making.run_of(ws, name, trusting.freeze(ws, task=name), ws.settings.finetune) if is_first() else None
        run = making.find_run(ws, told(mine.id if mine else ""))
        with _only_one(ws, run):
            if told(making.find_run(ws, run.id).checkpoint) is None:
                rows = snapshot.rows(ws, snapshot.find(ws, run.snapshot_id))
                making.fine_tuned(ws, run, rows, report if is_first() else _silent)
            if not is_first():
                return None
    with _only_one(ws, run):
        return making.describe(ws, making.made_version(ws, making.find_run(ws, run.id), report))


def _silent(*_args: object, **_facts: object) -> None:
    """The others do not report; what they would say, the first says."""


@contextmanager
def _only_one(ws: Workspace, run: Run) -> Iterator[None]:
    """The first process keeps jobs of the same run out, for all."""
    if not is_first():
        yield
        return
    with jobs.only_one(ws, run.id, jobs.Progress(ws, None)):
        yield
