"""Which parameters decay, and which learn how fast."""

from typing import Any

from torch import Tensor

from headrace.checkpoints.network import Network
from headrace.errors import BadConfig

_CRF_SHARE = 100.0
"""A CRF's scores learn at so many times the rate: they start at 0 and must reach 1 or so. On 1,800 sentences of WNUT17
(one seed, 3 epochs at 2e-4) they stayed below 0.02 at the rate itself; best F1 on its development part .385, .386
without a CRF, .460 at 100 times the rate."""


def parameter_groups(network: Network, rate: float, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters by what they get: matrices decay; biases, norms and factors (one dimension above 1) do not.

    With `layer_decay` below 1 a layer learns at that share of the rate of the layer above it; the head at `rate`, and
    what all layers share, such as relative positions, too; the embeddings slowest.
    Source: Howard and Ruder 2018, "Universal Language Model Fine-tuning", section 3.2.

    Raises:
        BadConfig: `layer_decay` below 1, and the model's layers are not found.
    """
    groups: dict[tuple[float, float], list[Any]] = {}
    crf = set() if network.crf is None else {id(p) for p in network.crf.parameters()}
    height_of = _heights(network) if layer_decay < 1 else {}
    top = max(height_of.values(), default=0) + 1
    for parameter in network.parameters():
        if parameter.requires_grad:
            share = layer_decay ** (top - height_of.get(id(parameter), top))
            share = _CRF_SHARE if id(parameter) in crf else share
            decay = weight_decay if is_matrix(parameter) else 0.0
            groups.setdefault((rate * share, decay), []).append(parameter)
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]


def is_matrix(parameter: Tensor) -> bool:
    """Whether two of its dimensions are above 1. Factors such as ia3's (n, 1) start at 1: decay would switch off what
    they multiply."""
    return sum(size > 1 for size in parameter.shape) > 1


def _heights(network: Network) -> dict[int, int]:
    """Parameter to its height: 0 for all embeddings, 1 for the lowest layer; heads and poolers are not in it."""
    words = network.encoder.get_input_embeddings()
    bottom = [child for child in network.encoder.children() if any(module is words for module in child.modules())]
    heights = {id(p): 0 for child in bottom for p in child.parameters()}
    try:
        layers = network.layers
    except LookupError as error:
        raise BadConfig(
            f"layers of this model family are not found ({error})",
            value="finetune.layer_decay",
            next_step="Remove finetune.layer_decay",
        ) from None
    return heights | {id(p): i for i, layer in enumerate(layers, start=1) for p in layer.parameters()}
