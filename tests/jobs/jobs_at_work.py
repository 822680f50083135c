"""Work for jobs in tests: functions that a job's process imports by name."""

import time

from headrace.errors import BadInput
from headrace.jobs import Progress
from headrace.workspace import Workspace


def add(ws: Workspace, progress: Progress, *, a: int, b: int) -> dict[str, float]:
    progress.report("adding", 1, 1, seen=a)
    return {"sum": a + b, "epochs": ws.settings.finetune.epochs}


def refuse(ws: Workspace, progress: Progress) -> None:
    raise BadInput("too odd", value=7, next_step="Use an even one")


def break_(ws: Workspace, progress: Progress) -> float:
    return 1 / 0


def forever(ws: Workspace, progress: Progress) -> None:
    for i in range(600):
        progress.report("waiting", i, 600)
        time.sleep(0.1)
