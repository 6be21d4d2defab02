"""Layers over [N, C, L] are imported as layers over a height of one, with the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx_nets import constant, graph, integers, node, run_onnx, scalar
from torch import nn

from edgecompress.model.importer.one_dimensional import lift_one_dimensional
from edgecompress.model.load import load_source
from edgecompress.model.trainable import Trainable, to_trainable

SHAPE = (1, 4, 20)
WEIGHT = constant("w", 6, 4, 5)


def check_equal(model: onnx.ModelProto, folder: Path) -> Trainable:
    """Compares with onnxruntime on the original model, at batch 1 and at batch 3."""
    path = folder / "net.onnx"
    onnx.save(model, path)
    trainable = to_trainable(load_source(str(path)))
    samples = np.random.default_rng(0).normal(size=(3, *SHAPE[1:])).astype(np.float32)
    expected = np.concatenate([run_onnx(model, sample[None]) for sample in samples])
    with torch.no_grad():
        single = trainable.graph(torch.from_numpy(samples[:1])).numpy()
        batched = trainable.graph(torch.from_numpy(samples)).numpy()
    assert expected.std() > 1e-3
    np.testing.assert_allclose(single, expected[:1], atol=1e-4)
    np.testing.assert_allclose(batched, expected, atol=1e-4)
    return trainable


def kinds(trainable: Trainable) -> list[str]:
    return [type(module).__name__ for module in trainable.graph.children()]


WINDOWS = {
    "plain": node("Conv", "x w"),
    "bias, stride, pads": node("Conv", "x w b", strides=[2], pads=[2, 2]),
    "asymmetric pads": node("Conv", "x w b", pads=[4, 0]),
    "dilated": node("Conv", "x w", dilations=[2], pads=[4, 4]),
    "same": node("Conv", "x w", auto_pad="SAME_UPPER", strides=[3]),
    "depthwise": node("Conv", "x d", group=4, pads=[1, 1]),
    "maximum": node("MaxPool", "x", kernel_shape=[3], strides=[2], pads=[1, 1]),
    "average": node("AveragePool", "x", kernel_shape=[4], strides=[2]),
    "global": node("GlobalAveragePool", "x"),
    "padded": node("Pad", "x pads zero"),
}


@pytest.mark.parametrize("case", WINDOWS)
def test_windows(case: str, tmp_path: Path) -> None:
    constants = [
        WEIGHT, constant("b", 6), constant("d", 8, 1, 3), integers("pads", 0, 0, 2, 0, 0, 1),
        scalar("zero", 0.0),
    ]  # fmt: skip
    check_equal(graph([WINDOWS[case]], SHAPE, constants), tmp_path)


def test_a_residual_network_is_lifted_once(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "a", pads=[2, 2]),
        node("BatchNormalization", "a s t m v", "b"),
        node("Relu", "b", "c"),
        node("Conv", "c w2", "d", pads=[1, 1]),
        node("Add", "c d", "e"),
        node("Concat", "e c", "f", axis=1),
        node("ReduceMean", "f axis", "g", keepdims=0),
        node("MatMul", "g h"),
    ]
    positive = onnx.numpy_helper.from_array(np.linspace(0.5, 2, 6).astype(np.float32), "v")
    constants = [
        WEIGHT, constant("s", 6), constant("t", 6), constant("m", 6), positive,
        constant("w2", 6, 6, 3), integers("axis", -1), constant("h", 12, 3),
    ]  # fmt: skip
    trainable = check_equal(graph(nodes, SHAPE, constants, opset=18), tmp_path)
    assert kinds(trainable) == [
        "Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "AdaptiveAvgPool2d", "Flatten", "Linear"
    ]  # fmt: skip
    reshapes = [n for n in trainable.graph.graph.nodes if n.target is torch.reshape]
    assert len(reshapes) == 1
    assert tuple(trainable.example.shape) == SHAPE


def test_the_mean_of_old_opsets_has_its_axes_as_attribute(tmp_path: Path) -> None:
    nodes = [
        node("Conv", "x w", "a"),
        node("ReduceMean", "a", "b", axes=[2], keepdims=1),
        node("Flatten", "b"),
    ]
    check_equal(graph(nodes, SHAPE, [WEIGHT], opset=11), tmp_path)


def test_an_output_of_three_dimensions_keeps_its_shape(tmp_path: Path) -> None:
    nodes = [node("Conv", "x w", "a"), node("Relu", "a")]
    trainable = check_equal(graph(nodes, SHAPE, [WEIGHT]), tmp_path)
    assert tuple(trainable.graph(trainable.example).shape) == (1, 6, 16)


def test_torch_modules_arrive_with_readable_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv1d(4, 8, 3, padding="same"), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(8, 8, 3, groups=8), nn.AvgPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()  # fmt: skip
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(network, (torch.zeros(SHAPE),)), path)
    trainable = to_trainable(load_source(str(path)))
    x = torch.randn(5, *SHAPE[1:])
    with torch.no_grad():
        torch.testing.assert_close(trainable.graph(x), network(x), atol=1e-5, rtol=1e-4)
    assert [name for name, _ in trainable.graph.named_children()][:2] == ["layer_0", "layer_1"]


def test_what_has_no_one_dimensional_layer_is_left_alone() -> None:
    nodes = [node("Relu", "x", "a"), node("Add", "a x")]
    model = onnx.shape_inference.infer_shapes(graph(nodes, SHAPE))
    assert lift_one_dimensional(model) is model
