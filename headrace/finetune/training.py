"""transformers' Trainer with batches of like length, progress in the job, and checkpoints that are whole or absent.

A checkpoint folder counts only while it has every file that its file `whole` lists, which is written and synced after
everything else in it; what a kill leaves of one, while it was saved or while it was deleted, is removed before training
goes on.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from headrace.artifacts import sync
from headrace.config import FinetuneTable
from headrace.finetune.batching import Padding, TokenBudgetSampler, TokenizedRows
from headrace.tasks import TaskType

_WHOLE = "whole"
Report = Callable[..., None]


class LikeLengthTrainer(Trainer):
    """Trainer whose batches come from TokenBudgetSampler."""

    def __init__(self, *args: Any, batch_tokens: int, **kwargs: Any) -> None:
        self._batch_tokens = batch_tokens
        super().__init__(*args, **kwargs)

    def get_train_dataloader(self) -> Any:
        assert isinstance(self.train_dataset, TokenizedRows)
        return self.accelerator.prepare(self._loader(self.train_dataset, shuffle=True))

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        rows = eval_dataset if eval_dataset is not None else self.eval_dataset
        assert isinstance(rows, TokenizedRows)
        return self.accelerator.prepare(self._loader(rows, shuffle=False))

    def _loader(self, rows: TokenizedRows, *, shuffle: bool) -> "DataLoader[Any]":
        sampler = TokenBudgetSampler(
            [len(ids) for ids in rows.token_ids],
            batch_tokens=self._batch_tokens if shuffle else 4 * self._batch_tokens,
            seed=self.args.seed,
            shuffle=shuffle,
        )
        return DataLoader(rows, batch_sampler=sampler, collate_fn=self.data_collator)


class Watcher(TrainerCallback):
    """Tells the job how far training is, keeps the learning curve, stops in time, and marks checkpoints as whole.

    When to stop follows from the learning curve alone, which a checkpoint holds, so that a run that was killed and goes
    on stops where it would have stopped. (The counter of transformers' EarlyStoppingCallback starts anew instead.)
    """

    def __init__(self, report: Report, *, patience: int) -> None:
        self._report, self._patience = report, patience
        self._was_over = False
        self.history: list[dict[str, Any]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        last = self.history[-1] if self.history else {}
        loss = last.get("loss", last.get("eval_loss"))
        self._report("fine-tune", state.global_step, state.max_steps, epoch=round(state.epoch or 0, 3), loss=loss)
        if self._was_over:  # the trainer takes one step before it looks; nothing may come of it
            control.should_evaluate = control.should_save = control.should_log = False
            control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop |= self._is_over(state)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        kept = ("loss", "eval_loss", "learning_rate", "grad_norm")
        facts = {k: v for k, v in (logs or {}).items() if k in kept or k.startswith("eval_metric_")}
        if facts:
            self.history.append({"step": state.global_step, "epoch": round(state.epoch or 0, 4), **facts})

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        for path in [*folder.iterdir(), folder]:
            sync(path)
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
        (folder / _WHOLE).write_text(json.dumps(sizes), "utf-8")
        sync(folder / _WHOLE)
        sync(folder)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After a resume: the curve up to the checkpoint is in its state."""
        for entry in state.log_history:
            kept = {k: v for k, v in entry.items() if k in ("step", "epoch", "loss", "eval_loss", "learning_rate")}
            kept |= {k: v for k, v in entry.items() if k.startswith("eval_metric_")}
            if "loss" in kept or "eval_loss" in kept:
                self.history.append(kept)
        self._was_over = self._is_over(state)

    def _is_over(self, state: Any) -> bool:
        """Whether the last `patience` evaluations brought nothing better than the best before them."""
        values = [entry["eval_metric_main"] for entry in state.log_history if "eval_metric_main" in entry]
        return bool(values) and len(values) - 1 - values.index(max(values)) >= self._patience


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from; removes those that a kill left unfinished."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        if _is_whole(path):
            whole.append(path)
        else:
            shutil.rmtree(path)
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_whole(checkpoint: Path) -> bool:
    try:
        sizes = json.loads((checkpoint / _WHOLE).read_text("utf-8"))
        return all((checkpoint / name).stat().st_size == n_bytes for name, n_bytes in sizes.items())
    except (OSError, ValueError):
        return False


def has_bf16() -> bool:
    """Whether this machine multiplies bf16 in hardware."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def arguments(folder: Path, settings: FinetuneTable, *, learning_rate: float, steps_per_epoch: int) -> Any:
    """Trainer's arguments for these settings."""
    epochs = max(settings.epochs, settings.min_steps / steps_per_epoch)
    n_steps = max(1, round(steps_per_epoch * epochs))
    every = max(1, int(n_steps / (settings.epochs * settings.evals_per_epoch)))
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=round(n_steps * settings.warmup_share),
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",  # 148 against 137 rows/s on CPU, one look: docs/log.md
        seed=settings.seed,
        data_seed=settings.seed,
        bf16=settings.precision == "bf16" or (settings.precision == "auto" and has_bf16()),
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=max(1, every // 5),
        load_best_model_at_end=True,
        metric_for_best_model="eval_metric_main",
        greater_is_better=True,
        disable_tqdm=True,
        report_to="none",
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=["labels"],
    )


def make_trainer(
    model: Any,
    args: Any,
    settings: FinetuneTable,
    *,
    task_type: TaskType,
    train: tuple[list[list[int]], list[Any]],
    validation: tuple[list[list[int]], list[Any]],
    pad_id: int,
    watcher: Watcher,
) -> LikeLengthTrainer:
    """A trainer over token ids and targets of both sides."""

    def metrics(given: Any) -> dict[str, float]:
        logits, order = np.asarray(given.predictions), np.asarray(given.label_ids)
        if task_type.problem != "regression":
            targets = [task_type.output_names[int(k)] for k in order]
        else:
            targets, logits = order.reshape(-1).tolist(), logits.reshape(len(order), -1)
        main = task_type.metrics(targets, logits)[task_type.main_metric]
        return {"eval_metric_main": -1.0 if main is None else float(main)}

    def rows(side: tuple[list[list[int]], list[Any]]) -> TokenizedRows:
        return TokenizedRows(side[0], task_type.encode_targets(side[1]).tolist())

    return LikeLengthTrainer(
        model=model,
        args=args,
        batch_tokens=settings.batch_tokens,
        train_dataset=rows(train),
        eval_dataset=rows(validation),
        data_collator=Padding(pad_id, is_float=task_type.problem == "regression"),
        compute_metrics=metrics,
        callbacks=[watcher],
    )
