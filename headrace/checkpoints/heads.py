"""Attention heads that are cut out, and how a network without them stays a plain checkpoint.

transformers knows one number of heads for all layers, and takes a head's width from the model's width over that number
(BertSelfAttention.__init__ of 5.23, which has no `prune_heads` any more), so it has no words for a layer with fewer
heads. A checkpoint therefore holds heads that were cut as zeros (`pad`): plain libraries load it and get the same
logits. Formats that serve leave the zeros out (`drop_silent`): their matrices are smaller.

Dimensions: D width of the model, H heads of width W.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from headrace.checkpoints.network import Network

_NAMES = (
    ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
    ("attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin"),
)
"""Query, key, value and output in a layer: BERT, RoBERTa, XLM-RoBERTa and ELECTRA; DistilBERT."""


@dataclass(frozen=True)
class Attention:
    """The linear layers of one layer's attention: query, key and value (H W, D), output (D, H W)."""

    projections: tuple[nn.Linear, nn.Linear, nn.Linear]
    output: nn.Linear
    head_width: int

    @property
    def n_heads(self) -> int:
        return self.output.in_features // self.head_width

    def keep(self, heads: Sequence[int]) -> None:
        """Cut all other heads out."""
        places = torch.arange(self.output.in_features).view(-1, self.head_width)[list(heads)].flatten()
        with torch.no_grad():
            for linear in self.projections:
                put(linear, linear.weight[places], None if linear.bias is None else linear.bias[places])
            put(self.output, self.output.weight[:, places], self.output.bias)


def attentions(network: Network) -> list[Attention]:
    """Of every layer, lowest first; none where the family is not known to keep each head in places of its own."""
    width, n_heads = (getattr(network.config, name, 0) for name in ("hidden_size", "num_attention_heads"))
    try:
        layers = list(network.layers) if width and n_heads else []
    except LookupError:
        return []
    found = [_attention(layer, width // n_heads) for layer in layers]
    known = [one for one in found if one is not None]
    return known if len(known) == len(found) else []


def _attention(layer: nn.Module, head_width: int) -> Attention | None:
    modules = dict(layer.named_modules())
    for names in _NAMES:
        linears = [modules.get(name) for name in names]
        query, key, value, output = linears
        if all(type(one) is nn.Linear for one in linears):  # no layer of peft's
            return Attention((query, key, value), output, head_width)  # type: ignore[arg-type]
    return None


def drop_silent(network: Network) -> int:
    """Cut out heads that the output gives no weight; how many they were. The logits stay the same."""
    n_dropped = 0
    for one in attentions(network):
        blocks = one.output.weight.detach().view(one.output.out_features, one.n_heads, one.head_width)
        heard = torch.nonzero((blocks != 0).any(dim=2).any(dim=0)).flatten().tolist() or [0]
        if len(heard) < one.n_heads:
            n_dropped += one.n_heads - len(heard)
            one.keep(heard)
    return n_dropped


def pad(network: Network) -> None:
    """Fill up with zeros to the number of heads that the network's config says, so that it can be saved."""
    for one in attentions(network):
        n_missing = network.config.hidden_size - one.output.in_features
        if n_missing == 0:
            continue
        with torch.no_grad():
            for linear in one.projections:
                rows = nn.functional.pad(linear.weight, (0, 0, 0, n_missing))
                put(linear, rows, None if linear.bias is None else nn.functional.pad(linear.bias, (0, n_missing)))
            put(one.output, nn.functional.pad(one.output.weight, (0, n_missing)), one.output.bias)


def put(linear: nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    """Give a linear layer other weights (D_out, D_in), of another size too."""
    linear.weight = nn.Parameter(weight.detach().clone())
    linear.bias = None if bias is None else nn.Parameter(bias.detach().clone())  # type: ignore[assignment]
    linear.out_features, linear.in_features = weight.shape
