"""Objectives around another objective, against overfitting: moved embeddings, two dropouts, mixed rows.

Random numbers come from torch's own generator, whose state the trainer's checkpoints hold, so that a resume is exact.
Dimensions: B inputs of a batch, T tokens, D width of the model, K outputs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from headrace.checkpoints.network import Network
from headrace.config import RobustTable
from headrace.errors import BadConfig
from headrace.finetune.features import IGNORED
from headrace.finetune.objectives import Batch, Objective, scores_of, unwrapped

_STEP = 2.5  # of Madry et al. 2018: K steps of 2.5 / K of the norm reach every point of the ball and can turn


def hardened(objective: Objective, settings: RobustTable) -> Objective:
    """The objective inside all the wrappers that the settings ask for; as it is, if none."""
    if settings.rdrop_weight:
        objective = RDrop(objective, settings.rdrop_weight)
    if settings.adversarial != "none":
        n_steps = 1 if settings.adversarial == "fgm" else settings.adversarial_steps
        averages = settings.adversarial == "freelb"
        objective = Adversarial(objective, settings.adversarial_norm, n_steps=n_steps, averages=averages)
    if settings.mixup_alpha:
        objective = Mixup(objective, settings.mixup_alpha)
    return objective


@dataclass(frozen=True)
class Adversarial:
    """The mean of an objective's loss on a batch and on the batch with its embeddings moved to where the loss grows.

    One step is FGM (Miyato et al. 2017, "Adversarial Training Methods for Semi-Supervised Text Classification", section
    3), several are PGD (Madry et al. 2018, "Towards Deep Learning Models Resistant to Adversarial Attacks", section 2);
    with `averages` the losses of all steps count (FreeLB: Zhu et al. 2020, section 3.2, started at no move).

    Costs a pass forward and a pass backward more for every step; with `averages`, their memory too.
    """

    inner: Objective
    norm: float
    """Longest move of a row, over all its tokens."""
    n_steps: int = 1
    averages: bool = False

    def __call__(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        mover = _Mover(batch["input_ids"], batch["attention_mask"])
        with _hooked(unwrapped(network).encoder.get_input_embeddings().register_forward_hook, mover):
            loss, logits = self.inner(network, batch)
            losses = [loss]
            for step in range(self.n_steps):
                is_kept = step == 0 or self.averages
                mover.climb(losses[-1], self.norm, _STEP * self.norm / self.n_steps, keeps_graph=is_kept)
                moved, _ = self.inner(network, batch)
                losses = [*losses, moved] if is_kept else [loss, moved]
        return torch.stack(losses).mean(), logits

    def refresh(self, network: Network) -> None:
        self.inner.refresh(network)


class _Mover:
    """A forward hook of the embeddings that adds a move (B, T, D), at first none, to what they give for a batch."""

    def __init__(self, ids: Tensor, mask: Tensor) -> None:
        self._ids, self._mask = ids, mask
        self._move: Tensor | None = None

    def __call__(self, module: Any, args: Any, output: Tensor) -> Tensor:
        if not torch.equal(args[0], self._ids):  # other texts than the batch's own, such as a catalogue's
            return output
        if self._move is None:
            self._move = torch.zeros_like(output, requires_grad=True)
        return output + self._move

    def climb(self, loss: Tensor, norm: float, rate: float, *, keeps_graph: bool) -> None:
        """Move on by `rate` towards a greater loss, `norm` at most from the start; padding stays."""
        if self._move is None:
            raise BadConfig(
                "finetune.robust.adversarial moves embeddings, and this method does not compute them",
                next_step="Set finetune.cache_bytes = 0, or remove finetune.robust.adversarial",
            )
        (slope,) = torch.autograd.grad(loss, self._move, retain_graph=keeps_graph)
        slope = slope * self._mask[..., None]
        moved = self._move.detach() + rate * slope / _length(slope)
        self._move = (moved * (norm / _length(moved)).clamp(max=1)).requires_grad_()


def _length(rows: Tensor) -> Tensor:
    """Lengths (B, 1, 1), none of them 0."""
    lengths: Tensor = torch.linalg.vector_norm(rows.flatten(1), dim=1)
    return lengths.clamp(min=torch.finfo(rows.dtype).tiny)[:, None, None]


@dataclass(frozen=True)
class RDrop:
    """The mean of an objective's loss under two dropouts, and `weight` times how far apart their answers are.

    Source: Wu et al. 2021, "R-Drop: Regularized Dropout for Neural Networks", section 2; `weight` is half their alpha,
    since they add the two losses.
    """

    inner: Objective
    weight: float

    def __call__(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        (loss, logits), (other_loss, other) = self.inner(network, batch), self.inner(network, batch)
        scores, others = (scores_of(network, one, batch) for one in (logits, other))
        apart = distance(unwrapped(network).problem, scores, others, batch["labels"])
        return (loss + other_loss) / 2 + self.weight * apart, logits

    def refresh(self, network: Network) -> None:
        self.inner.refresh(network)


def distance(problem: str, logits: Tensor, other: Tensor, labels: Tensor) -> Tensor:
    """The mean of both Kullback-Leibler divergences between two answers; for regression, of the squared difference."""
    if problem == "regression":
        return functional.mse_loss(logits, other)
    if problem == "multi_label_classification":
        logits, other = (
            torch.stack([functional.logsigmoid(z), functional.logsigmoid(-z)], dim=-1) for z in (logits, other)
        )
    elif problem == "question_answering":
        logits, other = logits.transpose(1, 2), other.transpose(1, 2)  # an answer is a place
    elif problem == "token_classification":
        logits, other = logits[labels != IGNORED], other[labels != IGNORED]
    p, q = logits.log_softmax(dim=-1), other.log_softmax(dim=-1)
    apart = ((p.exp() - q.exp()) * (p - q)).sum(dim=-1) / 2
    return apart.sum() / max(1, apart.numel())


@dataclass(frozen=True)
class Mixup:
    """An objective's loss on mixed rows: what the head reads, and the labels, are each moved towards another row's.

    Source: Verma et al. 2019, "Manifold Mixup", section 3, at the last hidden layer.
    """

    inner: Objective
    alpha: float
    """Both parameters of the Beta distribution that a row's own share is drawn from."""

    def __call__(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        share = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
        partner = torch.randperm(len(batch["labels"])).to(batch["labels"].device)
        return mixed(self.inner, network, batch, share, partner)

    def refresh(self, network: Network) -> None:
        self.inner.refresh(network)


def mixed(inner: Objective, network: Network, batch: Batch, share: float, partner: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and logits of rows that keep `share` of themselves and have the rest of their `partner` (B,).

    A mixed row weighs what the lighter of the two does.

    Raises:
        BadConfig: the head reads tokens, as those of decoders do.
    """
    own = unwrapped(network)
    labels = batch["labels"]
    if own.problem == "single_label_classification":
        labels = functional.one_hot(labels, own.n_outputs).float()

    def mix(rows: Tensor) -> Tensor:
        return share * rows + (1 - share) * rows[partner]

    def hook(module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if args[0].ndim != 2:
            raise BadConfig(
                "the base model's head reads every token, so inputs of other lengths cannot be mixed there",
                value="finetune.robust.mixup_alpha",
                next_step="Remove finetune.robust.mixup_alpha, or take a base model of the BERT family",
            )
        return (mix(args[0]), *args[1:])

    weights = {"weight": batch["weight"].minimum(batch["weight"][partner])} if "weight" in batch else {}
    with _hooked(own.head.register_forward_pre_hook, hook):
        return inner(network, {**batch, "labels": mix(labels), **weights})


@contextmanager
def _hooked(register: Callable[[Any], Any], hook: Callable[..., Any]) -> Iterator[None]:
    handle = register(hook)
    try:
        yield
    finally:
        handle.remove()
