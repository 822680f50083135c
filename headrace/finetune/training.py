"""transformers' Trainer with our batches and objectives, progress in the job, and checkpoints that are whole or absent.

A checkpoint holds the tensors that train and the network's buffers, which is all that differs from the base model. Its
folder counts only while it has every file that its file `whole` lists, which is written and synced after everything
else in it; what a kill leaves of one, while it was saved or while it was deleted, is removed before training goes on.
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from headrace.artifacts import sync
from headrace.checkpoints.network import Network
from headrace.checkpoints.windows import outputs_of
from headrace.config import FinetuneTable
from headrace.errors import Unusable
from headrace.files import safetensors_file
from headrace.finetune import processes, resuming
from headrace.finetune.batching import Features, Padding, TokenBudgetSampler
from headrace.finetune.features import FeatureSet, Scale, unscaled
from headrace.finetune.objectives import Objective
from headrace.finetune.optimizers import parameter_groups
from headrace.finetune.sampling import slots_of
from headrace.finetune.steps import count_steps, steps_between
from headrace.tasks import TaskType

_WHOLE = "whole"
_STATE, _OPTIMIZER = "state.safetensors", "optimizer.safetensors"
_RANDOM = "random-{}.safetensors"  # of each process
_OPTIMIZERS = {"adamw": "adamw_torch_fused", "sgd": "sgd", "adafactor": "adafactor"}
_MOMENTUM = 0.9  # without it, SGD hardly moves in a few epochs
_MAIN, _SCORE = "eval_metric_main", "eval_score"
_TIE = 1e-9  # far below what one row makes of a metric
_LEAST_FALL = 0.01  # of the loss, for training to go on where the metric is no better
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
Report = Callable[..., None]


@dataclass(frozen=True)
class Measure:
    """How the network is measured on the validation side while it trains."""

    task_type: TaskType
    side: FeatureSet
    objective: Objective
    scale: Scale

    def metric(self, network: Network, logits: list[Any]) -> float:
        """The main metric of the logits of each window, calibrated as an export is; -1 where it has no value."""
        outputs = outputs_of(network.problem, network.n_outputs, self.side.inputs, self.side.windows, logits)
        outputs = unscaled(self.task_type, outputs, self.scale)
        decoding = {} if network.crf is None else {"crf": {k: v.detach().cpu().numpy() for k, v in network.crf.items()}}
        decoding |= self.task_type.calibrate(self.side.targets, outputs)
        figures = self.task_type.metrics(self.side.targets, outputs, decoding)
        main = figures[self.task_type.main_metric]
        return -1.0 if main is None else float(main)


class LikeLengthTrainer(Trainer):
    """Trainer whose batches come from TokenBudgetSampler and whose loss comes from an objective."""

    def __init__(
        self, *args: Any, settings: FinetuneTable, objective: Objective, measure: Measure, train: FeatureSet, **kw: Any
    ) -> None:
        self._settings, self._objective, self._measure, self._train = settings, objective, measure, train
        self._network: Network = kw["model"]
        self.n_rows = 0
        """Rows that this process trained on since it began or went on."""
        super().__init__(*args, **kw)
        self.model_accepts_loss_kwargs = False  # the objective gives the mean of a batch; Trainer averages batches

    def get_train_dataloader(self) -> Any:
        return self._loader(self.train_dataset, train_sampler(self._train, self._settings))

    def _loader(self, features: Any, sampler: TokenBudgetSampler) -> Any:
        pinned = self.args.dataloader_pin_memory
        loader = DataLoader(features, batch_sampler=sampler, collate_fn=self.data_collator, pin_memory=pinned)
        return prepare_data_loader(loader, device=self.args.device, num_processes=1, process_index=0)

    def create_optimizer(self, model: Any = None) -> Any:
        if self.optimizer is None:
            kind, kwargs = self.get_optimizer_cls_and_kwargs(self.args)
            rate = kwargs.pop("lr")
            if self._settings.optimizer == "sgd":
                kwargs["momentum"] = _MOMENTUM
            groups = parameter_groups(self._network, rate, self.args.weight_decay, self._settings.layer_decay)
            self.optimizer = kind(groups, lr=rate, **kwargs)
        return self.optimizer

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, *args: Any, **kwargs: Any) -> Any:
        loss, logits = self._objective(model, inputs)
        self.n_rows += len(inputs["row"])
        return (loss, {"logits": logits}) if return_outputs else loss

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(model, inputs, *args, **kwargs)
        if not torch.isfinite(loss):
            raise DivergedError(self.state.global_step, float(loss), self.args.learning_rate)
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Loss and main metric of the validation side, by the task type itself."""
        self._measure.objective.refresh(self._network)
        loss, logits = self._answers()
        own = {"eval_loss": loss, _MAIN: self._measure.metric(self._network, logits)}
        metrics = processes.told(own)  # so that all stop at the same step
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics | {_SCORE: _score(metrics)}

    @torch.no_grad()
    def _answers(self) -> tuple[float, list[Any]]:
        """Mean loss, and the logits of each window of the validation side."""
        features = self._measure.side.features
        lengths, budget = self._measure.side.lengths, 4 * self._settings.batch_tokens
        sampler = TokenBudgetSampler(lengths, batch_tokens=budget, seed=0, shuffle=False)
        logits: list[Any] = [None] * len(features)
        total = 0.0
        self._network.eval()
        for batch in self._loader(Features(features), sampler):
            rows = batch["row"].tolist()
            with self.accelerator.autocast():
                loss, scores = self._measure.objective(self._network, batch)
            total += float(loss) * len(rows)
            for row, own in zip(rows, scores.float().cpu().numpy(), strict=True):
                logits[row] = own
        self._network.train()
        return total / len(features), logits

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        try:
            with safetensors_file.written(folder):
                super()._save_checkpoint(model, trial)
        except Unusable:
            shutil.rmtree(folder, ignore_errors=True)  # room for others; it would not count anyway
            raise

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(str(output_dir or self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().contiguous() for name, tensor in _moving(self._network)}, folder / _STATE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        safetensors_file.check(Path(resume_from_checkpoint) / _STATE)
        saved = load_file(Path(resume_from_checkpoint) / _STATE)
        with torch.no_grad():
            for name, tensor in _moving(self._network):
                tensor.copy_(saved[name])

    # transformers would read and write the following as pickles.

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.args.should_save and self.optimizer and self.lr_scheduler:
            state = {"optimizer": self.optimizer.state_dict(), "schedule": self.lr_scheduler.state_dict()}
            resuming.write(Path(output_dir) / _OPTIMIZER, state)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.optimizer and self.lr_scheduler:
            state = resuming.read(Path(checkpoint) / _OPTIMIZER)
            self.optimizer.load_state_dict(state["optimizer"])
            self.lr_scheduler.load_state_dict(state["schedule"])

    def _save_rng_state(self, output_dir: str) -> None:
        Path(output_dir).mkdir(parents=True, exist_ok=True)  # another process may not have made it yet
        resuming.write(Path(output_dir) / _RANDOM.format(self.args.process_index), resuming.random_numbers())

    def _load_rng_state(self, checkpoint: str | None) -> None:
        path = Path(checkpoint or ".") / _RANDOM.format(self.args.process_index)
        if checkpoint is not None and path.exists():  # a run may go on with more processes than it began with
            resuming.go_on_with(resuming.read(path))

    def _save_scaler(self, output_dir: str) -> None:
        """Only fp16 has one."""

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Only fp16 has one."""

    def _load_best_model(self) -> None:
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))


class DivergedError(RuntimeError):
    """The loss is no number any more. Attributes say when."""

    def __init__(self, step: int, loss: float, learning_rate: float) -> None:
        super().__init__(f"the loss is {loss} at step {step}")
        self.step, self.loss, self.learning_rate = step, loss, learning_rate


def _moving(network: Network) -> list[tuple[str, torch.Tensor]]:
    """What training changes: trainable parameters, and buffers that are saved."""
    trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    kept = network.state_dict().keys()
    return trained + [(name, b) for name, b in network.named_buffers() if name in kept]


def train_sampler(train: FeatureSet, settings: FinetuneTable) -> TokenBudgetSampler:
    """This process's part of the batches; all processes together take `batch_tokens` a step."""
    channels = [train.channels[window.row] for window in train.windows]
    return TokenBudgetSampler(
        train.lengths,
        batch_tokens=settings.batch_tokens,
        seed=settings.seed,
        process=processes.place(),
        n_processes=processes.count(),
        slots=slots_of(channels, train.lengths, settings.sampling),
    )


class Watcher(TrainerCallback):
    """Tells the job how far training is, keeps the learning curve, stops in time, and marks checkpoints as whole.

    When to stop follows from the learning curve alone, which a checkpoint holds, so that a run that was killed and goes
    on stops where it would have stopped. (The counter of transformers' EarlyStoppingCallback starts anew instead.)
    """

    def __init__(
        self,
        report: Report,
        *,
        patience: int,
        network: Network | None = None,
        after_step: Callable[[Network, int], None] | None = None,
    ) -> None:
        self._report, self._patience = report, patience
        self._network, self._after_step = network, after_step
        self._was_over = False
        self.history: list[dict[str, Any]] = []

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._after_step is not None and self._network is not None:
            self._after_step(self._network, state.global_step + 1)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        last = self.history[-1] if self.history else {}
        loss = last.get("loss", last.get("eval_loss"))
        self._report("fine-tune", state.global_step, state.max_steps, epoch=round(state.epoch or 0, 3), loss=loss)
        if self._was_over:  # the trainer takes one step before it looks; nothing may come of it
            control.should_evaluate = control.should_save = control.should_log = False
            control.should_training_stop = True

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        control.should_training_stop |= self._is_over(state, args.warmup_steps)
        at = {"metric": (metrics or {}).get(_MAIN), "evaluation": len(_evaluations(state))}
        self._report("fine-tune", state.global_step, state.max_steps, epoch=round(state.epoch or 0, 3), **at)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self._note(logs or {}, state.global_step, state.epoch)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        processes.wait()  # each writes the state of its random numbers
        if processes.is_first():
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            with safetensors_file.written(folder):
                mark_whole(folder)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After a resume: the curve up to the checkpoint is in its state."""
        for entry in state.log_history:
            self._note(entry, entry["step"], entry.get("epoch"))
        self._was_over = self._is_over(state, args.warmup_steps)

    def _note(self, logs: dict[str, Any], step: int, epoch: float | None) -> None:
        """A point of the learning curve, if that is what was logged."""
        kept = ("loss", "eval_loss", "learning_rate", "grad_norm")
        facts = {k: v for k, v in logs.items() if k in kept or k.startswith("eval_metric_")}
        if facts:
            self.history.append({"step": step, "epoch": round(epoch or 0, 4), **facts})

    def _is_over(self, state: Any, n_warm: float = 0) -> bool:
        """Whether neither metric nor loss is better than before in each of the last `patience` evaluations.

        F1 may fall below what the untrained model reaches by chance, and stay there while the loss shows that the model
        learns. Falls add up until they are enough, and the first `n_warm` steps, whose rate is small, prove nothing.
        """
        metric, loss, n_since = -math.inf, math.inf, 0
        for entry in _evaluations(state):
            has_fallen = entry["eval_loss"] < loss * (1 - _LEAST_FALL)
            is_better = has_fallen or entry[_MAIN] > metric
            n_since = 0 if is_better or entry["step"] <= n_warm else n_since + 1
            metric, loss = max(metric, entry[_MAIN]), entry["eval_loss"] if has_fallen else loss
        return n_since >= self._patience


def best_main_metric(state: Any) -> float | None:
    """The main metric of the checkpoint that was kept; None where nothing was measured."""
    best = max(_evaluations(state), key=_score, default=None)
    return None if best is None else float(best[_MAIN])


def _evaluations(state: Any) -> list[dict[str, float]]:
    """What each evaluation so far said."""
    return [entry for entry in state.log_history if _MAIN in entry]


def _score(evaluation: Mapping[str, float]) -> float:
    """The main metric; of equal ones below 1, the one of least loss is more.

    F1 is 0, or what one constant answer gives, until the first rare class is right. Without the loss, the first of
    these checkpoints would be kept.
    """
    metric, loss = evaluation[_MAIN], evaluation["eval_loss"]
    return metric + _TIE / (1 + loss) if metric < 1 and math.isfinite(loss) else metric


def mark_whole(checkpoint: Path) -> None:
    """Have the disk hold all of a checkpoint, then say so in it."""
    for path in [*checkpoint.iterdir(), checkpoint]:
        sync(path)
    sizes = {path.name: path.stat().st_size for path in checkpoint.iterdir()}
    (checkpoint / _WHOLE).write_text(json.dumps(sizes), "utf-8")
    sync(checkpoint / _WHOLE)
    sync(checkpoint)


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """The checkpoint to go on from; removes those that a kill left unfinished."""
    newest = _newest_whole(folder) if processes.is_first() else None
    name = processes.told(None if newest is None else newest.name)
    return None if name is None else folder / name


def _newest_whole(folder: Path) -> Path | None:
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


def computes_in_bf16(settings: FinetuneTable) -> bool:
    return settings.precision == "bf16" or (settings.precision == "auto" and has_bf16())


def arguments(folder: Path, settings: FinetuneTable, *, learning_rate: float, n_batches: int) -> Any:
    """Trainer's arguments for these settings."""
    epochs, n_steps = count_steps(settings, n_batches)
    every = steps_between(settings, n_steps)
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=round(n_steps * settings.warmup_share),
        max_grad_norm=settings.max_grad_norm,
        lr_scheduler_type=_SCHEDULES[settings.schedule],
        optim=_OPTIMIZERS[settings.optimizer],  # fused AdamW: 148 against 137 rows/s on CPU, one look: docs/log.md
        gradient_accumulation_steps=settings.accumulate_batches,
        activation_checkpointing=settings.gradient_checkpointing,
        seed=settings.seed,
        data_seed=settings.seed,
        bf16=computes_in_bf16(settings),
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        logging_strategy="steps",
        logging_steps=max(1, every // 5),
        load_best_model_at_end=True,
        metric_for_best_model=_SCORE,
        greater_is_better=True,
        disable_tqdm=True,
        report_to=settings.tracker,
        run_name=folder.name,
        dataloader_pin_memory=torch.cuda.is_available(),
        remove_unused_columns=False,
        label_names=["labels"],
        ddp_find_unused_parameters=False,  # an objective may use parameters, such as a CRF's, after the network
        ddp_broadcast_buffers=False,  # an objective may look twice before it goes back
    )


def make_trainer(
    network: Network,
    args: Any,
    settings: FinetuneTable,
    *,
    objective: Objective,
    train: FeatureSet,
    measure: Measure,
    pad_id: int,
    watcher: Watcher,
) -> LikeLengthTrainer:
    """A trainer of the features of the training side."""
    trainer = LikeLengthTrainer(
        model=network,
        args=args,
        settings=settings,
        objective=objective,
        measure=measure,
        train=train,
        train_dataset=Features(train.features),
        eval_dataset=Features(measure.side.features),
        data_collator=Padding(pad_id, network.problem),
        callbacks=[watcher],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer
