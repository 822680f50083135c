"""From a run to a checkpoint: load, tokenise, train or go on training, save as a directory that others load."""

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, set_seed
from transformers.utils import logging

from headrace.checkpoints.encoding import Encoder, check_length, input_names, standalone_tokenizer
from headrace.checkpoints.loading import fresh, warm
from headrace.checkpoints.network import Network
from headrace.checkpoints.saving import save
from headrace.config import FinetuneTable, TaskTable
from headrace.errors import BadInput, Unusable
from headrace.finetune import activations, base_models, processes, training
from headrace.finetune.augmenting import copies_of
from headrace.finetune.beginning import start_at_prior
from headrace.finetune.checking import check_options
from headrace.finetune.features import FeatureSet, Scale, featurise
from headrace.finetune.methods import Method, Plan, chain_of, form_of, method_for, rate_of
from headrace.finetune.steps import count_steps, settled
from headrace.finetune.wrapping import objective_of
from headrace.records import Artifact, Run, SnapshotRow
from headrace.store import runs
from headrace.tasks import TASK_TYPES, TaskType
from headrace.workspace import Workspace

Report = Callable[..., None]


@dataclass(frozen=True)
class Tuned:
    """What a finished training leaves in memory."""

    network: Network
    tokenizer: Any
    history: list[dict[str, Any]]
    facts: dict[str, Any]


@dataclass(frozen=True)
class _Sides:
    train: FeatureSet
    validation: FeatureSet
    scale: Scale


def fine_tune(
    ws: Workspace,
    run: Run,
    rows: Sequence[SnapshotRow],
    report: Report,
    *,
    unlabelled: Sequence[str] = (),
    teacher: Path | None = None,
    start: Path | None = None,
) -> str:
    """Do the run and return the digest of its checkpoint; a run that was killed goes on from its last whole checkpoint.

    Of several processes that train together the first writes; the others return an empty text.

    Args:
        unlabelled: texts for continue-pretraining.
        teacher: checkpoint folder for distil.
        start: checkpoint folder whose weights are the start; None: the base model's are.

    Raises:
        BadInput: the rows cannot train this task; the message says what is missing.
        Unusable: the loss is no number any more, or the memory was not enough.
        Cancelled: from `report`.
    """
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    folder = ws.state_folder / "runs" / run.id
    folder.mkdir(parents=True, exist_ok=True)
    task = TaskTable.model_validate(run.params["task"])
    tracker = ws.settings.finetune.tracker
    settings = FinetuneTable.model_validate({**run.params["finetune"], "tracker": tracker})
    base = base_models.find(run.base_model)
    if base.digest != run.base_digest:
        raise BadInput(
            "the base model's weights changed since the run began", value=run.base_model, next_step="Start a new run"
        )
    tuned = tune(
        folder,
        base.folder,
        task,
        settings,
        rows,
        report,
        unlabelled=unlabelled,
        teacher=teacher,
        start=start,
        cache=processes.own_folder(ws.state_folder / "cache"),
    )
    processes.wait()
    return keep_checkpoint(ws, run, tuned, folder) if processes.is_first() else ""


def keep_checkpoint(ws: Workspace, run: Run, tuned: Tuned, folder: Path) -> str:
    """Put what a finished training left into the artifact store, end the run, and remove its folder."""
    checkpoint = ws.artifacts.new_folder()
    save(tuned.network, tuned.tokenizer, checkpoint)
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
    *,
    unlabelled: Sequence[str] = (),
    teacher: Path | None = None,
    start: Path | None = None,
    cache: Path | None = None,
) -> Tuned:
    """Train in `folder`, from its newest whole checkpoint if there is one.

    Args:
        start: as `fine_tune` takes it.
        cache: folder where outputs of frozen layers are kept from run to run; None: nowhere.
    """
    task_type: TaskType = TASK_TYPES.get(task.type)(task)
    train, validation = ([r for r in rows if r.side == side and r.weight > 0] for side in ("train", "validation"))
    _check_sides(train, validation, task_type)
    settings = settled(settings, task_type, len(train))
    tokenizer = AutoTokenizer.from_pretrained(start or base_folder)
    check_length(AutoConfig.from_pretrained(start or base_folder), tokenizer, task)
    check_options(task_type, settings, chain_of(settings, task_type)[-1])
    with _explained(settings, None):
        n_rows = len(train)
        train += copies_of(train, task, settings, base_folder)
        plan = Plan(
            folder=processes.own_folder(folder),
            base_folder=base_folder,
            task=task,
            task_type=task_type,
            settings=settings,
            tokenizer=tokenizer,
            train=train,
            validation=validation,
            unlabelled=unlabelled,
            teacher=teacher,
            start=start,
            cache=cache,
            report=report,
        )
        return _tuned(plan, {"n_train_rows": n_rows, "n_copies": len(train) - n_rows})


def _tuned(plan: Plan, about: dict[str, Any]) -> Tuned:
    plan, method = _after_first(plan, method_for(plan.settings.method, plan.task_type))
    set_seed(plan.settings.seed)
    network = _begun(plan, method)
    started = time.perf_counter()
    if method.trains:
        network, history, facts = trained(plan, method, network)
    else:
        network, history, facts = method.prepare(network, plan), [], {}
    sizes = {"n_parameters": sum(p.numel() for p in network.parameters())}
    network = method.finish(network, plan).float().cpu()
    facts = {"seconds": round(time.perf_counter() - started, 2), **about, **sizes, **facts}
    return Tuned(network, plan.tokenizer, history, facts)


def _begun(plan: Plan, method: Method) -> Network:
    """The network as training begins: the base model with a fresh head, or a version's with its own."""
    form, dropout = form_of(method, plan.task_type), plan.settings.dropout
    if plan.start is not None:
        network = warm(plan.start, plan.task_type, form=form, dropout=dropout)
        if not plan.settings.loss.crf:
            network.crf = None
        return network
    network = fresh(plan.base_folder, plan.task_type, form=form, dropout=dropout)
    _check_head(network)
    start_at_prior(network, plan.task_type, plan.train)
    return network


def _after_first(plan: Plan, method: Method) -> tuple[Plan, Method]:
    """The plan and the method that go on after a method's first stage."""
    if method.first is not None and processes.count() > 1:
        raise BadInput(
            "the method has a first stage that several processes cannot share",
            value=plan.settings.method,
            next_step="Run it without torchrun",
        )
    if method.first is not None:
        with _explained(plan.settings, None):
            plan = replace(plan, base_folder=method.first(plan))
    if method.then is not None:
        then = method_for(method.then(plan.task_type, plan.settings), plan.task_type)
        return _after_first(plan, then)
    return plan, method


def trained(plan: Plan, method: Method, network: Network) -> tuple[Network, list[dict[str, Any]], dict[str, Any]]:
    """The network as the method trains it in the plan's folder, its learning curve, and facts about the training."""
    settings, folder = plan.settings, processes.first_folder(plan.folder)
    network = method.prepare(network, plan)
    sides = _featurised(plan, network)
    if plan.start is not None:
        _scale(network, sides.scale)
    sampler = training.train_sampler(sides.train, settings)
    plan = replace(plan, n_steps=count_steps(settings, len(sampler))[1])
    plain, objective = objective_of(plan, method, network, sides.train)
    kept = activations.keep(plan, network, [sides.train, sides.validation])
    rate = rate_of(settings, method, network.problem)
    own_rate = rate_of(settings.model_copy(update={"learning_rate": None}), method, network.problem)
    watcher = training.Watcher(plan.report, patience=settings.patience, after_step=method.after_step, network=network)
    trainer = training.make_trainer(
        network,
        training.arguments(folder, settings, learning_rate=rate, n_batches=len(sampler)),
        settings,
        objective=kept.under(objective, 0),
        train=sides.train,
        measure=training.Measure(plan.task_type, sides.validation, kept.under(plain, 1), sides.scale),
        pad_id=plan.tokenizer.pad_token_id or 0,
        watcher=watcher,
    )
    resumed = training.newest_whole_checkpoint(folder)
    started = time.perf_counter()
    with _explained(settings, own_rate):
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    processes.check_same(network)
    trainer.accelerator.unwrap_model(network, keep_fp32_wrapper=False)  # its forward would stay in bf16 for good
    kept.restore()
    facts = _facts(trainer, started, n_rows=len(plan.train), rate=rate, resumed=resumed is not None) | kept.facts
    plain.refresh(network)
    _unscale(network, sides.scale)
    return network, watcher.history, facts


_OUT_OF_MEMORY = re.compile(r"(out of|not enough|can't allocate|cannot allocate) memory|ALLOC_FAILED", re.IGNORECASE)


@contextmanager
def _explained(settings: FinetuneTable, own_rate: float | None) -> Iterator[None]:
    """What a user can do something about becomes an error that says what.

    Args:
        own_rate: the learning rate that the method has unless one is set; None: of a stage, where none can be set.
    """
    try:
        yield
    except training.DivergedError as error:
        raise Unusable(
            f"the loss is no number any more at step {error.step}; the learning rate is too high for this data",
            value=f"a learning rate of {error.learning_rate:g}",
            next_step="Set finetune.precision to fp32, or take another finetune.method"
            if own_rate is None
            else f"Set finetune.learning_rate to {min(error.learning_rate / 5, own_rate):g}, "
            "or finetune.precision to fp32",
        ) from None
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        raise Unusable(
            "the memory is not enough",
            value=f"finetune.method = {settings.method}, finetune.batch_tokens = {settings.batch_tokens}",
            next_step="Halve finetune.batch_tokens and double finetune.accumulate_batches, or set "
            "finetune.gradient_checkpointing = true. Where that is not enough, or the method has batches of its own "
            "(contrastive, continue-pretraining), lower the task's max_tokens or take a smaller base_model",
        ) from None


def _featurised(plan: Plan, network: Network) -> _Sides:
    encoder = Encoder(standalone_tokenizer(plan.tokenizer, plan.task))
    has_types = "token_type_ids" in input_names(network.encoder, plan.tokenizer)
    scale = (0.0, 1.0)
    if plan.task_type.problem == "regression":
        scale = plan.task_type.scale([row.target for row in plan.train])  # type: ignore[attr-defined]
    train, validation = (
        featurise(encoder, plan.task_type, rows, has_types=has_types, scale=scale)
        for rows in (plan.train, plan.validation)
    )
    return _Sides(train, validation, scale)


def _scale(network: Network, scale: Scale) -> None:
    """Have a network that answers in the targets' own unit answer standardised: the reverse of `_unscale`."""
    _unscale(network, (-scale[0] / scale[1], 1 / scale[1]))


def _unscale(network: Network, scale: Scale) -> None:
    """Have a network that learnt standardised targets answer in the targets' own unit."""
    if scale == (0.0, 1.0):
        return
    head = network.head
    with torch.no_grad():
        head.weight.mul_(scale[1])
        head.bias.mul_(scale[1]).add_(scale[0])


_NOTHING = {
    "multi_label_classification": "a label",
    "token_classification": "an entity",
    "question_answering": "an answer",
}


def _check_sides(train: Sequence[SnapshotRow], validation: Sequence[SnapshotRow], task_type: TaskType) -> None:
    for side, mine in (("train", train), ("validation", validation)):
        if not mine:
            raise BadInput(f"the snapshot has no {side} rows", value=0, next_step="Import more labelled rows")
    if task_type.problem == "single_label_classification" and len({row.target for row in train}) < 2:
        raise BadInput(
            "the training rows have one class only",
            value=train[0].target,
            next_step="Import rows of the other classes, or raise finetune.sampling.replay_share if it is below 1",
        )
    if task_type.problem in _NOTHING and not any(_says_something(row.target) for row in train):
        raise BadInput(
            f"no training row has {_NOTHING[task_type.problem]}",
            value=train[0].target,
            next_step="Import rows that have, so that there is something to find",
        )
    if task_type.problem == "regression":
        if len({row.target for row in train}) < 2:
            raise BadInput(
                "all training rows have the same number",
                value=train[0].target,
                next_step="Import rows of other numbers",
            )
        task_type.check_spread([row.target for row in train])  # type: ignore[attr-defined]


def _says_something(target: Any) -> bool:
    return bool(target["answers"] if isinstance(target, dict) else target)


def _check_head(network: Network) -> None:
    if network.problem == "regression" and network.head.bias is None:
        raise BadInput(
            "the head that transformers gives this family has no bias, so it cannot answer in the targets' unit",
            value=network.config.model_type,
            next_step="Choose a base model of the BERT family, or method head",
        )


def _facts(trainer: Any, started: float, *, n_rows: int, rate: float, resumed: bool) -> dict[str, Any]:
    seconds = time.perf_counter() - started
    epochs = float(trainer.state.epoch or 0)
    return {
        "seconds": round(seconds, 2),
        "epochs": round(epochs, 3),
        "rows_per_s": None if resumed else round(n_rows * epochs / seconds, 1),
        "learning_rate": rate,
        "precision": "bf16" if trainer.args.bf16 else "fp32",
        "n_trained_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "n_parameters": sum(p.numel() for p in trainer.model.parameters()),
        "best_main_metric": training.best_main_metric(trainer.state),
        "stopped_early": trainer.state.global_step < trainer.state.max_steps,
        "resumed": resumed,
        **({"n_rows_by_process": processes.of_all(trainer.n_rows)} if processes.count() > 1 else {}),
    }
