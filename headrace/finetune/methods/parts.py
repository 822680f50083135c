"""The parts of a network that methods tell apart: its head, its layers, the feed-forward block of a layer.

Dimensions: D width of the model, I neurons of a feed-forward block.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from headrace.checkpoints.network import Network
from headrace.errors import BadInput

_NEXT_STEP = "Choose method lora or full, or another base model"


def head_of(network: Network) -> dict[str, nn.Module]:
    """What the task adds on top of the encoder's layers, by the last part of its name.

    The pooler counts: only the task reads it, and some base models come without one, so that it starts at random.
    """
    found: dict[str, nn.Module] = {}
    if network.dense is not None:
        found["dense"] = network.dense
    wrapped = network.model
    plain = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else wrapped
    encoder = network.encoder
    if plain is not encoder:
        found |= {name: module for name, module in plain.named_children() if module is not encoder}
    if getattr(encoder, "pooler", None) is not None:
        found["pooler"] = encoder.pooler
    return {name: module for name, module in found.items() if any(True for _ in module.parameters())}


def train_head(network: Network) -> None:
    """Have the head train, whatever else does; and the transitions of a CRF."""
    for module in [*head_of(network).values(), *([] if network.crf is None else [network.crf])]:
        for name, parameter in module.named_parameters():
            parameter.requires_grad = not name.startswith("original_module.")  # peft keeps the untrained one too


def n_frozen_layers(wanted: int | None, n_layers: int, *, setting: str) -> int:
    """How many layers stay as they are, counted from the lowest; None: the lower half.

    Raises:
        BadInput: more than there are.
    """
    if wanted is not None and wanted > n_layers:
        raise BadInput(
            f"the base model has {n_layers} layers",
            value=f"{setting} = {wanted}",
            next_step=f"Set {setting} to {n_layers} or less",
        )
    return n_layers // 2 if wanted is None else wanted


def layers_of(network: Network) -> nn.ModuleList:
    """The encoder's layers.

    Raises:
        BadInput: the model has no list of them, or uses one several times.
    """
    try:
        return network.layers
    except LookupError as error:
        raise BadInput(f"this method needs a list of layers: {error}", next_step=_NEXT_STEP) from None


def output_of(module: nn.Module, run: Callable[[], Any]) -> Any:
    """What a module gives in a pass, which ends there.

    Raises:
        LookupError: the pass does not come to it.
    """

    def stop(_module: Any, _args: Any, output: Any) -> None:
        raise _Reached(output)

    handle = module.register_forward_hook(stop)
    try:
        run()
    except _Reached as reached:
        return reached.output
    finally:
        handle.remove()
    raise LookupError(f"{type(module).__name__} was not called")


class _Reached(Exception):
    """No error: what was wanted is there, and the pass need not go on."""

    def __init__(self, output: Any) -> None:
        self.output = output


def states_in(output: Any) -> Tensor:
    """The states (B, T, D) in what a layer gives, which may be a tuple."""
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


def linear_names(module: nn.Module) -> dict[str, nn.Linear]:
    return {name: part for name, part in module.named_modules() if isinstance(part, nn.Linear)}


def narrowing(layer: nn.Module) -> str:
    """Name of the second linear layer of a layer's feed-forward block, I -> D: the only one that narrows.

    Raises:
        BadInput: there is not exactly one.
    """
    return _only(layer, [name for name, part in linear_names(layer).items() if part.in_features > part.out_features])


def widening(layer: nn.Module) -> str:
    """Name of the first linear layer of a layer's feed-forward block, D -> I.

    Raises:
        BadInput: there is not exactly one, as in gated blocks, which have two of them or one of width 2 I.
    """
    last = layer.get_submodule(narrowing(layer))
    shape = (last.out_features, last.in_features)
    wide = [n for n, part in linear_names(layer).items() if part.in_features < part.out_features]
    if len(wide) > 1 or any(_shape(layer.get_submodule(name)) != shape for name in wide):
        wide = []  # gated: what one layer makes is multiplied with what the other makes
    return _only(layer, wide)


def _shape(linear: nn.Module) -> tuple[object, object]:
    return linear.in_features, linear.out_features


def _only(layer: nn.Module, names: list[str]) -> str:
    if len(names) != 1:
        raise BadInput(
            "this method needs layers with one plain feed-forward block, of two linear layers",
            value=type(layer).__name__,
            next_step=_NEXT_STEP,
        )
    return names[0]
