"""What training makes small: a loss from a network and a batch. Objectives wrap each other.

Dimensions: B inputs of a batch, T tokens of the longest, K outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from headrace.checkpoints.network import Network

Batch = dict[str, Tensor]
"""`input_ids` and `attention_mask` (B, T), `token_type_ids` (B, T) for pairs, `labels` as the problem has them, `row`
(B,) the places of the rows on their side; where not all rows weigh the same, `weight` (B,), 0 to 1."""
Criterion = Callable[[Tensor, Tensor], Tensor]
"""Mean loss of float32 logits and labels."""
_NOWHERE = -1e4


class Objective(Protocol):
    """A loss over a network and a batch."""

    def __call__(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        """Loss, and logits (B, K) or (B, T, K) of the batch as it is."""
        ...

    def refresh(self, network: Network) -> None:
        """Bring up to date what hangs on the weights; called before the network is measured or saved."""
        ...


@dataclass(frozen=True)
class Plain:
    """A criterion of the network's logits."""

    criterion: Criterion

    def __call__(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = network(**feed_of(batch))
        return self.criterion(scores_of(network, logits, batch), batch["labels"]), logits

    def refresh(self, network: Network) -> None:
        pass


def scores_of(network: Network, logits: Tensor, batch: Batch) -> Tensor:
    """The logits as losses read them: float32, weighed, and where an answer is a place, none of what is padded."""
    scores = logits.float()
    if unwrapped(network).problem == "question_answering":
        scores = scores.masked_fill(batch["attention_mask"][..., None] == 0, _NOWHERE)
    return weighed(scores, batch)


def weighed(scores: Tensor, batch: Batch) -> Tensor:
    """The same numbers (B, ...), from which each row learns by its weight: its gradient is multiplied by it.

    So any mean loss of rows becomes that of weighted rows where it counts, in the step, and its value stays comparable.
    """
    if "weight" not in batch:
        return scores
    weight = batch["weight"].to(scores).reshape(-1, *[1] * (scores.ndim - 1))
    return weight * scores + ((1 - weight) * scores).detach()


def feed_of(batch: Batch) -> Batch:
    """What the network reads of a batch."""
    return {k: batch[k] for k in ("input_ids", "attention_mask", "token_type_ids") if k in batch}


def unwrapped(network: Network) -> Network:
    """The network itself, which data-parallel training wraps."""
    inner: Network = getattr(network, "module", network)
    return inner
