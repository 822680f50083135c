"""Leave out what a classifier never reads: its head looks at the first token of the last layer only.

Operations that treat each token alone (linear layers, normalisation, activations, residuals) and whose results only
the head reads are computed for the first token alone; attention still sees every token. The logits stay the same. In a
model of six layers this is an eighth of the arithmetic of linear layers.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

_PER_TOKEN = {
    "Add", "Convert", "Divide", "Erf", "Exp", "FakeQuantize", "Gelu", "HSwish", "MVN", "MatMul", "Maximum", "Minimum",
    "Multiply", "Negative", "Power", "Relu", "Sigmoid", "Sqrt", "SquaredDifference", "Subtract", "Swish", "Tanh",
}  # fmt: skip


def keep_first_token(model: Any) -> int:
    """Pick the tokens that the head reads as early as may be; returns how many operations run for them alone now.

    Of a padded batch (B, T, D) that is (B, 1, D); of a packed one (R, L, D), whose windows begin at `starts` (N,),
    (N, 1, D).
    """
    n_trimmed = 0
    for node in model.get_ordered_ops():
        if _reads_first_token(node):
            n_trimmed += _trim(model, node, _first)
        elif (starts := _starts_of(node)) is not None:
            tokens = node.input_value(0).get_node()  # flattens rows and tokens into one axis
            n_picked = _trim(model, tokens, partial(_at, starts=starts))
            if n_picked:
                node.output(0).replace(tokens.output(0))
            n_trimmed += n_picked
    model.validate_nodes_and_infer_types()
    return n_trimmed


def _reads_first_token(node: Any) -> bool:
    if node.get_type_name() != "Gather" or not _has_tokens(node.input_value(0)):
        return False
    index, axis = (_constant(node.input_value(i)) for i in (1, 2))
    return index is not None and axis is not None and index.tolist() in (0, [0]) and axis.item() in (1, -2)


def _starts_of(node: Any) -> Any:
    """The places that a node picks out of rows that were flattened to (R * L, D); None if it does no such thing."""
    if node.get_type_name() != "Gather" or node.input_value(0).get_node().get_type_name() != "Reshape":
        return None
    if not _has_tokens(node.input_value(0).get_node().input_value(0)):
        return None
    given = node.input_value(1).get_node()
    while given.get_type_name() == "Convert":
        given = given.input_value(0).get_node()
    names = given.output(0).get_names() if given.get_type_name() == "Parameter" else set()
    return node.input_value(1) if "starts" in names else None


def _first(source: Any) -> Any:
    return ops.slice(source, *(np.array([i], dtype=np.int64) for i in (0, 1, 1, 1)))


def _at(source: Any, starts: Any) -> Any:
    """(N, 1, D) out of (R, L, D)."""
    width = ops.slice(ops.shape_of(source), *(np.array([i], dtype=np.int64) for i in (2, 3, 1)))
    flat = ops.reshape(source, ops.concat([ops.constant(np.array([-1], dtype=np.int64)), width], 0), False)
    picked = ops.gather(flat, starts, ops.constant(np.array(0, dtype=np.int64)))
    return ops.unsqueeze(picked, ops.constant(np.array([1], dtype=np.int64)))


def _trim(model: Any, head: Any, pick: Callable[[Any], Any]) -> int:
    trimmed = {_key(head)}
    nodes = [head]
    for node in reversed(model.get_ordered_ops()):  # consumers come before producers
        if node.get_type_name() not in _PER_TOKEN or not _has_tokens(node.output(0)) or not _mixes_no_tokens(node):
            continue
        readers = [target.get_node() for target in node.output(0).get_target_inputs()]
        if all(_key(reader) in trimmed for reader in readers):
            trimmed.add(_key(node))
            nodes.append(node)
    if len(nodes) == 1:
        return 0
    picks: dict[tuple[str, int], Any] = {}
    for node in nodes:
        for port in node.inputs():
            source = port.get_source_output()
            if _key(source.get_node()) in trimmed or not _has_tokens(source):
                continue
            place = (_key(source.get_node()), source.get_index())
            if place not in picks:
                picks[place] = pick(source)
            port.replace_source_output(picks[place].output(0))
    return len(nodes) - 1


def _mixes_no_tokens(node: Any) -> bool:
    """Whether each token's result comes from this token alone: weights stand on the right, sums run over D."""
    if node.get_type_name() == "MatMul":
        return not _has_tokens(node.input_value(1)) and not node.get_attributes()["transpose_a"]
    if node.get_type_name() == "MVN":
        axes = _constant(node.input_value(1))
        return axes is not None and axes.tolist() in ([-1], [2])
    return True


def _has_tokens(output: Any) -> bool:
    """(B, T, D) with B and T of any size."""
    shape = output.get_partial_shape()
    return shape.rank.is_static and len(shape) == 3 and shape[0].is_dynamic and shape[1].is_dynamic


def _constant(output: Any) -> Any:
    node = output.get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return node.get_data() if isinstance(node, ov.op.Constant) else None


def _key(node: Any) -> str:
    name: str = node.get_name()  # unique within the process, unlike the friendly name
    return name
