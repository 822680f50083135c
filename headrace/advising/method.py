"""Advice computed from a team's own rows: which base model and method, at what cost, and whether training is needed."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from headrace import trusting
from headrace.advising import untrained
from headrace.advising.case import spread
from headrace.config import TaskTable
from headrace.data import snapshot
from headrace.finetune import base_models, choosing
from headrace.finetune.methods import METHODS
from headrace.finetune.steps import settled
from headrace.records import SnapshotRow
from headrace.registry import require, resolve
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

Report = Callable[..., None]
_N_TRAIN, _N_VALIDATION = 2_000, 1_000  # rows that are embedded: seconds on two cores, intervals of about 3 points
_N_TIMED = 512  # rows whose batches are timed
_N_BYTES_KEPT = 1_000_000_000  # of the memory for everything else
_RUNS = {"zero-shot": "zero-shot", "few-shot": "head"}  # the method that does what a way without training does


def advise_method(
    ws: Workspace,
    *,
    task: str | None = None,
    base_models_tried: Sequence[str] = (),
    report: Report = lambda *_args, **_facts: None,
) -> dict[str, Any]:
    """Which base model and method suit the newest labelled rows, with expected time and memory on this machine.

    What needs no training is measured on the validation side; what needs it is taken from the bench that resembles the
    rows most (see headrace/finetune/choosing.py), at the speed that a few steps have here.

    Args:
        base_models_tried: besides the task's own.

    Returns:
        `{"facts", "base_models": [...], "methods": [...], "choice", "enough", "reasons"}`, as JSON. "choice" and
        "enough" have the command to "run", without the program's name; "choice" is None where nothing tells methods
        apart or none fits into memory, "enough" where training may be worth it; the last of "reasons" says why.
    """
    require("torch", "transformers", "psutil", purpose="advice on methods")
    name = ws.task_name(task)
    task_type: TaskType = TASK_TYPES.get(ws.task(name).type)(ws.task(name))
    rows = snapshot.rows(ws, trusting.freeze(ws, task=name))
    train, validation = ([row for row in rows if row.side == side] for side in ("train", "validation"))
    names = list(dict.fromkeys([ws.task(name).base_model, *base_models_tried]))
    tried = [_tried(ws, name, task_type, base, train, validation, report) for base in names]
    best = max(tried, key=lambda one: one["quality"])
    facts = _facts(task_type, train, best)
    case = _case(ws, task_type, facts, best, len(validation))
    found, is_same_problem = choosing.nearest(choosing.read_results(), case)
    expected = choosing.expect(found, case, is_same_problem=is_same_problem)
    choice = choosing.choose(expected, memory_bytes=facts["memory_bytes"])
    enough = _enough(best, found if is_same_problem else ())
    chosen = None if choice is None else {"base_model": best["base_model"], **asdict(choice)}
    for one in (chosen, enough):
        if one is not None:
            one["run"] = _run(ws, name, one["method"], one.get("epochs"), best["base_model"])
    return {
        "task": name,
        "facts": facts | {"bench": {"corpus": found[0].corpus, "metric": found[0].metric if is_same_problem else None}},
        "base_models": tried,
        "methods": [asdict(one) for one in expected],
        "choice": chosen,
        "enough": enough,
        "reasons": [
            *_why_base(name, tried),
            *_why_enough(best, enough),
            *_why(found[0], is_same_problem, choice, [one.method for one in expected]),
        ],
    }


def _tried(
    ws: Workspace,
    task: str,
    task_type: TaskType,
    base_model: str,
    train: Sequence[SnapshotRow],
    validation: Sequence[SnapshotRow],
    report: Report,
) -> dict[str, Any]:
    """What a base model does without training, and how fast it trains here."""
    settings: TaskTable = ws.task(task)
    report("probe", 0, 2, base_model=base_model)
    time_steps = resolve("headrace.finetune.probing:measure", purpose="advice on methods")
    timed = [row.input for row in spread(train, _N_TIMED)]
    folder = base_models.find(base_model).folder
    speed = time_steps(folder, settings, timed, ws.settings.finetune)
    report("probe", 1, 2, base_model=base_model)
    sides = spread(train, _N_TRAIN), spread(validation, _N_VALIDATION)
    found = untrained.measure(task_type, settings, base_model, *sides)
    report("probe", 2, 2, base_model=base_model)
    return {"base_model": base_model, "quality": found.quality, **asdict(found), **asdict(speed)}


def _facts(task_type: TaskType, train: Sequence[SnapshotRow], best: dict[str, Any]) -> dict[str, Any]:
    import psutil

    n_classes = task_type.n_outputs if task_type.problem != "regression" else 1
    return {
        "n_train_rows": len(train),
        "rows_per_class": len(train) / max(1, n_classes),
        "mean_tokens": round(best["mean_tokens"], 1),
        "memory_bytes": max(0, psutil.virtual_memory().available - _N_BYTES_KEPT),
        "main_metric": task_type.main_metric,
    }


def _case(
    ws: Workspace, task_type: TaskType, facts: dict[str, Any], best: dict[str, Any], n_validation: int
) -> choosing.Case:
    n_train, batches_per_row = facts["n_train_rows"], best["n_batches"] / best["n_inputs"]
    return choosing.Case(
        problem=task_type.problem,
        rows_per_class=facts["rows_per_class"],
        n_batches=math.ceil(n_train * batches_per_row),
        n_validation_batches=math.ceil(n_validation * batches_per_row),
        batch_s=best["batch_s"],
        size_share=best["n_parameters"] / choosing.BENCH_N_PARAMETERS,
        settings=settled(ws.settings.finetune, task_type, n_train),
    )


def _enough(best: dict[str, Any], found: Sequence[choosing.Result]) -> dict[str, Any] | None:
    """The simplest way that leaves nothing worth training for, as far as rows and bench can tell."""
    training_gain = choosing.gain_over_head(found)
    if training_gain is None:
        return None
    for way, gain in best["gains"].items():
        interval, chance = best["measured"][way], best["chance"][way]
        if choosing.is_enough(interval, gain, chance=chance, training_gain=training_gain):
            return {"way": way, "method": _RUNS[way]}
    return None


def _run(ws: Workspace, task: str, method: str, epochs: float | None, base_model: str) -> str:
    """The verb with its options that does as advised."""
    words = [f"train --method {method}"]
    if len(ws.settings.tasks) > 1:
        words.append(f"--task {task}")
    if epochs is not None and METHODS.get(method).trains and epochs != ws.settings.finetune.epochs:
        words.append(f"--set finetune.epochs={epochs:g}")
    if base_model != ws.task(task).base_model:
        words.append(f"--set tasks.{task}.base_model={base_model}")
    return " ".join(words)


def _why_base(task: str, tried: Sequence[dict[str, Any]]) -> list[str]:
    if len(tried) == 1 or any(one["measured"] for one in tried):
        return []
    return [
        "without training, base models give no answers to this kind of task, so nothing tells which is better: the "
        f"task's own is taken; compare versions of each (headrace train --set tasks.{task}.base_model=...)"
    ]


def _why_enough(best: dict[str, Any], enough: dict[str, Any] | None) -> list[str]:
    if enough is None:
        return []
    measured, way = best["measured"], enough["way"]
    gain = best["gains"][way]
    more = "needs no labels" if way == "zero-shot" else f"needs {untrained.FEW} rows a class, so more labels add little"
    return [
        f"{way} is enough and {more}: on your validation rows it gives {measured[way]['estimate']:.3f}, and all labels "
        f"on the frozen base model add {gain['estimate']:+.3f}, at most {gain['high']:+.3f}"
    ]


def _why(
    nearest: choosing.Result, is_same_problem: bool, choice: choosing.Expected | None, methods: Sequence[str]
) -> list[str]:
    if not is_same_problem:
        tried = " or ".join(f"train --method {name}" for name in methods[-2:])
        return [
            f"what methods cost is scaled from {nearest.corpus}",
            "no bench has this kind of task, so nothing tells which method is better on it: "
            f"try them on your own rows (headrace {tried}; or headrace train --search 10)",
        ]
    reasons = [
        f"of the sets of rows in the bench, {nearest.corpus} resembles yours most "
        f"({nearest.rows_per_class:.0f} rows a class), and had {nearest.epochs:g} epochs"
    ]
    if choice is None:
        reasons.append("no method fits into the memory that is free; a smaller base model or finetune.batch_tokens may")
    else:
        reasons.append(
            f"there {choice.method} came within {choice.behind_best:.3f} of the best {nearest.metric}, "
            "and nothing as good was cheaper"
        )
    return reasons
