"""From a version's checkpoint to a smaller one: cut, train what is left on the version's own answers, save.

Every part is found again after a kill: what was cut, the newest whole checkpoint of the training, the artifact.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.utils import logging

from headrace.checkpoints.heads import drop_silent, pad
from headrace.checkpoints.loading import load
from headrace.checkpoints.network import Network
from headrace.checkpoints.saving import save
from headrace.config import FinetuneTable, TaskTable
from headrace.errors import BadInput
from headrace.finetune import processes
from headrace.finetune.compressing import WAYS, Step, Way, candidate_name
from headrace.finetune.methods import Method, Plan, distil
from headrace.finetune.running import Tuned, keep_checkpoint, trained
from headrace.finetune.stages import once
from headrace.records import Run, SnapshotRow
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

Report = Callable[..., None]


def compress(
    ws: Workspace,
    run: Run,
    rows: Sequence[SnapshotRow],
    report: Report,
    *,
    teacher: Path,
    steps: Sequence[Step],
    unlabelled: Sequence[str] = (),
) -> str:
    """Do a run that compresses, and return the digest of its checkpoint.

    Args:
        teacher: checkpoint folder of the version that is compressed.
        unlabelled: texts of the channels whose pieces stay in a trimmed vocabulary.

    Raises:
        BadInput: a way cannot cut a network of this family, or the version has no plain checkpoint.
        Unusable: the loss is no number any more, or the memory was not enough.
        Cancelled: from `report`.
    """
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    folder = ws.state_folder / "runs" / run.id
    folder.mkdir(parents=True, exist_ok=True)
    task = TaskTable.model_validate(run.params["task"])
    settings = FinetuneTable.model_validate(run.params["finetune"])
    tuned = made(folder, teacher, task, settings, rows, report, steps=steps, unlabelled=unlabelled)
    return keep_checkpoint(ws, run, tuned, folder)


def made(
    folder: Path,
    teacher: Path,
    task: TaskTable,
    settings: FinetuneTable,
    rows: Sequence[SnapshotRow],
    report: Report,
    *,
    steps: Sequence[Step],
    unlabelled: Sequence[str] = (),
) -> Tuned:
    """The smaller network, made in `folder`; heads that were cut are zeros in it."""
    task_type: TaskType = TASK_TYPES.get(task.type)(task)
    network, tokenizer = _whole(teacher, task_type)
    plan = Plan(
        folder=processes.own_folder(folder),
        base_folder=teacher,
        task=task,
        task_type=task_type,
        settings=settings,
        tokenizer=tokenizer,
        train=[row for row in rows if row.side == "train"],
        validation=[row for row in rows if row.side == "validation"],
        unlabelled=unlabelled,
        teacher=teacher,
        start=teacher,
        report=report,
    )
    ways: list[tuple[Way, Step]] = [(WAYS.get(step.way), step) for step in steps]
    for way, _ in ways:
        way.check(network, plan)
    started = time.perf_counter()
    history: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    set_seed(settings.seed)
    if any(way.loses for way, _ in ways):
        small = once(folder / "cut", partial(_cut, network, plan, [one for one in ways if one[0].loses]))
        network, _ = _whole(small, task_type)
        if not torch.cuda.is_available():
            network.model.set_attn_implementation("eager")  # as in checkpoints.loading.fresh, and why
        network.train()
        network, history, facts = trained(plan, _RECOVERY, network)
    network = network.float().cpu().eval()
    for way, step in ways:
        if not way.loses:
            plan = replace(plan, tokenizer=way.cut(network, plan, step.share))
    sizes = {"n_parameters": sum(p.numel() for p in network.parameters()), "n_train_rows": len(plan.train)}
    pad(network)
    facts = {**facts, **sizes, "seconds": round(time.perf_counter() - started, 2), "ways": candidate_name(tuple(steps))}
    return Tuned(network, plan.tokenizer, history, facts)


def _whole(folder: Path, task_type: TaskType) -> tuple[Network, Any]:
    """The network of a checkpoint without the heads that an earlier compression cut, and its tokenizer.

    Raises:
        BadInput: the checkpoint is a model with parts of peft's that cannot be merged.
    """
    network, tokenizer = load(folder, task_type)
    if hasattr(network.model, "peft_config"):
        raise BadInput(
            "a version with parts that cannot be merged into its base model cannot be compressed",
            value=next(iter(network.model.peft_config.values())).peft_type.value,
            next_step="Train a version with another method, such as full or lora, and compress that",
        )
    drop_silent(network)
    return network, tokenizer


def _cut(network: Network, plan: Plan, ways: Sequence[tuple[Way, Step]], folder: Path) -> None:
    for way, step in ways:
        way.cut(network, plan, step.share)
    pad(network)
    save(network, plan.tokenizer, folder)


_RECOVERY = Method(learning_rate=distil.METHOD.learning_rate, objective=distil.objective)
