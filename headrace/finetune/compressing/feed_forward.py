"""Feed-forward: neurons on which the loss hangs least go, the same number in every layer.

The same number, because a config has one width for all layers: so the checkpoint itself is smaller, and everything that
reads it. Widths are multiples of 32, what int8 kernels work in.

Gains: two thirds of a BERT layer's arithmetic are here. Loses: little at first; ranked by labels, so it needs some.
Source: Molchanov et al. 2017, arXiv 1611.06440, section 2.2 (importance); McCarley et al. 2019, "Structured Pruning of
a BERT-based Question Answering Model", arXiv 1910.06360, section 3 (feed-forward width).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from headrace.checkpoints.heads import put
from headrace.checkpoints.network import Network
from headrace.errors import BadInput
from headrace.finetune.compressing import Way
from headrace.finetune.compressing.importance import importance
from headrace.finetune.methods import Plan

_MULTIPLE = 32
_NAMES = (
    ("intermediate.dense", "output.dense", "intermediate_size", 1),
    ("ffn.lin1", "ffn.lin2", "hidden_dim", 1),
    ("mlp.Wi", "mlp.Wo", "intermediate_size", 2),
)
"""First and second linear layer, the width's name in the config, how often the first has the width (gates): the BERT
family and MPNet; DistilBERT; ModernBERT."""


@dataclass(frozen=True)
class _Block:
    """The feed-forward part of a layer: first (P F, D), second (D, F), with P parts side by side in the first."""

    first: nn.Linear
    second: nn.Linear
    width_name: str
    n_parts: int

    def keep(self, neurons: torch.Tensor) -> None:
        """Cut all other neurons out."""
        rows = torch.cat([neurons + part * self.second.in_features for part in range(self.n_parts)])
        put(self.first, self.first.weight[rows], None if self.first.bias is None else self.first.bias[rows])
        put(self.second, self.second.weight[:, neurons], self.second.bias)


def check(network: Network, _plan: Plan) -> None:
    """See that neurons can be cut out.

    Raises:
        BadInput: the family has other feed-forward parts.
    """
    _blocks(network)


def cut(network: Network, plan: Plan, share: float) -> Any:
    blocks = _blocks(network)
    width = blocks[0].second.in_features
    n_kept = min(width, max(_MULTIPLE, round(share * width / _MULTIPLE) * _MULTIPLE))
    scores = importance(network, plan, [block.second for block in blocks])
    for block, score in zip(blocks, scores, strict=True):
        block.keep(score.argsort(descending=True, stable=True)[:n_kept].sort().values)
    setattr(network.config, blocks[0].width_name, n_kept)
    return plan.tokenizer


def _blocks(network: Network) -> list[_Block]:
    found = [_block(layer) for layer in network.layers]
    known = [block for block in found if block is not None]
    if len(known) < len(found):
        raise BadInput(
            "neurons cannot be cut out of this family of models",
            value=network.config.model_type,
            next_step="Leave the way feed-forward out: --ways layers, --ways vocabulary",
        )
    return known


def _block(layer: nn.Module) -> _Block | None:
    modules = dict(layer.named_modules())
    for first_name, second_name, width_name, n_parts in _NAMES:
        first, second = modules.get(first_name), modules.get(second_name)
        if isinstance(first, nn.Linear) and isinstance(second, nn.Linear):
            return _Block(first, second, width_name, n_parts)
    return None


WAY = Way(cut=cut, share=0.5, check=check)
