"""Train vectors for retrieval: a text lies nearer to its entry of the catalogue than to others.

Dimensions: B texts of a batch, K entries of the catalogue, E entries that a batch compares with, D width of the model.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from headrace.checkpoints.encoding import Encoder, standalone_tokenizer
from headrace.checkpoints.network import Network
from headrace.finetune.embeddings import vectors_of
from headrace.finetune.methods import Plan
from headrace.finetune.objectives import Batch, Objective, feed_of, unwrapped, weighed
from headrace.tasks.retrieval import SCALE

_N_HARD = 1  # negatives an entry brings along; each costs a pass of its text
_SHARE = 4  # tokens of entries that learn in a batch, as a multiple of batch_tokens


@dataclass
class Catalogue:
    """The entries' texts, their vectors in `network.dense`, and for each the entries that are easily taken for it."""

    plan: Plan
    token_ids: list[list[int]]
    neighbours: Tensor | None = field(default=None, init=False)
    """(K, n) the nearest other entries by the vectors of the last refresh; None before the first."""

    def refresh(self, network: Network) -> None:
        """Compute all vectors anew, in float32 so that they are what the saved model gives."""
        network = unwrapped(network)
        device = next(network.parameters()).device
        entries = [self.plan.task.descriptions[label] for label in self.plan.task.labels]
        with torch.autocast(device.type, enabled=False):
            found = vectors_of(network, self.plan.tokenizer, self.plan.task, entries)
        vectors = torch.from_numpy(found).to(device)
        with torch.no_grad():
            _dense(network).weight.copy_(SCALE * vectors)
        n = min(_N_HARD, len(vectors) - 1)
        # in slices: all pairs of a large catalogue are too many numbers at once
        self.neighbours = torch.cat([_nearest(vectors, start, n) for start in range(0, len(vectors), 1024)])

    def entries_of(self, labels: Tensor) -> Tensor:
        """(E,) sorted numbers of the entries of a batch and of their neighbours."""
        assert self.neighbours is not None
        own = torch.unique(labels)
        found: Tensor = torch.unique(torch.cat([own, self.neighbours[own].flatten()]))
        return found

    def vectors(self, network: Network, entries: Tensor) -> Tensor:
        """Unit vectors (E, D): those that the budget of tokens allows as the network gives them now, with gradients,
        the others as of the last refresh."""
        known = functional.normalize(_dense(unwrapped(network)).weight[entries].detach(), dim=1)
        lengths = torch.tensor([len(self.token_ids[k]) for k in entries.tolist()])
        drawn = torch.randperm(len(entries))
        cost = torch.arange(1, len(drawn) + 1) * lengths[drawn].cummax(dim=0).values
        n = max(1, int((cost <= _SHARE * self.plan.settings.batch_tokens).sum()))
        places = drawn[:n].sort().values.to(entries.device)
        return known.index_copy(0, places, network(**self._feed(entries[places]), embeds=True).to(known.dtype))

    def _feed(self, entries: Tensor) -> Batch:
        ids = [torch.tensor(self.token_ids[k]) for k in entries.tolist()]
        pad_id = self.plan.tokenizer.pad_token_id
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(one) for one in ids], batch_first=True)
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=pad_id)
        return {"input_ids": padded.to(entries.device), "attention_mask": mask.to(entries.device)}


@dataclass(frozen=True)
class Ranked:
    """Cross-entropy over the whole catalogue by the vectors of the last refresh; measures the validation side."""

    catalogue: Catalogue

    def __call__(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = network(**feed_of(batch))
        return functional.cross_entropy(logits.float(), batch["labels"]), logits

    def refresh(self, network: Network) -> None:
        self.catalogue.refresh(network)


@dataclass(frozen=True)
class InBatch:
    """Cross-entropy of each text over the entries of its batch and the entries nearest to those.

    Scores are SCALE times the cosine. The logits (B, K) given back compare with the vectors of the last refresh.
    Source: in-batch negatives, Karpukhin et al. 2020, "Dense Passage Retrieval", section 3.2; hard negatives by the
    model itself, Xiong et al. 2020, "Approximate Nearest Neighbor Negative Contrastive Learning", section 4.
    """

    catalogue: Catalogue

    def __call__(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.catalogue.neighbours is None:  # at the start, and after a resume with the weights of the checkpoint
            self.catalogue.refresh(network)
        entries = self.catalogue.entries_of(batch["labels"])
        texts = network(**feed_of(batch), embeds=True).float()
        scores = SCALE * texts @ self.catalogue.vectors(network, entries).T
        places = torch.searchsorted(entries, batch["labels"])
        return functional.cross_entropy(weighed(scores, batch), places), _dense(unwrapped(network))(texts)

    def refresh(self, network: Network) -> None:
        self.catalogue.refresh(network)


def objectives_of(plan: Plan, network: Network) -> tuple[Objective, Objective]:
    """What a retrieval network is measured by and what it trains on; its last layer holds the catalogue from now on."""
    dense = _dense(network)
    dense.requires_grad_(False)
    with torch.no_grad():
        dense.bias.zero_()
    encoder = Encoder(standalone_tokenizer(plan.tokenizer, plan.task))
    windows = encoder.encode([plan.task.descriptions[label] for label in plan.task.labels])
    catalogue = Catalogue(plan, [window.encoding.ids for window in windows])
    return Ranked(catalogue), InBatch(catalogue)


def _nearest(vectors: Tensor, start: int, n: int) -> Tensor:
    """(R, n) numbers of the nearest other vectors of a slice of up to 1024."""
    part = vectors[start : start + 1024]
    scores = part @ vectors.T
    rows = torch.arange(len(part), device=vectors.device)
    scores[rows, start + rows] = -torch.inf
    return scores.topk(n, dim=1).indices


def _dense(network: Network) -> torch.nn.Linear:
    assert network.dense is not None
    return network.dense
