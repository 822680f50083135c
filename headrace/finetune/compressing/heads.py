"""Heads: attention heads on which the loss hangs least go, whole; each layer keeps one at least.

A layer may keep more heads than another. transformers has no words for that, so the checkpoint holds zeros in their
place (headrace/checkpoints/heads.py): plain libraries load it at full size, exports that serve leave them out.

Gains: time and size of query, key, value and output. Loses: little at first; ranked by labels, so it needs some.
Source: Michel et al. 2019, "Are Sixteen Heads Really Better than One?", arXiv 1905.10650, section 4: importance by
first-order Taylor, each layer's divided by its length (L2), one ranking over all layers.
"""

from typing import Any

import torch

from headrace.checkpoints.heads import attentions
from headrace.checkpoints.network import Network
from headrace.errors import BadInput
from headrace.finetune.compressing import Way
from headrace.finetune.compressing.importance import importance
from headrace.finetune.methods import Plan


def check(network: Network, _plan: Plan) -> None:
    """See that heads can be cut out.

    Raises:
        BadInput: the family is not known to keep each head in places of its own.
    """
    if not attentions(network):
        raise BadInput(
            "heads cannot be cut out of this family of models",
            value=network.config.model_type,
            next_step="Leave the way heads out: --ways layers, --ways vocabulary",
        )


def cut(network: Network, plan: Plan, share: float) -> Any:
    check(network, plan)
    blocks = attentions(network)
    scores = importance(network, plan, [one.output for one in blocks], width=blocks[0].head_width)
    for one, kept in zip(blocks, kept_heads([score.tolist() for score in scores], share), strict=True):
        one.keep(kept)
    return plan.tokenizer


def kept_heads(scores: list[list[float]], share: float) -> list[list[int]]:
    """Places of the heads that stay in each layer: the best of all layers together, one in each at least."""
    scaled = [torch.nn.functional.normalize(torch.tensor(one), dim=0).tolist() for one in scores]
    best = [max(range(len(one)), key=one.__getitem__) for one in scaled]
    kept = {(layer, head) for layer, head in enumerate(best)}
    ranked = sorted(((-s, layer, head) for layer, one in enumerate(scaled) for head, s in enumerate(one)))
    n_kept = round(share * sum(map(len, scores)))
    for _, layer, head in ranked:
        if len(kept) < n_kept:
            kept.add((layer, head))
    return [sorted(head for at, head in kept if at == layer) for layer in range(len(scores))]


WAY = Way(cut=cut, share=0.5, check=check)
