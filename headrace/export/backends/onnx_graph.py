"""Rewrites of ONNX graphs that leave their results alone. Needs onnx: never on the serving path."""

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def use_unsigned_activations(model: Any) -> None:
    """Move the ranges of quantised activations from int8 to uint8, which lie 128 higher.

    ONNX Runtime multiplies uint8 by int8 on x86; of int8 by int8 it makes float products wherever several operations
    read one quantised tensor, such as query, key and value.
    """
    names = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for tensor in model.graph.initializer:
        if tensor.name in names and tensor.data_type == TensorProto.INT8:
            zero_point = numpy_helper.to_array(tensor).astype(np.int16) + 128
            tensor.CopyFrom(numpy_helper.from_array(zero_point.astype(np.uint8), tensor.name))


def look_up_before_dequantising(model: Any) -> None:
    """Have embeddings turned to float row by row as they are looked up.

    As it stands, ONNX Runtime would turn whole tables to float in every batch.
    """
    tables = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    nodes = []
    for node in model.graph.node:
        table = tables.get(node.input[0]) if node.op_type == "Gather" else None
        nodes += [node] if table is None or not _is_by_row(model, table, node) else _looked_up(table, node)
    used = {name for node in nodes for name in node.input} | {port.name for port in model.graph.output}
    kept = [node for node in nodes if node.op_type != "DequantizeLinear" or node.output[0] in used]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _is_by_row(model: Any, table: Any, node: Any) -> bool:
    """Whether a constant table has a scale for each row, a zero point of 0, and is looked up by row."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    if any(name not in constants for name in table.input):
        return False
    axes = {attribute.i for owner in (table, node) for attribute in owner.attribute if attribute.name == "axis"}
    zero_points = [numpy_helper.to_array(constants[name]) for name in table.input[2:]]
    is_by_row = len(constants[table.input[1]].dims) == 1 and axes <= {0}
    return is_by_row and not any(one.any() for one in zero_points)


def _looked_up(table: Any, node: Any) -> list[Any]:
    """Rows and their scales, both looked up, and their product."""
    rows, scales, floats, columns = (f"{node.output[0]}_{part}" for part in ("rows", "scales", "floats", "columns"))
    axis = f"{node.output[0]}_axis"
    return [
        helper.make_node("Constant", [], [axis], value_ints=[-1]),
        helper.make_node("Gather", [table.input[0], node.input[1]], [rows], name=rows),
        helper.make_node("Gather", [table.input[1], node.input[1]], [scales], name=scales),
        helper.make_node("Cast", [rows], [floats], name=floats, to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", [scales, axis], [columns], name=columns),
        helper.make_node("Mul", [floats, columns], list(node.output), name=node.name),
    ]


def name_plainly(model: Any) -> None:
    """Leave out what the exporter notes of its own source files and of shapes, which changes from run to run."""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    graph.name, graph.doc_string = "model", ""
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for port in (*graph.input, *graph.output):
        for i, dimension in enumerate(port.type.tensor_type.shape.dim):
            if dimension.dim_param:
                dimension.dim_param = ("B", "T")[i]
