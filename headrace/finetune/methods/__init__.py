"""Ways to fine-tune a base model. One file each: what trains, and the learning rate that suits it.

To add one: copy bitfit.py; describe it as a `Method`; add its line to METHODS; write its lines in docs/methods.md. The
conformance tests find it through the table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headrace.config import FinetuneTable, TaskTable
from headrace.errors import BadInput
from headrace.records import SnapshotRow
from headrace.registry import Registry
from headrace.tasks import TaskType

if TYPE_CHECKING:
    from headrace.checkpoints.network import Network
    from headrace.finetune.objectives import Objective

METHODS = Registry(
    "methods",
    {
        name: f"headrace.finetune.methods.{name.replace('-', '_')}:METHOD"
        for name in (
            "full", "head", "freeze", "bitfit", "lora", "dora", "adalora", "ia3", "adapter", "prefix", "prompt",
            "distil", "contrastive", "zero-shot", "continue-pretraining",
        )
    },
)  # fmt: skip


SGD_TIMES = 200.0
"""SGD's rate over AdamW's, whose steps do not shrink with the gradient. One look, `full` on 1,024 rows of the VADER
channels: macro-F1 .31 at 50 times, .48 at 150 times, where AdamW had .61."""

PROBLEMS = frozenset(
    {
        "single_label_classification", "multi_label_classification", "regression", "token_classification",
        "question_answering", "retrieval",
    }
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What a method may know of the fine-tuning it is part of."""

    folder: Path
    """Scratch of the run; what is left here is found again after a kill."""
    base_folder: Path
    """The base model's directory."""
    task: TaskTable
    task_type: TaskType
    settings: FinetuneTable
    tokenizer: Any
    train: Sequence[SnapshotRow]
    validation: Sequence[SnapshotRow]
    unlabelled: Sequence[str] = ()
    """Every text of the workspace's channels that is not on the test side; for continue-pretraining."""
    teacher: Path | None = None
    """Checkpoint folder of finetune.teacher."""
    start: Path | None = None
    """Checkpoint folder of finetune.start; None: the base model is the start."""
    cache: Path | None = None
    """Where outputs of frozen layers are kept; None: nowhere."""
    n_steps: int = 0
    """Optimiser steps that training will take; 0 while it is not known."""
    report: Callable[..., None] = lambda *_args, **_facts: None


def unchanged(network: "Network", plan: Plan) -> "Network":
    return network


@dataclass(frozen=True)
class Method:
    """A way to fine-tune, as functions over the network (see headrace/checkpoints/network.py)."""

    learning_rate: float
    """Used when finetune.learning_rate is not set."""
    token_learning_rate: float | None = None
    """The same for tasks on tokens, where it is another."""
    prepare: Callable[["Network", Plan], "Network"] = unchanged
    """The network with only what trains left trainable; may wrap `network.model`, and add to plan.tokenizer."""
    finish: Callable[["Network", Plan], "Network"] = unchanged
    """The trained network in the form that is saved: merged into a plain model where that can be."""
    first: Callable[[Plan], Path] | None = None
    """A stage of its own before training; gives the directory of the base model to go on from. Resumes after a kill."""
    then: Callable[[TaskType, FinetuneTable], str] | None = None
    """The method that goes on after `first`; of this one nothing else is used then."""
    check: Callable[[TaskTable, FinetuneTable], None] | None = None
    """Refuses settings that `prepare` would refuse, as far as they alone tell (headrace/finetune/checking.py)."""
    after_step: Callable[["Network", int], None] | None = None
    """Called after every optimiser step, before gradients are cleared, with the number of steps done."""
    objective: Callable[["Objective", Plan], "Objective"] | None = None
    """The loss to train on, made from the task's own."""
    form: Literal["head", "embedding"] = "head"
    """`head`: transformers' own head for the task; `embedding`: mean of the tokens, unit length, one linear layer.
    Tasks on tokens have the first and retrieval the second whatever stands here."""
    trains: bool = True
    """False where `prepare` has done all there is to do."""
    starts_warm: bool = True
    """Whether `prepare` leaves the answers as they are, so that it can go on from a version (finetune.start)."""
    problems: frozenset[str] = PROBLEMS
    """Problems of task types that it can do."""

    def rate_for(self, problem: str) -> float:
        on_tokens = problem in ("token_classification", "question_answering")
        return self.token_learning_rate if on_tokens and self.token_learning_rate else self.learning_rate


def method_for(name: str, task_type: TaskType) -> Method:
    """The method called `name`, which can do the task.

    Raises:
        NotFound: no such method.
        BadInput: it cannot do such a task; the message says which can.
    """
    method: Method = METHODS.get(name)
    if task_type.problem not in method.problems:
        able = [other for other in METHODS.names() if task_type.problem in METHODS.get(other).problems]
        raise BadInput(
            f"method {name!r} cannot do a {task_type.name} task",
            value=name,
            next_step=f"Choose one of: {', '.join(able)}",
        )
    return method


def chain_of(settings: FinetuneTable, task_type: TaskType) -> list[Method]:
    """The method that is set, and those that go on after its first stage; the last one trains what is saved.

    Raises:
        NotFound, BadInput, BadConfig: as `method_for`, and as `then` of a method.
    """
    chain = [method_for(settings.method, task_type)]
    while (then := chain[-1].then) is not None:
        chain.append(method_for(then(task_type, settings), task_type))
    return chain


def form_of(method: Method, task_type: TaskType) -> Literal["head", "embedding"]:
    """The form of the network that a method trains: retrieval compares vectors; tasks on tokens have no vector of the
    whole input."""
    if task_type.problem in ("token_classification", "question_answering"):
        return "head"
    return "embedding" if task_type.problem == "retrieval" else method.form


def rate_of(settings: FinetuneTable, method: Method, problem: str) -> float:
    """The learning rate that is set, or the method's own for the problem under the optimiser."""
    times = SGD_TIMES if settings.optimizer == "sgd" else 1.0
    return settings.learning_rate or method.rate_for(problem) * times


def check_adaptable(method: Method, task_type: TaskType, settings: FinetuneTable) -> None:
    """Check that a method leaves one plain transformers model, which adapters of channels can stand on.

    Raises:
        BadInput: it does not; the message says what it leaves.
    """
    on_tokens = task_type.problem in ("token_classification", "question_answering")
    if task_type.problem == "retrieval":
        raise cannot_adapt("no head at all, as a retrieval task has none")
    if method.form == "embedding" and method.then is None and not on_tokens:
        raise cannot_adapt("no head of transformers' but a linear layer on the mean of its tokens")
    if settings.loss.crf:
        raise cannot_adapt("a CRF, whose scores are those of all channels")


def cannot_adapt(what: str) -> BadInput:
    return BadInput(
        f"adapters of channels need a plain shared model, and this one has {what}",
        next_step="Set finetune.method to full or lora, without finetune.loss.crf, or train without --per-channel",
    )
