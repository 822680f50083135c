"""Advice computed from a team's own rows: which base model and method, at what cost, and whether training is needed."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from headrace import trusting
from headrace.data import snapshot
from headrace.evaluate import baselines, evaluating
from headrace.finetune import base_models, choosing
from headrace.records import SnapshotRow
from headrace.registry import require, resolve
from headrace.tasks import TASK_TYPES, Outputs, TaskType
from headrace.tasks.inputs import as_one_text
from headrace.workspace import Workspace

Report = Callable[..., None]
_N_TRAIN, _N_VALIDATION = 2_000, 1_000  # rows that are embedded: seconds on two cores, intervals of about 3 points
_FEW = 10  # rows of a class that "few-shot" means in the bench
_N_BYTES_KEPT = 1_000_000_000  # of the memory for everything else


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
        `{"facts", "base_models": [...], "methods": [...], "choice", "enough", "reasons"}`, as JSON.
    """
    require("torch", "transformers", "psutil", purpose="advice on methods")
    name = ws.task_name(task)
    settings = ws.task(name)
    task_type: TaskType = TASK_TYPES.get(settings.type)(settings)
    rows = snapshot.rows(ws, trusting.freeze(ws, task=name))
    train, validation = ([row for row in rows if row.side == side] for side in ("train", "validation"))
    names = list(dict.fromkeys([settings.base_model, *base_models_tried]))
    tried = [_tried(ws, name, task_type, base, train, validation, report) for base in names]
    best = max(tried, key=lambda one: one["quality"])
    facts = _facts(task_type, train, best)
    case = choosing.Case(
        problem=task_type.problem,
        n_train_rows=len(train),
        rows_per_class=facts["rows_per_class"],
        n_tokens=best["mean_tokens"],
        tokens_per_s=best["tokens_per_s"],
        size_share=best["n_parameters"] / choosing.BENCH_N_PARAMETERS,
        epochs=ws.settings.finetune.epochs,
    )
    found, is_same_problem = choosing.nearest(choosing.read_results(), case)
    expected = choosing.expect(found, case)
    choice = choosing.choose(expected, memory_bytes=facts["memory_bytes"])
    enough = _enough(best["measured"])
    return {
        "task": name,
        "facts": facts,
        "base_models": tried,
        "methods": [asdict(one) for one in expected],
        "choice": None if choice is None else {"base_model": best["base_model"], **asdict(choice)},
        "enough": enough,
        "reasons": _reasons(best, found, is_same_problem, choice, enough),
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
    settings = ws.task(task)
    report("probe", 0, 2, base_model=base_model)
    measure = resolve("headrace.finetune.probing:measure", purpose="advice on methods")
    speed = measure(base_models.find(base_model).folder, settings, [row.input for row in train[:512]])
    report("probe", 1, 2, base_model=base_model)
    measured = _measured(task_type, settings, base_model, _spread(train, _N_TRAIN), _spread(validation, _N_VALIDATION))
    report("probe", 2, 2, base_model=base_model)
    quality = max((one["estimate"] for one in measured.values() if one["estimate"] is not None), default=0.0)
    return {"base_model": base_model, "quality": quality, "measured": measured, **asdict(speed)}


def _measured(
    task_type: TaskType, settings: Any, base_model: str, train: Sequence[SnapshotRow], validation: Sequence[SnapshotRow]
) -> dict[str, dict[str, Any]]:
    """The main metric's interval of each way that needs no fine-tuning; empty for tasks on tokens."""
    targets = [row.target for row in train]
    majority = baselines.majority(task_type, targets, n=len(validation))
    if majority is None:
        return {}
    embed = resolve("headrace.finetune.embeddings:embed", purpose="advice on methods")
    texts = [as_one_text(row.input) for row in (*train, *validation)]
    vectors = embed(base_model, texts, max_tokens=settings.max_tokens)
    own, theirs = vectors[: len(train)], vectors[len(train) :]
    ways: dict[str, Outputs | None] = {"majority": majority}
    if task_type.problem in ("single_label_classification", "retrieval"):
        labels = [settings.descriptions.get(label, label) for label in task_type.output_names]
        entries = embed(base_model, labels, max_tokens=settings.max_tokens)
        ways["zero-shot"] = baselines.zero_shot(task_type, theirs, entries)
        few = _few(targets)
        ways["few-shot"] = baselines.nearest_centroid(task_type, own[few], [targets[i] for i in few], theirs)
    ways["frozen"] = baselines.nearest_centroid(task_type, own, targets, theirs)
    return {
        way: evaluating.evaluate(task_type, validation, logits)["overall"]["intervals"][task_type.main_metric]
        for way, logits in ways.items()
        if logits is not None
    }


def _spread(rows: Sequence[SnapshotRow], n: int) -> list[SnapshotRow]:
    """At most `n` rows, evenly over all, which are in the order of channel and key."""
    places = np.linspace(0, len(rows) - 1, min(n, len(rows))).astype(int)
    return [rows[i] for i in places]


def _few(targets: Sequence[Any]) -> list[int]:
    """Places of the first rows of each class."""
    seen: dict[Any, int] = {}
    places = []
    for place, target in enumerate(targets):
        seen[target] = seen.get(target, 0) + 1
        if seen[target] <= _FEW:
            places.append(place)
    return places


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


def _enough(measured: dict[str, dict[str, Any]]) -> str | None:
    """The simplest way that gives what all labels give to the frozen base model; None where labels are worth it."""
    if "frozen" not in measured:
        return None
    ways = (way for way in ("zero-shot", "few-shot") if way in measured)
    return next((way for way in ways if choosing.is_enough(measured[way], measured["frozen"])), None)


def _reasons(
    best: dict[str, Any],
    found: Sequence[choosing.Result],
    is_same_problem: bool,
    choice: choosing.Expected | None,
    enough: str | None,
) -> list[str]:
    nearest = found[0]
    kind = "" if is_same_problem else "; no bench has this kind of task, so it stands in"
    reasons = [
        f"of the sets of rows in the bench, {nearest.corpus} resembles yours most "
        f"({nearest.rows_per_class:.0f} rows a class){kind}"
    ]
    if choice is None:
        reasons.append("no method fits into the memory that is free; a smaller base model or finetune.batch_tokens may")
    else:
        reasons.append(
            f"there {choice.method} came within {choice.behind_best:.3f} of the best {nearest.metric}, "
            "and nothing as good was cheaper"
        )
    if enough is not None:
        reasons.append(
            f"{enough} is enough: on your validation rows it gives {best['measured'][enough]['estimate']:.3f}, "
            f"and all labels on the frozen base model {best['measured']['frozen']['estimate']:.3f}"
        )
    return reasons
