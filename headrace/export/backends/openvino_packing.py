"""Trace a network so that its rows may hold several windows each. Needs torch: never on the serving path.

Dimensions: R rows, L tokens of a row, N windows, D width, K outputs; inputs as headrace/checkpoints/packing.py makes
them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
import torch
from torch import Tensor, nn

from headrace.checkpoints import packing
from headrace.checkpoints.encoding import Encoder, Window
from headrace.checkpoints.network import Network
from headrace.records import Input

_N_CHECKED = 16
_TOLERANCE = 1e-3  # of logits in float, over their spread
_N_ROWS = 4096  # more than a batch has; tells equal segments of two rows apart
_CANNOT = (AttributeError, IndexError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What models that cannot be packed raise, each family in its own way."""


class Packed(nn.Module):
    """A network over packed rows: logits (N, K), or (R, L, K) for tasks on tokens."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        input_ids: Tensor,
        segments: Tensor,
        position_ids: Tensor,
        starts: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        same = segments[:, None, :, None] == segments[:, None, None, :]
        mask = torch.zeros_like(same, dtype=torch.float32).masked_fill(~same, torch.finfo(torch.float32).min)
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        feed = {"input_ids": input_ids, "attention_mask": mask, "position_ids": position_ids, **types}
        if self.network.dense is not None:
            assert starts is not None
            vectors = _means(self.network.model(**feed).last_hidden_state, segments, starts)
            scores: Tensor = self.network.dense(nn.functional.normalize(vectors, dim=1))
            return scores
        if starts is None:
            out = self.network.model(**feed)
            if self.network.problem == "question_answering":
                return torch.stack([out.start_logits, out.end_logits], dim=-1)
            return torch.as_tensor(out.logits)
        return self._of_first_tokens(feed, starts)

    def _of_first_tokens(self, feed: dict[str, Tensor], starts: Tensor) -> Tensor:
        """What the head says of each window: it is handed them as rows of one token, the window's first."""

        def keep_first(_module: nn.Module, _args: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            kept = hidden.reshape(-1, hidden.shape[-1]).index_select(0, starts)[:, None]
            return (kept, *output[1:]) if isinstance(output, tuple) else kept

        handle = self.network.layers[-1].register_forward_hook(keep_first)
        try:
            scores: Tensor = self.network.model(**feed).logits
        finally:
            handle.remove()
        return scores


def _means(hidden: Tensor, segments: Tensor, starts: Tensor) -> Tensor:
    """(N, D) mean of each window's tokens, from (R, L, D)."""
    rows = torch.arange(segments.shape[0])[:, None]
    numbers = (segments + rows * _N_ROWS).reshape(-1)
    is_own = (numbers.index_select(0, starts)[:, None] == numbers[None]).to(hidden.dtype)
    return is_own @ hidden.reshape(-1, hidden.shape[-1]) / is_own.sum(dim=1, keepdim=True)


def trace(
    network: Network, encoder: Encoder, names: Sequence[str], examples: Sequence[Input]
) -> tuple[Any, int] | None:
    """The packed form of a network and the number its positions begin with; None where it answers otherwise than alone.

    That it answers alike is tried on examples, which must hold one as long as the model reads: families with windows of
    attention or positions of their own would pass on short texts.
    """
    on_tokens = network.problem in ("token_classification", "question_answering")
    wanted = ["input_ids", "segments", "position_ids", *([] if on_tokens else ["starts"])]
    wanted += ["token_type_ids"] if "token_type_ids" in names else []
    windows = encoder.encode(examples)[:_N_CHECKED]
    try:
        converted = _converted(Packed(network), wanted)
        for first_position in _first_positions(network):
            if _is_faithful(converted, network, encoder, windows, names, first_position):
                return converted, first_position
    except _CANNOT:
        return None
    return None


def _first_positions(network: Network) -> list[int]:
    """BERT's family counts from 0, RoBERTa's from the one after its pad token."""
    pad_id = getattr(network.config, "pad_token_id", None)
    return [0] if pad_id is None else [0, int(pad_id) + 1]


def _converted(packed: Packed, names: Sequence[str]) -> Any:
    shape = (2, 16)
    example = {name: torch.zeros(shape, dtype=torch.int64) for name in names if name != "starts"}
    example["input_ids"] += 1
    example["position_ids"] += torch.arange(2, 2 + shape[1])
    example["segments"] += 1
    example["segments"][0, 5:] = 2
    if "starts" in names:
        example["starts"] = torch.tensor([0, 5, shape[1]])
    with torch.no_grad():
        converted = ov.convert_model(packed, example_input=example)
    for port in converted.inputs:
        (name,) = port.get_names() & set(names)
        port.get_node().set_partial_shape(ov.PartialShape([-1] if name == "starts" else [-1, -1]))
        port.get_tensor().set_names({name})
    converted.validate_nodes_and_infer_types()
    return converted


def _is_faithful(
    converted: Any, network: Network, encoder: Encoder, windows: Sequence[Window], names: Sequence[str], first: int
) -> bool:
    compiled = ov.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    inputs = [port.any_name for port in compiled.inputs]
    (batch, *_) = packing.pack([len(window) for window in windows], batch_tokens=10**9)
    feed = packing.feed(batch, windows, inputs, pad_id=encoder.pad_id, first_position=first)
    found = dict(packing.unpack(batch, windows, compiled(feed)[0], by_window="starts" in inputs))
    alone = [_alone(network, encoder, window, names) for window in windows]
    spread = max(1e-6, float(np.concatenate([a.reshape(-1) for a in alone]).std()))
    return all(np.allclose(found[i], own, rtol=0, atol=_TOLERANCE * spread) for i, own in enumerate(alone))


@torch.inference_mode()
def _alone(network: Network, encoder: Encoder, window: Window, names: Sequence[str]) -> Any:
    feed = encoder.feed([window], names)
    return network(**{name: torch.from_numpy(array) for name, array in feed.items()})[0].float().numpy()
