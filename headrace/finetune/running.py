"""From a run to a checkpoint: load, tokenise, train or go on training, save as a Hugging Face directory."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, set_seed
from transformers.utils import logging

from headrace.config import FinetuneTable, TaskTable
from headrace.errors import BadInput
from headrace.finetune import base_models, training
from headrace.finetune.batching import TokenBudgetSampler
from headrace.finetune.methods import METHODS
from headrace.records import Artifact, Run, SnapshotRow
from headrace.store import runs
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

Report = Callable[..., None]


@dataclass(frozen=True)
class Tuned:
    """What a finished training leaves in memory."""

    model: Any
    tokenizer: Any
    history: list[dict[str, Any]]
    facts: dict[str, Any]


def fine_tune(ws: Workspace, run: Run, rows: Sequence[SnapshotRow], report: Report) -> str:
    """Do the run and return the digest of its checkpoint; a run that was killed goes on from its last whole checkpoint.

    Raises:
        BadInput: the rows cannot train this task; the message says what is missing.
        Cancelled: from `report`.
    """
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    folder = ws.state_folder / "runs" / run.id
    folder.mkdir(parents=True, exist_ok=True)
    task = TaskTable.model_validate(run.params["task"])
    settings = FinetuneTable.model_validate(run.params["finetune"])
    base = base_models.find(run.base_model)
    if base.digest != run.base_digest:
        raise BadInput(
            "the base model's weights changed since the run began", value=run.base_model, next_step="Start a new run"
        )
    tuned = tune(folder, base.folder, task, settings, rows, report)
    checkpoint = ws.artifacts.new_folder()
    tuned.model.save_pretrained(checkpoint)
    tuned.tokenizer.save_pretrained(checkpoint)
    digest, n_bytes = ws.artifacts.put(checkpoint)
    artifact = Artifact(digest, "checkpoint", n_bytes, {"run": run.id, "base_model": run.base_model})
    with ws.store.write() as conn:
        runs.add_artifact(conn, artifact, ws.clock())
        done = {"state": "done", "checkpoint": digest, "history": tuned.history, "facts": tuned.facts}
        runs.change(conn, run.id, **done, finished_at=ws.clock())
    shutil.rmtree(folder)
    return digest


def tune(
    folder: Path,
    base_folder: Path,
    task: TaskTable,
    settings: FinetuneTable,
    rows: Sequence[SnapshotRow],
    report: Report,
) -> Tuned:
    """Train in `folder`, from its newest whole checkpoint if there is one."""
    task_type: TaskType = TASK_TYPES.get(task.type)(task)
    method = METHODS.get(settings.method)
    sides = {side: [r for r in rows if r.side == side] for side in ("train", "validation")}
    _check_sides(sides, task_type)
    set_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(base_folder)
    model = load_classifier(base_folder, task_type, dropout=settings.dropout)
    start_at_prior(model, task_type, [r.target for r in sides["train"]])
    model = method.prepare(model)
    token_ids = {side: tokenize(tokenizer, [r.text for r in mine], task.max_tokens) for side, mine in sides.items()}
    watcher = training.Watcher(report, patience=settings.patience)
    lengths = [len(ids) for ids in token_ids["train"]]
    sampler = TokenBudgetSampler(lengths, batch_tokens=settings.batch_tokens, seed=settings.seed)
    rate = settings.learning_rate or method.learning_rate
    args = training.arguments(folder, settings, learning_rate=rate, steps_per_epoch=len(sampler))
    trainer = training.make_trainer(
        model,
        args,
        settings,
        task_type=task_type,
        train=(token_ids["train"], [r.target for r in sides["train"]]),
        validation=(token_ids["validation"], [r.target for r in sides["validation"]]),
        pad_id=tokenizer.pad_token_id or 0,
        watcher=watcher,
    )
    resumed = training.newest_whole_checkpoint(folder)
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    facts = _facts(trainer, settings, started, n_rows=len(lengths), rate=rate, resumed=resumed is not None)
    return Tuned(method.finish(trainer.model).float(), tokenizer, watcher.history, facts)


def load_classifier(base_folder: Path, task_type: TaskType, *, dropout: float) -> Any:
    """The base model with a fresh head for the task.

    Attention is computed plainly: at the lengths of sentences, the fused kernel's backward pass costs twice the time
    on CPU (one profile: docs/log.md, 2026-11-21).
    """
    config = AutoConfig.from_pretrained(base_folder)
    names = task_type.output_names
    for key in ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"):
        if hasattr(config, key):
            setattr(config, key, dropout)
    config.num_labels = task_type.n_outputs
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}
    config.problem_type = task_type.problem
    return AutoModelForSequenceClassification.from_pretrained(
        base_folder, config=config, use_safetensors=True, attn_implementation="eager"
    )


def start_at_prior(model: Any, task_type: TaskType, targets: Sequence[Any]) -> None:
    """Have the fresh head answer what is known without the text: the mean, or the log share of each class."""
    head = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == task_type.n_outputs][-1]
    if head.bias is None:
        return
    encoded = task_type.encode_targets(targets)
    if task_type.problem == "regression":
        prior = encoded.mean(keepdims=True)
    else:
        counts = np.bincount(encoded, minlength=task_type.n_outputs) + 1.0  # a class without rows stays possible
        prior = np.log(counts / counts.sum())
    with torch.no_grad():
        head.bias.copy_(torch.as_tensor(prior, dtype=head.bias.dtype))


def tokenize(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Token ids of each text, cut at `max_tokens`."""
    ids: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
    return ids


def _check_sides(sides: dict[str, list[SnapshotRow]], task_type: TaskType) -> None:
    for side, mine in sides.items():
        if not mine:
            raise BadInput(f"the snapshot has no {side} rows", value=0, next_step="Import more labelled rows")
    if task_type.problem != "regression" and len({r.target for r in sides["train"]}) < 2:
        raise BadInput(
            "the training rows have one class only",
            value=sides["train"][0].target,
            next_step="Import rows of the other classes",
        )


def _facts(
    trainer: Any, settings: FinetuneTable, started: float, *, n_rows: int, rate: float, resumed: bool
) -> dict[str, Any]:
    seconds = time.perf_counter() - started
    epochs = float(trainer.state.epoch or 0)
    return {
        "seconds": round(seconds, 2),
        "epochs": round(epochs, 3),
        "n_train_rows": n_rows,
        "rows_per_s": None if resumed else round(n_rows * epochs / seconds, 1),
        "learning_rate": rate,
        "precision": "bf16" if trainer.args.bf16 else "fp32",
        "n_trained_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "n_parameters": sum(p.numel() for p in trainer.model.parameters()),
        "best_main_metric": trainer.state.best_metric,
        "stopped_early": trainer.state.global_step < trainer.state.max_steps,
        "resumed": resumed,
    }
