"""Room for channel adapters in a packed graph: low-rank updates and heads as inputs, picked by slot of each window.

The graph stays one: adapters are rows of arrays that are handed to it with each batch, so adding one compiles
nothing. Slot 0 is no adapter: zero updates and the shared head. Source of the update: Hu et al. 2021, arXiv 2106.09685,
equation 3.

Dimensions: R rows, L tokens of a row, S adapters of the row that has most, N windows; C slots, r rank, K outputs of the
head, D_in and D_out of a linear layer.

Inputs it adds: `slots` (R, S), those that a row's windows have, each once; `places` (R, L), where in that list a
token's own slot is, 1 to S, and 0 where padded; where the head answers by window, `owners` (N,), the slots of all; for
G linear layers that read the same, an array (C, G * r, D_in) with their A, and one (C, r, D_out) for the B of each
(slots.py has their names); `head.weight` (C, K, D) and `head.bias` (C, K).
"""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from headrace.errors import BadInput
from headrace.export.backends.slots import HEAD_BIAS, HEAD_WEIGHT, OWNERS, PLACES, SLOTS, a_name, b_name

MARK = "adapter."
"""What the names of the operations that are put in begin with."""
_PLACE = "/aten::linear/"  # in the names that the tracer gives, after the path of the module


def insert(model: Any, targets: Sequence[str], rank: int, head: str) -> Any:
    """The graph with room for adapters of `rank` beside the linear layers `targets`, and with heads of their own.

    Args:
        targets: paths of modules as the shared model has them.
        head: path of the last linear layer.

    Raises:
        BadInput: the graph has no such linear layer.
    """
    products = {name: _product(model, name) for name in (*targets, head)}
    starts = _parameter(model, "starts")
    slots, places = (_named(ops.parameter([-1, -1], np.int64), name) for name in (SLOTS, PLACES))
    added = [slots, places]
    is_own = _is_own(places, slots)
    for own in _that_read_alike(products, targets):
        x, widths = products[own[0]].input_value(0), [products[name].input_value(1).get_shape() for name in own]
        a = _named(ops.parameter([-1, len(own) * rank, widths[0][1]], np.float32), a_name(own))
        bs = [
            _named(ops.parameter([-1, rank, d_out], np.float32), b_name(name))
            for name, (d_out, _) in zip(own, widths, strict=True)
        ]
        added += [a, *bs]
        for name, update in zip(own, _updates(x, a, bs, slots, is_own, rank), strict=True):
            _add(products[name], update)
    added += _replace_head(products[head], slots, is_own, by_window=starts is not None)
    return ov.Model(model.get_results(), [*model.get_parameters(), *added], "bank")


def _that_read_alike(products: Mapping[str, Any], targets: Sequence[str]) -> list[list[str]]:
    """The targets, those together whose input is the same."""
    found: dict[tuple[str, int], list[str]] = {}
    for name in targets:
        read = products[name].input_value(0)
        found.setdefault((read.get_node().get_friendly_name(), read.get_index()), []).append(name)
    return list(found.values())


def _updates(x: Any, a: Any, bs: Sequence[Any], slots: Any, is_own: Any, rank: int) -> list[Any]:
    """(R, L, D_out) for each of `bs`: tokens times the matrices of their own slot; those of others count zero."""
    inner = ops.matmul(x, _of_row(a, slots), False, True)  # (R, L, S * G * r)
    by_slot = ops.reshape(inner, _ints(0, 0, -1, len(bs) * rank), True)
    kept = ops.multiply(by_slot, ops.unsqueeze(is_own, _ints(3)))
    parts = ops.split(kept, ops.constant(np.int64(3)), len(bs)).outputs()
    flat = [ops.reshape(part, _ints(0, 0, -1), True) for part in parts]
    return [ops.matmul(own, _of_row(b, slots), False, False) for own, b in zip(flat, bs, strict=True)]


def _of_row(array: Any, slots: Any) -> Any:
    """(R, S * n, width) of an array (C, n, width): what the slots of each row have."""
    return ops.reshape(ops.gather(array, slots, _ints(0)), _ints(0, -1, _width(array)), True)


def _is_own(places: Any, slots: Any) -> Any:
    """(R, L, S) 1 where a token has the slot, else 0."""
    n = ops.squeeze(ops.slice(ops.shape_of(slots), _ints(1), _ints(2), _ints(1)), _ints(0))
    one = ops.constant(np.int64(1))
    numbers = ops.range(one, ops.add(n, one), one, "i64")
    return ops.convert(ops.equal(ops.unsqueeze(places, _ints(2)), numbers), np.float32)


def _replace_head(product: Any, slots: Any, is_own: Any, *, by_window: bool) -> list[Any]:
    """Have the last linear layer take each window's own weights; the inputs it needs."""
    x, biased = product.input_value(0), _biased(product)
    n_outputs = _width(product.output(0))
    weight = _named(ops.parameter([-1, n_outputs, _width(x)], np.float32), HEAD_WEIGHT)
    bias = _named(ops.parameter([-1, n_outputs], np.float32), HEAD_BIAS)
    zero = _ints(0)
    if by_window:
        owners = _named(ops.parameter([-1], np.int64), OWNERS)
        logits = ops.matmul(ops.unsqueeze(x, _ints(1)), ops.gather(weight, owners, zero), False, True)
        own = ops.add(ops.squeeze(logits, _ints(1)), ops.gather(bias, owners, zero))
        biased.output(0).replace(own.output(0))
        return [weight, bias, owners]
    rows = ops.reshape(ops.gather(weight, slots, zero), _ints(0, -1, _width(x)), True)  # (R, S * K, D)
    by_slot = ops.reshape(ops.matmul(x, rows, False, True), _ints(0, 0, -1, n_outputs), True)
    moved = ops.add(by_slot, ops.unsqueeze(ops.gather(bias, slots, zero), _ints(1)))
    own = ops.reduce_sum(ops.multiply(moved, ops.unsqueeze(is_own, _ints(3))), _ints(2), False)
    biased.output(0).replace(own.output(0))
    return [weight, bias]


def mark(model: Any, before: Set[str]) -> list[str]:
    """Name the operations that are not in `before`; the names, which quantisation leaves alone."""
    names = []
    for i, operation in enumerate(model.get_ordered_ops()):
        if operation.get_friendly_name() not in before and operation.get_type_name() not in ("Constant", "Parameter"):
            operation.set_friendly_name(f"{MARK}{i}")
            names.append(operation.get_friendly_name())
    return names


def _product(model: Any, name: str) -> Any:
    for operation in model.get_ordered_ops():
        if operation.get_type_name() == "MatMul" and f".{name}{_PLACE}" in f".{operation.get_friendly_name()}":
            return operation
    raise BadInput("the graph has no such linear layer", value=name, next_step="Name a module of the shared model")


def _biased(product: Any) -> Any:
    """The addition of a bias to a product; the product where the bias was zero and was left out."""
    readers = [target.get_node() for target in product.output(0).get_target_inputs()]
    is_added = len(readers) == 1 and readers[0].get_type_name() == "Add"
    if is_added and any(source.get_node().get_type_name() == "Constant" for source in readers[0].input_values()):
        return readers[0]
    return product


def _add(product: Any, update: Any) -> None:
    """Add an update (R, L, D_out) to a product and its bias, for all who read them.

    Not before the bias: a product that is followed by its bias does both at once.
    """
    biased = _biased(product)
    readers = list(biased.output(0).get_target_inputs())
    total = ops.add(biased.output(0), update)
    for reader in readers:
        reader.replace_source_output(total.output(0))


def _parameter(model: Any, name: str) -> Any:
    for port in model.inputs:
        if name in port.get_names():
            return port.get_node()
    return None


def _named(parameter: Any, name: str) -> Any:
    parameter.set_friendly_name(name)
    parameter.output(0).set_names({name})
    return parameter


def _width(output: Any) -> int:
    output = output if hasattr(output, "get_partial_shape") else output.output(0)
    return int(output.get_partial_shape()[-1].get_length())


def _ints(*numbers: int) -> Any:
    return ops.constant(np.asarray(numbers, dtype=np.int64))
