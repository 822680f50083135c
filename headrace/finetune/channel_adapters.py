"""Train the adapters of many channels on one shared model, in one pass over their mixed rows.

Each channel goes its own way: batches of its own rows, its own steps, rates and moments, a loss and a gradient that no
other channel touches. A *wave* is what runs through the network at once: the next batches of several channels, a
channel at most once. So what a channel learns does not depend, but for rounding, on which others there are.

Channels are trained in cohorts that fit the memory. Each leaves the directories of its adapters, and a training that
was killed goes on after the last whole cohort.

Dimensions: C channels of a cohort, B rows, P numbers of one channel (see banked.py).
"""

import hashlib
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.utils import logging

from headrace.checkpoints import low_rank
from headrace.checkpoints.encoding import Encoder, Window, input_names, like_length_batches, standalone_tokenizer
from headrace.checkpoints.loading import load
from headrace.checkpoints.low_rank import LowRank
from headrace.checkpoints.network import Network
from headrace.checkpoints.windows import outputs_of
from headrace.config import FinetuneTable, TaskTable
from headrace.errors import Unusable
from headrace.finetune.banked import Banked, Layout, Vector, as_low_rank, as_vector, beginning, layout_of
from headrace.finetune.batching import Padding, TokenBudgetSampler
from headrace.finetune.features import FeatureSet, Scale, featurise
from headrace.finetune.losses import criterion_of
from headrace.finetune.methods import cannot_adapt
from headrace.finetune.objectives import Batch, Criterion, feed_of, weighed
from headrace.finetune.training import computes_in_bf16
from headrace.records import SnapshotRow
from headrace.tasks import TASK_TYPES, Outputs, TaskType

Report = Callable[..., None]
_COHORT_BYTES = 400_000_000  # of vectors, with two moments each
_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # Adam's usual ones (Kingma and Ba 2015, algorithm 1)
_WAVE_BATCHES = 2  # a wave holds up to so many times the tokens of a batch
_NOWHERE = -1e4
_BATCH_TOKENS = 2048  # where nothing is learnt


@dataclass(frozen=True)
class Shared:
    """The shared model, and what adapters for it look like."""

    network: Network
    tokenizer: Any
    task: TaskTable
    checkpoint: Path
    layout: Layout
    start: Vector
    """What a channel begins with: the answers of the shared model."""

    @cached_property
    def task_type(self) -> TaskType:
        made: TaskType = TASK_TYPES.get(self.task.type)(self.task)
        return made

    @cached_property
    def encoder(self) -> Encoder:
        return Encoder(standalone_tokenizer(self.tokenizer, self.task))

    @cached_property
    def input_names(self) -> list[str]:
        return input_names(self.network.encoder, self.tokenizer)

    @property
    def bank(self) -> dict[str, Any]:
        """The room that an exported model needs for these adapters."""
        return {"targets": list(self.layout.widths), "rank": self.layout.rank}


def open_shared(
    checkpoint: Path, task: TaskTable, settings: FinetuneTable, *, bank: Mapping[str, Any] | None = None
) -> Shared:
    """Load the shared model.

    Args:
        bank: room that an exported model has already, in place of what the settings ask for.

    Raises:
        BadInput: no adapters can stand on it; the message says why.
    """
    check_checkpoint(checkpoint)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    task_type: TaskType = TASK_TYPES.get(task.type)(task)
    network, tokenizer = load(checkpoint, task_type)
    if network.crf is not None:
        raise cannot_adapt("a CRF, whose scores are those of all channels")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":  # the plain form learns faster there, as in checkpoints.loading.fresh
        network.model.set_attn_implementation("eager")
    network.requires_grad_(False).to(device)
    own = settings.per_channel
    rank, names = (int(bank["rank"]), bank["targets"]) if bank else (own.rank, own.targets)
    layout = layout_of(network, rank=rank, names=names, frozen_layers=own.frozen_layers)
    return Shared(network, tokenizer, task, checkpoint, layout, beginning(layout, network, seed=settings.seed))


def check_checkpoint(checkpoint: Path) -> None:
    """Check that a checkpoint is one plain transformers model.

    Raises:
        BadInput: it is not; the message says what it is.
    """
    if (checkpoint / "modules.json").exists():
        raise cannot_adapt("no head of transformers' but a linear layer on the mean of its tokens")
    if (checkpoint / "adapter_config.json").exists():
        raise cannot_adapt("tokens or layers of peft's that cannot be merged into its weights")


@dataclass
class _Cohort:
    """Channels that train at once, and where each of them is. Rows (C, P) of the tensors are theirs."""

    names: list[str]
    batches: list[list[list[int]]]
    """Of each channel, the places of the features of every batch that is to come, the next one last."""
    pulls: Tensor
    vectors: Tensor
    means: Tensor
    squares: Tensor
    n_steps: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.n_steps = [len(own) for own in self.batches]


def train(
    shared: Shared,
    settings: FinetuneTable,
    rows: Sequence[SnapshotRow],
    channels: Sequence[str],
    folder: Path,
    report: Report,
) -> dict[str, Path]:
    """Train adapters for these channels; a PEFT directory each, in `folder`.

    Args:
        rows: the training side, of all channels; what the loss weighs by is taken from all of them.

    Raises:
        Unusable: the loss is no number any more.
        Cancelled: from `report`.
    """
    scale = _scale_of(shared.task_type, rows)
    has_types = "token_type_ids" in shared.input_names
    features = featurise(shared.encoder, shared.task_type, rows, has_types=has_types, scale=scale)
    criterion = criterion_of(shared.task_type, settings.loss, features.features)
    start = torch.from_numpy(_standardised(shared, shared.start, scale))
    plans = _plans(features, settings, channels)
    folders = {name: folder / hashlib.sha256(name.encode()).hexdigest()[:16] for name in plans}
    n_done, n_all = 0, sum(map(len, plans.values()))
    for names in _cohorts(plans, n_numbers=len(start)):
        if not all((folders[name] / low_rank.CONFIG).exists() for name in names):
            cohort = _begin(names, plans, features, settings, start.to(shared.network.model.device))
            for n_more in _trained(shared, settings, cohort, features, criterion, start):
                n_done += n_more
                report("adapters", n_done, n_all, channels=len(plans))
            for name, vector in zip(names, cohort.vectors.cpu().numpy(), strict=True):
                own = as_low_rank(shared.layout, _standardised(shared, vector, scale, back=True))
                _put(folders[name], own, base=shared.checkpoint.name)
        else:
            n_done += sum(len(plans[name]) for name in names)
    return folders


def _scale_of(task_type: Any, rows: Sequence[SnapshotRow]) -> Scale:
    if task_type.problem != "regression":
        return 0.0, 1.0
    mean, deviation = task_type.scale([row.target for row in rows])
    return float(mean), float(deviation)


def _standardised(shared: Shared, vector: Vector, scale: Scale, *, back: bool = False) -> Vector:
    """A vector whose head answers in standard deviations, as the loss of a regression asks; `back`: in the own unit."""
    found = vector.copy()
    if shared.layout.head_shape is not None and scale != (0.0, 1.0):
        parts, (mean, deviation) = shared.layout.parts(found), scale
        parts["head.bias"][:] = (
            parts["head.bias"] * deviation + mean if back else (parts["head.bias"] - mean) / deviation
        )
        parts["head.weight"][:] *= deviation if back else 1 / deviation
    return found


def _plans(features: FeatureSet, settings: FinetuneTable, channels: Sequence[str]) -> dict[str, list[list[int]]]:
    """Of each channel, the features of every batch, the last one first."""
    mine: dict[str, list[int]] = {name: [] for name in channels}
    for place, window in enumerate(features.windows):
        if (own := mine.get(features.channels[window.row])) is not None:
            own.append(place)
    lengths = features.lengths
    plans = {}
    for name, places in mine.items():
        own_lengths = [lengths[place] for place in places]
        sampler = TokenBudgetSampler(own_lengths, batch_tokens=settings.batch_tokens, seed=settings.seed)
        n_steps = math.ceil(len(sampler) * settings.per_channel.epochs)
        batches: list[list[int]] = []
        for epoch in range(math.ceil(settings.per_channel.epochs)):
            sampler.set_epoch(epoch)
            batches += [[places[i] for i in batch] for batch in sampler]
        plans[name] = batches[:n_steps][::-1]
    return plans


def _cohorts(plans: Mapping[str, Sequence[Any]], *, n_numbers: int) -> list[list[str]]:
    """Channels in groups whose vectors and moments fit the memory, those with the most steps together."""
    size = max(1, _COHORT_BYTES // (3 * 4 * n_numbers))
    order = sorted(plans, key=lambda name: (-len(plans[name]), name))
    return [order[i : i + size] for i in range(0, len(order), size)]


def _begin(
    names: list[str],
    plans: Mapping[str, list[list[int]]],
    features: FeatureSet,
    settings: FinetuneTable,
    start: Tensor,
) -> _Cohort:
    counts = Counter(features.channels)
    pulls = torch.tensor([settings.per_channel.pull / counts[name] for name in names], device=start.device)
    vectors = start.repeat(len(names), 1)
    moments = (torch.zeros_like(vectors), torch.zeros_like(vectors))
    return _Cohort(names, [list(plans[name]) for name in names], pulls, vectors, *moments)


def _trained(
    shared: Shared,
    settings: FinetuneTable,
    cohort: _Cohort,
    features: FeatureSet,
    criterion: Criterion,
    start: Tensor,
) -> Iterator[int]:
    """Take the steps of a cohort; gives the number of steps after each wave."""
    banked, device = Banked(shared.network, shared.layout), cohort.vectors.device
    collate, start = Padding(shared.tokenizer.pad_token_id or 0, shared.task_type.problem), start.to(device)
    in_bf16 = computes_in_bf16(settings)
    with banked.attached():
        for wave in _waves(cohort, features.lengths, budget=_WAVE_BATCHES * settings.batch_tokens):
            places = [place for place, _ in wave]
            sizes = [len(batch) for _, batch in wave]
            batch = collate([features.features[i] for _, own in wave for i in own])
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            vectors = cohort.vectors[places].requires_grad_()
            with torch.autocast(device.type, torch.bfloat16, enabled=in_bf16):
                channel_of = torch.repeat_interleave(torch.tensor(sizes)).to(device)
                logits = banked.logits(feed_of(batch), vectors, channel_of).float()
            loss = _loss(logits, batch, sizes, criterion, shared.task_type.problem)
            (gradients,) = torch.autograd.grad(loss, vectors)
            if not torch.isfinite(loss):
                rate = settings.per_channel.learning_rate
                raise Unusable(
                    "the loss of the adapters is no number any more; the learning rate is too high for this data",
                    value=f"finetune.per_channel.learning_rate = {rate:g}",
                    next_step=f"Set finetune.per_channel.learning_rate to {rate / 5:g}",
                )
            _step(cohort, places, gradients, start, settings)
            yield len(wave)


def _waves(cohort: _Cohort, lengths: Sequence[int], *, budget: int) -> Iterator[list[tuple[int, list[int]]]]:
    """The channels of each wave with their batches, taken from the cohort; who has most to come goes first.

    Of those with as much to come, batches of like length go together, since a wave is padded to its longest: its padded
    size stays within `budget` tokens, unless it is one batch.
    """

    def longest_of(c: int) -> int:
        return max(lengths[i] for i in cohort.batches[c][-1])

    while waiting := [c for c, batches in enumerate(cohort.batches) if batches]:
        wave: list[tuple[int, list[int]]] = []
        n_rows = longest = 0
        for c in sorted(waiting, key=lambda c: (-len(cohort.batches[c]), longest_of(c))):
            n_then, longest_then = n_rows + len(cohort.batches[c][-1]), max(longest, longest_of(c))
            if wave and n_then * longest_then > budget:
                break
            wave.append((c, cohort.batches[c].pop()))
            n_rows, longest = n_then, longest_then
        yield wave


def _loss(logits: Tensor, batch: Batch, sizes: Sequence[int], criterion: Criterion, problem: str) -> Tensor:
    """The sum of the channels' mean losses."""
    if problem == "question_answering":  # what is padded is no place for an answer
        logits = logits.masked_fill(batch["attention_mask"][..., None] == 0, _NOWHERE)
    learnt_from = weighed(logits, batch), batch["labels"]
    parts = zip(*(torch.split(one, list(sizes)) for one in learnt_from), strict=True)
    return torch.stack([criterion(own, labels) for own, labels in parts]).sum()


@torch.no_grad()
def _step(cohort: _Cohort, places: list[int], gradients: Tensor, start: Tensor, settings: FinetuneTable) -> None:
    """A step of AdamW for the channels at `places`, each by its own count, drawn to where it began instead of to 0.

    Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", algorithm 2.
    """
    norms = gradients.norm(dim=1, keepdim=True)
    gradients = gradients * (settings.max_grad_norm / (norms + 1e-6)).clamp(max=1)
    means = cohort.means[places].mul_(_BETAS[0]).add_(gradients, alpha=1 - _BETAS[0])
    squares = cohort.squares[places].mul_(_BETAS[1]).addcmul_(gradients, gradients, value=1 - _BETAS[1])
    cohort.means[places], cohort.squares[places] = means, squares
    counts = [cohort.n_steps[c] - len(cohort.batches[c]) for c in places]  # this step among them
    rates = [_rate(n - 1, cohort.n_steps[c], settings) for c, n in zip(places, counts, strict=True)]

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=gradients.device)[:, None]

    mean_share, square_share = (column([1 - beta**n for n in counts]) for beta in _BETAS)
    rate = column(rates)
    old = cohort.vectors[places]
    move = rate * (means / mean_share) / ((squares / square_share).sqrt() + _EPSILON)
    pull = (rate * cohort.pulls[places][:, None]).clamp(max=1) * (old - start)
    cohort.vectors[places] = old - move - pull


def _rate(n_done: int, n_steps: int, settings: FinetuneTable) -> float:
    """The learning rate of a step: up over finetune.warmup_share of a channel's steps, then down to 0."""
    n_warm = round(n_steps * settings.warmup_share)
    rise, fall = (n_done + 1) / (n_warm + 1), (n_steps - n_done) / max(1, n_steps - n_warm)
    return settings.per_channel.learning_rate * min(rise, fall)


def _put(folder: Path, own: LowRank, *, base: str) -> None:
    """Write an adapter's directory; it appears whole or not at all."""
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    low_rank.write(unfinished, own, base=base)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)


@torch.no_grad()
def answers(shared: Shared, rows: Sequence[SnapshotRow], adapters: Mapping[str, LowRank]) -> Outputs:
    """What rows are answered, each with its channel's adapter or, where that has none, by the shared model."""
    inputs = [row.input for row in rows]
    windows = shared.encoder.encode(inputs)
    found: list[Any] = [None] * len(windows)
    of_channel: dict[str | None, list[int]] = {}
    for place, window in enumerate(windows):
        channel = rows[window.row].channel
        of_channel.setdefault(channel if channel in adapters else None, []).append(place)
    own = [channel for channel in of_channel if channel is not None]
    cohorts = _cohorts({name: () for name in own}, n_numbers=len(shared.start))
    groups: list[Sequence[str | None]] = [[None], *cohorts]
    for group in groups:
        places = [place for name in group for place in of_channel.get(name, [])]
        channel_of = [i for i, name in enumerate(group) for _ in of_channel.get(name, [])]
        vectors = [shared.start if name is None else _vector_of(shared, adapters[name]) for name in group]
        scores = _logits(shared, [windows[place] for place in places], np.stack(vectors), channel_of)
        for place, one in zip(places, scores, strict=True):
            found[place] = one
    return outputs_of(shared.network.problem, shared.network.n_outputs, inputs, windows, found)


def _vector_of(shared: Shared, own: LowRank) -> Vector:
    return as_vector(shared.layout, own, shared.start)


def _logits(
    shared: Shared, windows: Sequence[Window], vectors: NDArray[np.float32], channel_of: Sequence[int]
) -> list[Any]:
    """Logits of each window, with the vector (of C, P) of its channel."""
    device = shared.network.model.device
    banked, channels = Banked(shared.network, shared.layout), torch.tensor(channel_of, dtype=torch.int64, device=device)
    tensors = torch.from_numpy(vectors).to(device)
    found: list[Any] = [None] * len(windows)
    with banked.attached():
        for rows in like_length_batches([len(window) for window in windows], batch_tokens=_BATCH_TOKENS):
            feed = shared.encoder.feed([windows[i] for i in rows], shared.input_names)
            given = {name: torch.from_numpy(array).to(device) for name, array in feed.items()}
            scores = banked.logits(given, tensors, channels[rows]).float().cpu().numpy()
            for i, own in zip(rows, scores, strict=True):
                found[i] = own
    return found
