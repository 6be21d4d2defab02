"""Costs by layer, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx_nets import constant, graph, node
from test_load import quantized_model

from edgecompress.errors import UnsupportedOperators
from edgecompress.model.inspect import Inspection, inspect_source
from edgecompress.model.load import load_source
from edgecompress.model.steps import StepSize, StepTable, live_bytes


def inspect(model: onnx.ModelProto, folder: Path) -> Inspection:
    onnx.save(model, folder / "net.onnx")
    return inspect_source(load_source(str(folder / "net.onnx")))


def test_a_residual_block_by_hand(tmp_path: Path):
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("Conv", "r v", "d", strides=[1, 1]),
        node("Add", "d x", "s"),
        node("GlobalAveragePool", "s", "g"),
        node("Flatten", "g", "f"),
        node("Gemm", "f k b"),
    ]
    weights = [constant("w", 8, 4, 3, 3), constant("v", 4, 8, 1, 1)]
    dense = [constant("k", 4, 10), constant("b", 10)]
    made = inspect(graph(nodes, (1, 4, 6, 6), weights + dense), tmp_path)
    assert [(layer.op, layer.macs, layer.weight_bytes_int8) for layer in made.layers] == [
        ("Conv2d", 36 * 8 * 4 * 9, 288 + 4 * 8),
        ("ReLU", 0, 0),
        ("Conv2d", 36 * 4 * 8, 32 + 4 * 4),
        ("add", 0, 0),
        ("AdaptiveAvgPool2d", 0, 0),
        ("Flatten", 0, 0),
        ("Linear", 40, 40 + 4 * 10),
    ]
    # x is 144 bytes, c 288, d 144, s 144, g 4, y 10; x lives until the addition.
    assert [layer.live_bytes_int8 for layer in made.layers] == [432, 432, 576, 432, 148, 148, 14]
    assert [layer.fused for layer in made.layers] == [False, True, False, False, False, True, False]
    assert made.peak_step == made.layers[2].name
    assert made.peak_live_bytes_int8 == 576
    assert made.macs == 36 * 8 * 36 + 36 * 32 + 40
    assert made.weight_bytes_float == 4 * (288 + 32 + 40 + 10)
    assert (made.input_shape, made.output_shape) == ((1, 4, 6, 6), (1, 10))
    assert Inspection.from_json(made.to_json()) == made


def test_documented_example_of_live_bytes():
    steps = (
        StepSize("conv", "Conv2d", ("x",), "a", (50,)),
        StepSize("relu", "ReLU", ("a",), "r", (50,), fused=True),
        StepSize("add", "add", ("r", "r"), "b", (50,)),
    )
    assert live_bytes(StepTable("x", (100,), "b", steps)) == [150, 150, 100]


def test_deployable(tmp_path: Path):
    made = inspect(quantized_model("N"), tmp_path)
    (layer,) = made.layers
    assert (made.kind, layer.op, layer.macs, layer.weight_bytes_int8) == (
        "deployable",
        "MatMul",
        12,
        12,
    )
    assert (layer.output_shape, layer.live_bytes_int8) == ((1, 3), 7)


@pytest.mark.parametrize(("name", "macs"), [("ic", 12_501_632), ("kws", 2_656_768)])
def test_tflite(name: str, macs: int, shared_data: Path):
    made = inspect_source(load_source(str(shared_data / "mlperf_tiny" / f"{name}_int8.tflite")))
    assert (made.kind, made.macs) == ("tflite", macs)
    assert all(layer.output_shape for layer in made.layers)


def test_unsupported_models_are_refused(tmp_path: Path):
    with pytest.raises(UnsupportedOperators, match="Softplus"):
        inspect(graph([node("Softplus", "x")], (1, 4)), tmp_path)
