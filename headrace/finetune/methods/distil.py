"""Distil: a student with fewer layers learns the answers of a teacher version as well as the labels, half and half.

Answers are compared softened by `finetune.distil_temperature`: over classes, per label, per token, or over the places
of an answer; numbers by their squared distance.

Requirements: a version of the same task (`finetune.teacher`); for tasks on tokens one with the same tokenizer. Cost:
one pass of the teacher over the training rows, then that of `full` on the layers that stay.
Relations: `full` on fewer layers, with a better target; the smaller artifact answers faster.
Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, section 2; every other
layer kept as the start, as in Sanh et al. 2019, "DistilBERT", section 3.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from headrace.checkpoints.encoding import Encoder, input_names, like_length_batches, standalone_tokenizer
from headrace.checkpoints.loading import keep_layers, load
from headrace.checkpoints.network import Network
from headrace.config import FinetuneTable, TaskTable
from headrace.errors import BadConfig
from headrace.finetune.features import IGNORED
from headrace.finetune.methods import Method, Plan
from headrace.finetune.objectives import Batch, Objective, unwrapped, weighed

_BATCH_TOKENS = 4096
_TOKENS = ("token_classification", "question_answering")


def check(task: TaskTable, settings: FinetuneTable) -> None:
    """Refuse to learn from nobody.

    Raises:
        BadConfig: no teacher is named.
    """
    if not settings.teacher:
        raise BadConfig(
            "method distil needs a teacher: it learns from a version, and finetune.teacher names none",
            value=settings.teacher,
            next_step="Set finetune.teacher to a version of this task, such as --set finetune.teacher=1",
        )


def prepare(network: Network, plan: Plan) -> Network:
    """The student.

    Raises:
        BadConfig: no teacher, or more layers than the base model has.
    """
    if plan.teacher is None:
        check(plan.task, plan.settings)
    depth = len(network.layers)
    n_layers = plan.settings.student_layers or max(1, depth // 2)
    if n_layers > depth:
        raise BadConfig(
            "finetune.student_layers is more than the base model has",
            value=n_layers,
            next_step=f"Set it to {depth} at most",
        )
    keep_layers(network, n_layers)
    return network


def objective(inner: Objective, plan: Plan) -> Objective:
    """Half the task's own loss, half the distance to the teacher's answers, which are computed here."""
    return _Taught(inner, _answers(plan), plan.settings.distil_temperature)


@dataclass(frozen=True)
class _Taught:
    inner: Objective
    answers: list[Tensor]
    """Of each row (or window) of the training side (K,) or (T, K), as the student is to give them."""
    temperature: float

    def __call__(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        loss, logits = self.inner(network, batch)
        own = [self.answers[row] for row in batch["row"].tolist()]
        wanted = torch.nn.utils.rnn.pad_sequence(own, batch_first=True).to(logits.device)
        problem = unwrapped(network).problem
        is_compared = batch["attention_mask"].bool()
        if problem == "token_classification":
            is_compared &= batch["labels"] != IGNORED
        apart = distance(problem, weighed(logits.float(), batch), wanted, is_compared, self.temperature)
        return (loss + apart) / 2, logits

    def refresh(self, network: Network) -> None:
        self.inner.refresh(network)


def distance(problem: str, logits: Tensor, wanted: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of softened answers, times the temperature squared; squared error for numbers.

    Args:
        logits, wanted: (B, K), or (B, T, K) for tasks on tokens.
        mask: (B, T), true for tokens that have an answer: of tags the first piece of each word, since what a teacher
            says of the others it never learnt.
    """
    if problem == "regression":
        return functional.mse_loss(logits, wanted)
    if problem == "multi_label_classification":  # each label is a choice between its logit and 0
        logits, wanted = (torch.stack([z, torch.zeros_like(z)], dim=-1).flatten(0, 1) for z in (logits, wanted))
    elif problem == "token_classification":
        logits, wanted = logits[mask], wanted[mask]
    elif problem == "question_answering":  # a choice between places
        hidden = torch.finfo(torch.float32).min / 4
        logits, wanted = (
            z.masked_fill(~mask[..., None], hidden).transpose(1, 2).flatten(0, 1) for z in (logits, wanted)
        )
    softened, taught = ((z / temperature).log_softmax(dim=-1) for z in (logits, wanted))
    apart = functional.kl_div(softened, taught, log_target=True, reduction="sum") / max(1, len(softened))
    return apart * temperature**2


@torch.no_grad()
def _answers(plan: Plan) -> list[Tensor]:
    """The teacher's logits for every window of the training side, in order; standardised as a student's numbers are."""
    teacher, tokenizer, encoder = _teacher(plan)
    names = input_names(teacher.encoder, tokenizer)
    inputs = [row.input for row in plan.train]
    if not any(isinstance(one, tuple) for one in inputs):
        names = [name for name in names if name != "token_type_ids"]
    windows = encoder.encode(inputs)
    found: list[Any] = [None] * len(windows)
    n_done = 0
    device = next(teacher.parameters()).device
    for rows in like_length_batches([len(window) for window in windows], batch_tokens=_BATCH_TOKENS):
        feed = encoder.feed([windows[i] for i in rows], names)
        logits = teacher(**{name: torch.from_numpy(array).to(device) for name, array in feed.items()}).float().cpu()
        for row, own in zip(rows, logits, strict=True):
            found[row] = (own[: len(windows[row])] if teacher.problem in _TOKENS else own).clone()
        n_done += len(rows)
        plan.report("teach", n_done, len(windows))
    if teacher.problem == "regression":
        mean, deviation = plan.task_type.scale([row.target for row in plan.train])  # type: ignore[attr-defined]
        found = [(one - mean) / deviation for one in found]
    return found


def _teacher(plan: Plan) -> tuple[Network, Any, Encoder]:
    """The teacher, its tokenizer and encoder.

    Raises:
        BadConfig: it answers something else, or cuts texts into other tokens where those count.
    """
    assert plan.teacher is not None
    teacher, tokenizer = load(plan.teacher, plan.task_type)
    names = [teacher.config.id2label[i] for i in range(len(teacher.config.id2label))]
    if names != list(plan.task_type.output_names):
        raise BadConfig(
            "the teacher has other outputs than this task",
            value=names,
            next_step="Set finetune.teacher to a version of this task that was made with the same labels",
        )
    alone, own = (standalone_tokenizer(one, plan.task) for one in (tokenizer, plan.tokenizer))
    if teacher.problem in _TOKENS and alone.to_str() != own.to_str():
        raise BadConfig(
            "the teacher cuts texts into other tokens than the base model",
            value=plan.settings.teacher,
            next_step="Set base_model to the teacher's",
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return teacher.requires_grad_(False).to(device), tokenizer, Encoder(alone)


METHOD = Method(learning_rate=2e-4, prepare=prepare, objective=objective, check=check, starts_warm=False)
