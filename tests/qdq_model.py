"""QDQ ONNX models by hand: conv, relu, depthwise, add, then mean or flatten, dense."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class QdqBuilder:
    """Collects nodes and initializers; `wire` inserts a Quantize and Dequantize pair."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name: str, value: Any) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def wire(self, source: str, scale: float, zero_point: int, name: str) -> str:
        parameters = [
            self.constant(f"{name}_scale", np.float32(scale)),
            self.constant(f"{name}_zero_point", np.int8(zero_point)),
        ]
        quantized = self.node("QuantizeLinear", [source, *parameters], f"{name}_q")
        return self.node("DequantizeLinear", [quantized, *parameters], name)

    def weights(self, name: str, shape: tuple[int, ...], input_scale: float) -> list[str]:
        """Dequantized per-channel weights and bias."""
        channels = shape[0]
        scale = (self.random.uniform(0.5, 1.5, channels) * 0.01).astype(np.float32)
        weight = self.random.integers(-127, 128, shape).astype(np.int8)
        bias = self.random.integers(-2000, 2000, channels).astype(np.int32)
        made = []
        for part, value, part_scale in (
            ("w", weight, scale),
            ("b", bias, (scale * np.float32(input_scale)).astype(np.float32)),
        ):
            zeros = np.zeros(channels, value.dtype)
            inputs = [
                self.constant(f"{name}_{part}_q", value),
                self.constant(f"{name}_{part}_scale", part_scale),
                self.constant(f"{name}_{part}_zero_point", zeros),
            ]
            made.append(self.node("DequantizeLinear", inputs, f"{name}_{part}", axis=0))
        return made

    def model(
        self, input_shape: list[int], output: str, output_shape: list[int]
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "qdq",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, input_shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, output_shape)],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 8
        onnx.checker.check_model(model)
        return model


def small_model(seed: int, *, flatten: bool, softmax: bool = False) -> onnx.ModelProto:
    """[1, 3, 8, 8] to [1, 10]; `flatten` leaves a 4 by 4 map in front of the dense layer."""
    build = QdqBuilder(seed)
    x = build.wire("input", 0.05, -3, "x")
    strided = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
    build.node("Conv", [x, *build.weights("conv", (8, 3, 3, 3), 0.05)], "conv", **strided)
    a = build.wire(build.node("Relu", ["conv"], "relu"), 0.06, -128, "a")
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "group": 8}
    build.node("Conv", [a, *build.weights("depthwise", (8, 1, 3, 3), 0.06)], "depthwise", **same)
    b = build.wire("depthwise", 0.08, 5, "b")
    c = build.wire(build.node("Add", [a, b], "sum"), 0.1, -20, "c")
    if flatten:
        d = build.wire(build.node("Flatten", [c], "flat"), 0.1, -20, "d")
        inputs, output_scale = 128, 0.2
    else:
        mean = build.wire(build.node("GlobalAveragePool", [c], "mean"), 0.03, -20, "m")
        d = build.wire(build.node("Flatten", [mean], "flat"), 0.03, -20, "d")
        inputs, output_scale = 8, 0.05
    input_scale = 0.1 if flatten else 0.03
    build.node("Gemm", [d, *build.weights("fc", (10, inputs), input_scale)], "fc", transB=1)
    y = build.wire("fc", output_scale, 10, "y")
    if softmax:
        y = build.node("Softmax", [y], "probability")
    return build.model([1, 3, 8, 8], y, [1, 10])
