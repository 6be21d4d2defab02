"""One-operator QDQ ONNX models (NCHW) through the whole pipeline, against onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecompress.errors import UnsupportedOperators
from edgecompress.lower import twin
from edgecompress.lower.pipeline import lower
from edgecompress.lower.program import Program, dequantize_output, quantize_input
from edgecompress.target.registry import load_target

INPUT = (0.05, 3)
OTHER = (0.04, -5)
IMAGE = [1, 4, 8, 8]
WINDOW = {"kernel_shape": [3, 3], "strides": [2, 2]}
PADDED = {**WINDOW, "pads": [1, 1, 1, 1]}
CHANNELS = {
    "c": np.arange(4, dtype=np.int8).reshape(4, 1, 1),
    "sc": np.float32(0.2),
    "zc": np.int8(0),
}
WIDTHS = {"widths": np.array([0, 0, 1, 1, 0, 0, 2, 1], np.int64)}


def node(op: str, inputs: str = "x", output: str = "y", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def requantized(inputs: str, output: str) -> list[onnx.NodeProto]:
    """Quantize and dequantize with the input's parameters."""
    return [
        node("QuantizeLinear", f"{inputs} sx zx", inputs + "_q"),
        node("DequantizeLinear", f"{inputs}_q sx zx", output),
    ]


def qdq_model(
    nodes: list[onnx.NodeProto],
    shape: list[int],
    output: tuple[float, int],
    constants: dict[str, np.ndarray],
) -> onnx.ModelProto:
    """quantize, `nodes` from x to y, quantize."""
    constants = {
        "sx": np.float32(INPUT[0]),
        "zx": np.int8(INPUT[1]),
        "sy": np.float32(output[0]),
        "zy": np.int8(output[1]),
        **constants,
    }
    border = [
        node("QuantizeLinear", "input sx zx", "q"),
        node("DequantizeLinear", "q sx zx", "x"),
        *nodes,
        node("QuantizeLinear", "y sy zy", "yq"),
        node("DequantizeLinear", "yq sy zy", "output"),
    ]
    graph = helper.make_graph(
        border,
        "one",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


def compiled(model: onnx.ModelProto) -> Program:
    return lower(model, name="one", profile=load_target("cortex-m7"))


CASES = {
    "average": ([node("AveragePool", **PADDED)], INPUT, {}),
    "average, padding counted": (
        [node("AveragePool", **PADDED, count_include_pad=1)], INPUT, {}),
    "average, rescaled": ([node("AveragePool", **PADDED)], OTHER, {}),
    "average, padding counted, rescaled": (
        [node("AveragePool", **PADDED, count_include_pad=1)], OTHER, {}),
    "average, ceil": ([node("AveragePool", **WINDOW, ceil_mode=1)], INPUT, {}),
    "max": ([node("MaxPool", **PADDED)], INPUT, {}),
    "max, ceil": ([node("MaxPool", **WINDOW, ceil_mode=1)], INPUT, {}),
    "max, relu": ([node("MaxPool", **PADDED, output="m"), node("Relu", "m")], INPUT, {}),
    "global average": ([node("GlobalAveragePool")], OTHER, {}),
    "mean of rows and columns": ([node("ReduceMean", axes=[2, 3], keepdims=0)], OTHER, {}),
    "mean of columns": ([node("ReduceMean", axes=[3])], OTHER, {}),
    "mean of channels": ([node("ReduceMean", axes=[1], keepdims=0)], OTHER, {}),
    "relu": ([node("Relu")], OTHER, {}),
    "clip": ([node("Clip", "x low high")], OTHER,
             {"low": np.float32(0), "high": np.float32(6)}),
    "silu": ([node("Sigmoid", output="s"), node("Mul", "x s")], OTHER, {}),
    "hard swish": ([node("HardSwish")], OTHER, {}),
    "elu": ([node("Elu")], OTHER, {}),
    "plus a number": ([node("Add", "x k")], OTHER, {"k": np.float32(1.3)}),
    "concat": ([node("Concat", "x x", axis=1)], OTHER, {}),
    "concat of rows": ([node("Concat", "x x", axis=2)], INPUT, {}),
    "pad": ([node("Pad", "x widths")], INPUT, WIDTHS),
    "softmax of channels": ([node("Softmax", axis=1)], (1 / 256, -128), {}),
    "softmax, rescaled": ([node("Softmax", axis=1)], (1 / 255, -128), {}),
    "flatten": ([node("Flatten")], INPUT, {}),
    "flatten, rescaled": ([node("Flatten")], OTHER, {}),
    "transpose": ([node("Transpose", perm=[0, 1, 3, 2])], INPUT, {}),
    "times itself": ([node("Mul", "x x")], (0.3, -100), {}),
    "plus itself, relu": ([node("Add", "x x", "a"), node("Relu", "a")], OTHER, {}),
    "plus channels": (
        [node("DequantizeLinear", "c sc zc", "f"), node("Add", "x f")], OTHER, CHANNELS),
    "times channels": (
        [node("DequantizeLinear", "c sc zc", "f"), node("Mul", "x f")], OTHER, CHANNELS),
}  # fmt: skip


def worst_difference(model: onnx.ModelProto, shape: list[int], scale: float) -> float:
    """In units of the output's scale."""
    program = compiled(model)
    quantized = np.random.default_rng(0).integers(-128, 128, shape)
    x = (quantized - INPUT[1]).astype(np.float32) * np.float32(INPUT[0])
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    theirs = session.run(None, {"input": x})[0]
    layers = twin.run(program, quantize_input(program, x))
    ours = dequantize_output(program, list(layers.values())[-1])
    return float(np.abs(ours.reshape(theirs.shape) - theirs).max() / scale)


@pytest.mark.parametrize("name", CASES)
def test_within_one_unit_of_onnxruntime(name: str) -> None:
    nodes, output, constants = CASES[name]
    model = qdq_model(nodes, IMAGE, output, constants)
    assert worst_difference(model, IMAGE, output[0]) < 1.01


def test_matmul_of_activations() -> None:
    nodes = [
        node("Transpose", "x", "t", perm=[0, 2, 1]),
        *requantized("t", "turned"),
        node("MatMul", "x turned"),
    ]
    model = qdq_model(nodes, [3, 5, 8], (0.5, 4), {})
    assert worst_difference(model, [3, 5, 8], 0.5) < 1.01


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("MaxPool", **PADDED)], "max pooling must keep"),
        ([node("ReduceMean", axes=[2], keepdims=0)], "another order"),
        ([node("Transpose", perm=[0, 1, 3, 2])], "transpose must keep"),
    ],
)
def test_what_no_kernel_takes_is_refused_with_the_reason(
    nodes: list[onnx.NodeProto], reason: str
) -> None:
    with pytest.raises(UnsupportedOperators, match=reason):
        compiled(qdq_model(nodes, IMAGE, OTHER, {}))
