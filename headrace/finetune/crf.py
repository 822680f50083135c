"""The loss of a linear-chain conditional random field over the tags of words.

Source: Lafferty, McCallum and Pereira 2001, "Conditional Random Fields", section 3.
Decoding: headrace/tasks/viterbi.py.
Dimensions: B windows, T tokens, W words of the longest, K tags.
"""

import torch
from torch import Tensor, nn

from headrace.checkpoints.network import Network
from headrace.finetune.features import IGNORED
from headrace.finetune.objectives import Batch, feed_of, unwrapped, weighed


def fresh_crf(n_tags: int) -> nn.ParameterDict:
    """Scores of tag after tag, and of first and last tags, that favour none yet: `transitions[i, j]` for j after i."""
    shapes = {"transitions": (n_tags, n_tags), "start": (n_tags,), "end": (n_tags,)}
    return nn.ParameterDict({name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()})


class Crf:
    """Negative log likelihood of the tags of all words together, over the number of words."""

    def __call__(self, network: Network, batch: Batch) -> tuple[Tensor, Tensor]:
        logits = network(**feed_of(batch))
        crf = unwrapped(network).crf
        assert crf is not None
        emissions, tags, mask = words_first(logits.float(), batch["labels"])
        losses = negative_log_likelihood(emissions, tags, mask, crf["transitions"], crf["start"], crf["end"])
        return weighed(losses, batch).sum() / mask.sum().clamp(min=1), logits

    def refresh(self, network: Network) -> None:
        pass


def words_first(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, W, K), tags (B, W) and mask (B, W) of the tokens that have a label, in order.

    Args:
        logits: (B, T, K).
        labels: (B, T), IGNORED for tokens that are not the first of a word.
    """
    is_word = labels != IGNORED
    n_words = max(1, int(is_word.sum(dim=1).max()))
    places = (~is_word).long().argsort(dim=1, stable=True)[:, :n_words]
    words = logits.gather(1, places[..., None].expand(-1, -1, logits.shape[-1]))
    mask = is_word.gather(1, places)
    return words, labels.gather(1, places).masked_fill(~mask, 0), mask


def negative_log_likelihood(
    emissions: Tensor, tags: Tensor, mask: Tensor, transitions: Tensor, start: Tensor, end: Tensor
) -> Tensor:
    """Losses (B,): the log of the sum over all paths less the score of `tags`; 0 for a window without words.

    Args:
        emissions: (B, W, K).
        tags: (B, W).
        mask: (B, W) bool, true for the words, which come first.
    """
    weights = transitions, start, end
    return (_log_partition(emissions, mask, *weights) - _score(emissions, tags, mask, *weights)) * mask[:, 0]


def _score(emissions: Tensor, tags: Tensor, mask: Tensor, transitions: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Scores (B,) of paths."""
    own = (emissions.gather(2, tags[..., None])[..., 0] * mask).sum(dim=1)
    steps = (transitions[tags[:, :-1], tags[:, 1:]] * mask[:, 1:]).sum(dim=1)
    last = tags.gather(1, (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0))[:, 0]
    return own + steps + start[tags[:, 0]] + end[last]


def _log_partition(emissions: Tensor, mask: Tensor, transitions: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Log (B,) of the sum over all paths, by the forward recursion."""
    score = start + emissions[:, 0]
    for t in range(1, emissions.shape[1]):
        onward = torch.logsumexp(score[:, :, None] + transitions, dim=1) + emissions[:, t]
        score = torch.where(mask[:, t, None], onward, score)
    return torch.logsumexp(score + end, dim=1)
