"""Rewrites of ONNX graphs. Catches: other results than before, whole tables that are turned to float in every batch,
int8 products that are computed in float."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from headrace.export.backends.onnx_graph import look_up_before_dequantising, use_unsigned_activations

RNG = np.random.default_rng(3)


def quantised() -> Any:
    """Ids (B, T) to rows of an int8 table, quantised, times two int8 matrices."""
    tensors: dict[str, Any] = {
        "table": RNG.integers(-127, 128, (50, 16)).astype(np.int8),
        "table_scale": RNG.random(50).astype(np.float32) / 100,
        "table_zero": np.zeros(50, dtype=np.int8),
        "scale": np.float32(0.01),
        "zero": np.int8(-7),
        "weight_scale": np.float32(0.02),
        "weight_zero": np.int8(0),
        "first": RNG.integers(-127, 128, (16, 8)).astype(np.int8),
        "second": RNG.integers(-127, 128, (16, 8)).astype(np.int8),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["table", "table_scale", "table_zero"], ["floats"], axis=0),
        helper.make_node("Gather", ["floats", "ids"], ["found"]),
        helper.make_node("QuantizeLinear", ["found", "scale", "zero"], ["small"]),
        helper.make_node("DequantizeLinear", ["small", "scale", "zero"], ["back"]),
    ]
    for name in ("first", "second"):
        nodes.append(helper.make_node("DequantizeLinear", [name, "weight_scale", "weight_zero"], [f"{name}_float"]))
        nodes.append(helper.make_node("MatMul", ["back", f"{name}_float"], [f"{name}_product"]))
    nodes.append(helper.make_node("Add", ["first_product", "second_product"], ["sum"]))
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["B", "T"])],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["B", "T", 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run(model: Any, folder: Path) -> tuple[Any, Counter[str]]:
    """What a graph gives, and the operations that ONNX Runtime makes of it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ids = np.arange(50, dtype=np.int64).reshape(5, 10)
    made = onnx.load(folder / "optimised.onnx")
    return session.run(None, {"ids": ids})[0], Counter(node.op_type for node in made.graph.node)


def test_rewrites_change_the_operations_and_not_the_results(tmp_path: Path) -> None:
    model = quantised()
    onnx.checker.check_model(model)
    expected, before = run(model, tmp_path)
    use_unsigned_activations(model)
    look_up_before_dequantising(model)
    onnx.checker.check_model(model)
    found, after = run(model, tmp_path)
    assert np.allclose(found, expected, rtol=0, atol=1e-4)
    assert before["DequantizeLinear"] > after["DequantizeLinear"] == 0
    assert after["MatMulIntegerToFloat"] == 2


def test_a_table_with_one_scale_is_left_alone() -> None:
    model = quantised()
    for tensor in model.graph.initializer:
        if tensor.name in ("table_scale", "table_zero"):
            first = numpy_helper.to_array(tensor)[0]
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(first), tensor.name))
    n_nodes = len(model.graph.node)
    look_up_before_dequantising(model)
    assert len(model.graph.node) == n_nodes
