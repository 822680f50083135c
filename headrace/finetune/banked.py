"""Many channels' low-rank updates and heads on one network, each row of a batch with its own channel's.

Dimensions: C channels, B rows of a batch, T tokens, r rank, D_in and D_out of an updated linear layer, K outputs of the
head, D its width; P numbers in all that one channel adds, which lie in one vector.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from headrace.checkpoints.low_rank import LowRank
from headrace.checkpoints.network import Network
from headrace.errors import BadInput
from headrace.finetune.methods.parts import n_frozen_layers

SCALE = 2.0  # of the updates; what finetune.adapter has too, with its alpha of 16 over a rank of 8
_QUERY_OR_VALUE = (
    "query", "value", "q_proj", "v_proj", "q_lin", "v_lin", "query_proj", "value_proj", "q", "v", "Wqkv", "qkv_proj",
)  # fmt: skip
"""What families call the linear layers that make queries and values; one for all three updates the keys too."""
Vector = NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """Where the parts of a channel's vector (P,) lie: for each target A (r, D_in), then B (D_out, r); then the head."""

    rank: int
    widths: Mapping[str, tuple[int, int]]
    """Path of each target to its D_in and D_out."""
    head_path: str
    head_shape: tuple[int, int] | None
    """K and D; None where the head is the shared one, since it has no bias."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name of each part to its shape, in order."""
        found: dict[str, tuple[int, ...]] = {}
        for path, (d_in, d_out) in self.widths.items():
            found |= {f"{path}.a": (self.rank, d_in), f"{path}.b": (d_out, self.rank)}
        if self.head_shape is not None:
            found |= {"head.weight": self.head_shape, "head.bias": self.head_shape[:1]}
        return found

    @property
    def n_numbers(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes.values())

    def parts(self, vectors: Any) -> dict[str, Any]:
        """Views (..., *shape) of the parts of vectors (..., P), an array or a tensor."""
        found, start = {}, 0
        for name, shape in self.shapes.items():
            end = start + math.prod(shape)
            found[name] = vectors[..., start:end].reshape(*vectors.shape[:-1], *shape)
            start = end
        return found


def layout_of(network: Network, *, rank: int, names: Sequence[str] = (), frozen_layers: int | None = None) -> Layout:
    """The layout for a network.

    Args:
        names: paths of linear layers to update, or last parts of such; none: queries and values of attention layers, or
            all linear layers of attention where a family calls them otherwise.
        frozen_layers: lowest layers of which only those are updated whose whole path is named; None: half of them.

    Raises:
        BadInput: there are none, or fewer layers than that.
    """
    path_of = {id(module): path for path, module in network.model.named_modules()}
    linears = {path_of[id(m)]: m for m in _layers(network).modules() if isinstance(m, nn.Linear)}
    wanted, upper = tuple(names) or _QUERY_OR_VALUE, _upper(network, frozen_layers)
    free = [path for path, module in linears.items() if module in upper]
    found = [path for path in linears if path in wanted or (path in free and path.rpartition(".")[2] in wanted)]
    if not found and not names:
        found = [path for path in free if "attention" in path.lower() or "attn" in path.lower()]
    if not found:
        known = sorted({path.rpartition(".")[2] for path in linears})
        raise BadInput(
            "the layers of the shared model have no such linear layers for adapters to update",
            value=list(wanted),
            next_step=f"Set finetune.per_channel.targets to some of: {', '.join(known)}",
        )
    head = network.head
    return Layout(
        rank=rank,
        widths={path: (linears[path].in_features, linears[path].out_features) for path in found},
        head_path=path_of[id(head)],
        head_shape=None if head.bias is None else (head.out_features, head.in_features),
    )


def _upper(network: Network, frozen_layers: int | None) -> set[nn.Module]:
    """Modules that are not in the lowest layers; all where a family has no list of layers."""
    layers = _layers(network)
    if isinstance(layers, nn.ModuleList):
        n_frozen = n_frozen_layers(frozen_layers, len(layers), setting="finetune.per_channel.frozen_layers")
        layers = layers[n_frozen:]
    return set(layers.modules())


def _layers(network: Network) -> nn.Module:
    """What has a token for a row: a pooler after the layers has not."""
    try:
        return network.layers
    except LookupError:
        found: nn.Module = network.encoder
        return found


def beginning(layout: Layout, network: Network, *, seed: int) -> Vector:
    """The vector (P,) with which a channel answers as the shared model does: B is 0, and the head the shared one.

    A is drawn as peft draws it (LoraLayer.reset_lora_parameters: uniform with a bound of 1 over the root of D_in).
    """
    vector = np.zeros(layout.n_numbers, dtype=np.float32)
    parts, rng = layout.parts(vector), np.random.default_rng(seed)
    for path, (d_in, _) in layout.widths.items():
        bound = 1 / math.sqrt(d_in)
        parts[f"{path}.a"][:] = rng.uniform(-bound, bound, size=(layout.rank, d_in))
    if layout.head_shape is not None:
        parts["head.weight"][:] = network.head.weight.detach().cpu().numpy()
        parts["head.bias"][:] = network.head.bias.detach().cpu().numpy()
    return vector


def as_low_rank(layout: Layout, vector: Vector) -> LowRank:
    parts = layout.parts(vector)
    updates = {path: (parts[f"{path}.a"], parts[f"{path}.b"]) for path in layout.widths}
    head = None if layout.head_shape is None else (parts["head.weight"], parts["head.bias"])
    return LowRank(SCALE, updates, head, layout.head_path if head else "")


def as_vector(layout: Layout, low_rank: LowRank, shared: Vector) -> Vector:
    """The vector of an adapter; what it lacks is as in `shared`, ranks of a smaller one are filled with zeros."""
    vector = shared.copy()
    parts = layout.parts(vector)
    for path in layout.widths:
        for name in ("a", "b"):
            parts[f"{path}.{name}"][:] = 0
        if path in low_rank.updates:
            a, b = low_rank.updates[path]
            parts[f"{path}.a"][: len(a)] = a
            parts[f"{path}.b"][:, : len(a)] = b * (low_rank.scale / SCALE)
    if low_rank.head is not None:
        parts["head.weight"][:], parts["head.bias"][:] = low_rank.head
    return vector


class Banked:
    """A network whose rows answer with their own channels' vectors while `using` says which."""

    def __init__(self, network: Network, layout: Layout) -> None:
        self.network, self.layout = network, layout
        self._parts: dict[str, Tensor] = {}
        self._heard: set[str] = set()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Have the linear layers add what `using` gave; they are as they were afterwards."""
        modules = dict(self.network.model.named_modules())
        hooks = [modules[path].register_forward_hook(self._updating(path)) for path in self.layout.widths]
        if self.layout.head_shape is not None:
            hooks.append(modules[self.layout.head_path].register_forward_hook(self._answering))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def logits(self, feed: Mapping[str, Tensor], vectors: Tensor, channel_of: Tensor) -> Tensor:
        """Logits (B, K) or (B, T, K) of a batch.

        Args:
            feed: what the network reads.
            vectors: (C, P) of the channels in the batch.
            channel_of: (B,) int64, the place of each row's channel among them.

        Raises:
            BadInput: the model computes without asking its linear layers.
        """
        self._parts = {name: part[channel_of] for name, part in self.layout.parts(vectors).items()}
        self._heard.clear()
        try:
            logits: Tensor = self.network(**feed)
        finally:
            self._parts = {}
        if deaf := sorted(set(self.layout.widths) - self._heard):
            raise BadInput(
                "the model computes past this linear layer, so no adapter can update it",
                value=deaf[0],
                next_step="Choose others in finetune.per_channel.targets, or another base model",
            )
        return logits

    def _updating(self, path: str) -> Any:
        """Source: Hu et al. 2021, "LoRA", equation 3; B_i A_i of each row i."""

        def add(_module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            a, b = self._parts[f"{path}.a"], self._parts[f"{path}.b"]
            self._heard.add(path)
            return output + SCALE * (inputs[0] @ a.transpose(1, 2)) @ b.transpose(1, 2)

        return add

    def _answering(self, _module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        """(B, D) or (B, T, D) through each row's own head."""
        hidden = inputs[0]
        rows = hidden[:, None] if hidden.ndim == 2 else hidden
        found = rows @ self._parts["head.weight"].transpose(1, 2) + self._parts["head.bias"][:, None]
        return found[:, 0] if hidden.ndim == 2 else found
