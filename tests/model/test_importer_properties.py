"""Random small networks: the fx graph and onnxruntime agree, whatever the operators' order."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_nets import constant, graph, node, run_onnx

from edgecompress.model.load import load_source
from edgecompress.model.opcheck import check_operators
from edgecompress.model.trainable import to_trainable

BLOCKS = st.sampled_from(
    ["conv", "strided", "depthwise", "norm", "relu", "relu6", "max", "average", "residual", "cat"]
)


class NetworkWriter:
    """Appends blocks to an ONNX graph, keeping count of channels and size."""

    def __init__(self, channels: int, size: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.tensor, self.channels, self.size = "x", channels, size

    def parameter(self, name: str, *shape: int, positive: bool = False) -> str:
        tensor = constant(name, *shape, seed=len(self.initializers))
        values = onnx.numpy_helper.to_array(tensor) / np.sqrt(max(1, np.prod(shape[1:])))
        values = np.abs(values) + 0.5 if positive else values
        self.initializers.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def write(self, kind: str, inputs: str, **attributes: object) -> str:
        self.tensor = f"t{len(self.nodes)}"
        self.nodes.append(node(kind, inputs, self.tensor, **attributes))
        return self.tensor

    def convolution(self, channels: int, kernel: int, stride: int = 1, group: int = 1) -> None:
        name = f"layer{len(self.nodes)}"
        weight = self.parameter(f"{name}.weight", channels, self.channels // group, kernel, kernel)
        bias = self.parameter(f"{name}.bias", channels)
        self.write(
            "Conv",
            f"{self.tensor} {weight} {bias}",
            strides=[stride, stride],
            group=group,
            auto_pad="SAME_UPPER",
        )
        self.channels, self.size = channels, -(-self.size // stride)

    def block(self, kind: str) -> None:
        before, name = self.tensor, f"layer{len(self.nodes)}"
        if kind == "conv":
            self.convolution(self.channels % 7 + 2, 3)
        elif kind == "strided":
            self.convolution(self.channels + 1, 3, stride=2)
        elif kind == "depthwise":
            self.convolution(self.channels, 3, group=self.channels)
        elif kind == "norm":
            parameters = [self.parameter(f"{name}.{key}", self.channels) for key in "gbm"]
            variance = self.parameter(f"{name}.v", self.channels, positive=True)
            self.write("BatchNormalization", " ".join([before, *parameters, variance]))
        elif kind == "relu":
            self.write("Relu", before)
        elif kind == "relu6":
            low, high = self.parameter(f"{name}.low"), self.parameter(f"{name}.high")
            self.initializers[-2:] = [
                onnx.numpy_helper.from_array(np.float32(value), key)
                for key, value in ((low, 0.0), (high, 6.0))
            ]
            self.write("Clip", f"{before} {low} {high}")
        elif kind in ("max", "average") and self.size > 2:
            operator = "MaxPool" if kind == "max" else "AveragePool"
            self.write(operator, before, kernel_shape=[2, 2], strides=[2, 2])
            self.size //= 2
        elif kind == "residual":
            self.convolution(self.channels, 3)
            self.write("Add", f"{before} {self.tensor}")
        elif kind == "cat":
            self.convolution(2, 1)
            self.write("Concat", f"{before} {self.tensor}", axis=1)
            self.channels = sum(self._channels_of(name) for name in self.nodes[-1].input)

    def _channels_of(self, tensor: str) -> int:
        made = graph(self.nodes[:-1], self.input_shape, self.initializers, outputs=["t0"])
        made = onnx.shape_inference.infer_shapes(made)
        values = [*made.graph.input, *made.graph.value_info, *made.graph.output]
        value = next(v for v in values if v.name == tensor)
        return value.type.tensor_type.shape.dim[1].dim_value

    input_shape: tuple[int, ...] = ()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 4),
    size=st.integers(5, 9),
    blocks=st.lists(BLOCKS, min_size=1, max_size=8),
    head=st.sampled_from(["global", "flatten", "none"]),
)
def test_random_networks(channels: int, size: int, blocks: list[str], head: str):
    writer = NetworkWriter(channels, size)
    writer.input_shape = (1, channels, size, size)
    for block in blocks:
        writer.block(block)
    if head == "global":
        writer.write("GlobalAveragePool", writer.tensor)
        writer.size = 1
    if head != "none":
        writer.write("Flatten", writer.tensor)
        features = writer.channels * writer.size**2
        writer.write("Gemm", f"{writer.tensor} {writer.parameter('head.weight', features, 3)}")
    if not writer.nodes:
        writer.write("Identity", "x")
    model = graph(writer.nodes, writer.input_shape, writer.initializers, outputs=[writer.tensor])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        onnx.save(model, path)
        source = load_source(str(path))
    check_operators(source)
    trainable = to_trainable(source)
    x = np.random.default_rng(size).normal(size=(2, *writer.input_shape[1:])).astype(np.float32)
    expected = np.concatenate([run_onnx(model, sample[None]) for sample in x])
    with torch.no_grad():
        given_back = trainable.graph(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(given_back, expected, atol=1e-4, rtol=1e-4)
