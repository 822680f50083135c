"""Adapter: a bottleneck beside each feed-forward block and the head train; merged into a plain model at the end.

The bottleneck has `finetune.adapter.width` neurons with the block's own activation, and its second layer starts at 0.
So it is what more neurons of the block would be, and at the end they are: the model's feed-forward blocks grow.

Requirements: layers with a plain feed-forward block of two linear layers (not gated). Cost: gradients and moments for
2 x width x model width weights a layer.
Source: He et al. 2022, "Towards a Unified View of Parameter-Efficient Transfer Learning", arXiv 2110.04366, section 3:
the parallel adapter, with scale 1.
"""

import torch
from torch import Tensor, nn

from headrace.checkpoints.network import Network
from headrace.errors import BadInput
from headrace.finetune.methods import Method, Plan
from headrace.finetune.methods.parts import layers_of, linear_names, narrowing, train_head, widening

_WIDTHS = ("intermediate_size", "hidden_dim", "ffn_dim", "encoder_ffn_dim")
"""What configurations call the neurons of a feed-forward block."""


class Widened(nn.Module):
    """A block's first linear layer, and beside it the bottleneck's: (..., D) to (..., I + width)."""

    def __init__(self, linear: nn.Linear, width: int) -> None:
        super().__init__()
        self.linear = linear
        self.more = nn.Linear(linear.in_features, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.linear(x), self.more(x)], dim=-1)

    def merged(self) -> nn.Linear:
        made = _like(self.linear, self.linear.in_features, self.linear.out_features + self.more.out_features)
        with torch.no_grad():
            made.weight.copy_(torch.cat([self.linear.weight, self.more.weight]))
            old = torch.zeros(self.linear.out_features) if self.linear.bias is None else self.linear.bias
            made.bias.copy_(torch.cat([old.to(self.more.bias), self.more.bias]))
        return made


class Narrowed(nn.Module):
    """A block's second linear layer, and beside it the bottleneck's: (..., I + width) to (..., D)."""

    def __init__(self, linear: nn.Linear, width: int) -> None:
        super().__init__()
        self.linear = linear
        self.more = nn.Linear(width, linear.out_features, bias=False)
        nn.init.zeros_(self.more.weight)

    def forward(self, x: Tensor) -> Tensor:
        n = self.linear.in_features
        found: Tensor = self.linear(x[..., :n]) + self.more(x[..., n:])
        return found

    def merged(self) -> nn.Linear:
        n_in = self.linear.in_features + self.more.in_features
        made = _like(self.linear, n_in, self.linear.out_features, bias=self.linear.bias is not None)
        with torch.no_grad():
            made.weight.copy_(torch.cat([self.linear.weight, self.more.weight], dim=1))
            if self.linear.bias is not None:
                made.bias.copy_(self.linear.bias)
        return made


def _like(linear: nn.Linear, n_in: int, n_out: int, *, bias: bool = True) -> nn.Linear:
    return nn.Linear(n_in, n_out, bias=bias, device=linear.weight.device, dtype=linear.weight.dtype)


def prepare(network: Network, plan: Plan) -> Network:
    width = plan.settings.adapter.width
    layers = layers_of(network)
    _width_key(network)
    network.encoder.requires_grad_(False)
    for layer in layers:
        first, last = widening(layer), narrowing(layer)
        parts = linear_names(layer)
        layer.set_submodule(first, Widened(parts[first], width))
        layer.set_submodule(last, Narrowed(parts[last], width))
        for name in (first, last):
            layer.get_submodule(name).more.requires_grad_(True)
    train_head(network)
    return network


def finish(network: Network, plan: Plan) -> Network:
    key = _width_key(network)
    for layer in network.layers:
        for name, part in list(layer.named_modules()):
            if isinstance(part, Widened | Narrowed):
                layer.set_submodule(name, part.merged())
    setattr(network.config, key, getattr(network.config, key) + plan.settings.adapter.width)
    return network


def _width_key(network: Network) -> str:
    for key in _WIDTHS:
        if isinstance(getattr(network.config, key, None), int):
            return key
    raise BadInput(
        "the base model's configuration does not say how wide its feed-forward blocks are",
        value=network.config.model_type,
        next_step="Choose method lora or full, or another base model",
    )


METHOD = Method(learning_rate=3e-3, prepare=prepare, finish=finish)
