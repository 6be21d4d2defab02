"""Small ONNX graphs for the tests, and onnxruntime's answer to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


def constant(name: str, *shape: int, seed: int = 0) -> onnx.TensorProto:
    """Normal random float32 values."""
    values = np.random.default_rng([seed, len(name), *shape]).normal(size=shape)
    return numpy_helper.from_array(values.astype(np.float32), name)


def integers(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def scalar(name: str, value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, np.float32), name)


def graph(
    nodes: Sequence[onnx.NodeProto],
    input_shape: Sequence[int | str],
    initializers: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = OPSET,
    outputs: Sequence[str] = ("y",),
    input_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model from "x" to `outputs`, whose shapes are left to inference."""
    made = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", input_type, input_shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        list(initializers),
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def node(kind: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    """`inputs` separated by blanks; the node is named after its type and output."""
    return helper.make_node(
        kind, inputs.split(), [output], name=f"{kind.lower()}_of_{output}", **attributes
    )


def run_onnx(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """onnxruntime without its graph optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {session.get_inputs()[0].name: x})[0]
