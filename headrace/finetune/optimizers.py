"""Which parameters decay, and which learn how fast."""

from typing import Any

from headrace.checkpoints.network import Network


def parameter_groups(network: Network, rate: float, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters by what they get: matrices decay, vectors (biases, norms) do not.

    With `layer_decay` below 1 a layer learns at that share of the rate of the layer above it; the head at `rate`, the
    embeddings slowest. Source: Howard and Ruder 2018, "Universal Language Model Fine-tuning", section 3.2.
    """
    groups: dict[tuple[float, float], list[Any]] = {}
    height_of = _heights(network) if layer_decay < 1 else {}
    top = max(height_of.values(), default=0) + 1
    for parameter in network.parameters():
        if parameter.requires_grad:
            share = layer_decay ** (top - height_of.get(id(parameter), top))
            decay = weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate * share, decay), []).append(parameter)
    return [{"params": params, "lr": lr, "weight_decay": decay} for (lr, decay), params in groups.items()]


def _heights(network: Network) -> dict[int, int]:
    """Parameter to its height: 0 for embeddings, 1 for the lowest layer; heads are not in it."""
    heights = {id(p): 0 for p in network.encoder.get_input_embeddings().parameters()}
    heights |= {id(p): i for i, layer in enumerate(network.layers, start=1) for p in layer.parameters()}
    return heights
