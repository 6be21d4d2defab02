"""Every supported operator gives onnxruntime's numbers, at batch 1 and at any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx_nets import constant, graph, integers, node, run_onnx, scalar
from torch import nn

from edgecompress.model.load import load_source
from edgecompress.model.trainable import Trainable, to_trainable

IMAGE = (1, 4, 9, 7)
ROWS = (1, 12)


def imported(model: onnx.ModelProto, folder: Path) -> Trainable:
    path = folder / "net.onnx"
    onnx.save(model, path)
    return to_trainable(load_source(str(path)))


def check_equal(model: onnx.ModelProto, folder: Path) -> Trainable:
    """Compares with onnxruntime on the ORIGINAL model, then batch 3 with three batches of 1."""
    trainable = imported(model, folder)
    rng = np.random.default_rng(0)
    shape = trainable.example.shape[1:]
    samples = rng.normal(size=(3, *shape)).astype(np.float32)
    expected = np.concatenate([run_onnx(model, sample[None]) for sample in samples])
    with torch.no_grad():
        single = trainable.graph(torch.from_numpy(samples[:1])).numpy()
        batched = trainable.graph(torch.from_numpy(samples)).numpy()
    assert expected.std() > 1e-3
    np.testing.assert_allclose(single, expected[:1], atol=1e-4)
    np.testing.assert_allclose(batched, expected, atol=1e-4)
    return trainable


def layers(trainable: Trainable) -> list[str]:
    return [type(module).__name__ for module in trainable.graph.children()]


CONV = [constant("w", 6, 4, 3, 3), constant("b", 6)]
CONVOLUTIONS = {
    "plain": ({}, CONV, "x w"),
    "bias, stride, symmetric pads": ({"strides": [2, 1], "pads": [1, 0, 1, 0]}, CONV, "x w b"),
    "asymmetric pads": ({"strides": [2, 2], "pads": [0, 0, 1, 1]}, CONV, "x w b"),
    "dilated": ({"dilations": [2, 2], "pads": [2, 2, 2, 2]}, CONV, "x w b"),
    "same upper": ({"auto_pad": "SAME_UPPER", "strides": [2, 2]}, CONV, "x w b"),
    "same lower, odd total": (
        {"auto_pad": "SAME_LOWER", "strides": [1, 1]},
        [constant("w", 6, 4, 2, 4)],
        "x w",
    ),
    "valid": ({"auto_pad": "VALID"}, CONV, "x w"),
    "depthwise": ({"group": 4, "pads": [1, 1, 1, 1]}, [constant("w", 8, 1, 3, 3)], "x w"),
    "grouped": ({"group": 2}, [constant("w", 6, 2, 1, 1)], "x w"),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(case: str, tmp_path: Path):
    attributes, initializers, inputs = CONVOLUTIONS[case]
    check_equal(graph([node("Conv", inputs, **attributes)], IMAGE, initializers), tmp_path)


def test_asymmetric_padding_becomes_a_named_layer(tmp_path: Path):
    attributes, initializers, inputs = CONVOLUTIONS["asymmetric pads"]
    trainable = check_equal(
        graph([node("Conv", inputs, **attributes)], IMAGE, initializers), tmp_path
    )
    assert layers(trainable) == ["ZeroPad2d", "Conv2d"]


def test_a_bias_of_zeros_is_left_out(tmp_path: Path):
    zeros = onnx.numpy_helper.from_array(np.zeros(6, np.float32), "b")
    trainable = check_equal(graph([node("Conv", "x w b")], IMAGE, [CONV[0], zeros]), tmp_path)
    assert next(iter(trainable.graph.children())).bias is None


@pytest.mark.parametrize(
    ("attributes", "initializers", "inputs"),
    [
        ({}, [constant("w", 12, 5)], "x w"),
        ({"transB": 1}, [constant("w", 5, 12), constant("b", 5)], "x w b"),
        ({"alpha": 0.5, "beta": 2.0}, [constant("w", 12, 5), constant("b", 1, 5)], "x w b"),
        ({}, [constant("w", 12, 5), constant("b", 1)], "x w b"),
    ],
)
def test_gemm(attributes: dict, initializers: list, inputs: str, tmp_path: Path):
    trainable = check_equal(
        graph([node("Gemm", inputs, **attributes)], ROWS, initializers), tmp_path
    )
    assert layers(trainable) == ["Linear"]


@pytest.mark.parametrize("order", ["m b", "b m"])
def test_matmul_takes_the_following_constant_as_bias(order: str, tmp_path: Path):
    nodes = [node("MatMul", "x w", "m"), node("Add", order)]
    trainable = check_equal(graph(nodes, ROWS, [constant("w", 12, 5), constant("b", 5)]), tmp_path)
    assert layers(trainable) == ["Linear"]


def test_matmul_alone(tmp_path: Path):
    check_equal(graph([node("MatMul", "x w")], ROWS, [constant("w", 12, 5)]), tmp_path)


@pytest.mark.parametrize("shape", [IMAGE, ROWS])
def test_batch_normalization_survives(shape: tuple[int, ...], tmp_path: Path):
    channels = shape[1]
    variance = onnx.numpy_helper.from_array(np.full(channels, 0.3, np.float32), "v")
    nodes = [node("BatchNormalization", "x s b m v", epsilon=1e-3, momentum=0.99)]
    parameters = [constant(name, channels, seed=i) for i, name in enumerate("sbm")]
    trainable = check_equal(graph(nodes, shape, [*parameters, variance]), tmp_path)
    module = next(iter(trainable.graph.children()))
    assert isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d)
    assert module.eps == pytest.approx(1e-3)
    assert module.momentum == pytest.approx(0.01)


def test_batch_normalization_is_not_merged_into_its_convolution(tmp_path: Path):
    variance = onnx.numpy_helper.from_array(np.full(6, 0.3, np.float32), "v")
    nodes = [node("Conv", "x w b", "c"), node("BatchNormalization", "c s b m v")]
    parameters = [constant("s", 6), constant("m", 6), variance]
    trainable = check_equal(graph(nodes, IMAGE, [*CONV, *parameters]), tmp_path)
    assert layers(trainable) == ["Conv2d", "BatchNorm2d"]


@pytest.mark.parametrize(
    ("low", "high", "kind"), [(0.0, 6.0, "ReLU6"), (0.0, 3.4028235e38, "ReLU")]
)
def test_clip(low: float, high: float, kind: str, tmp_path: Path):
    nodes = [node("Clip", "x low high")]
    trainable = check_equal(
        graph(nodes, IMAGE, [scalar("low", low), scalar("high", high)]), tmp_path
    )
    assert layers(trainable) == [kind]


def test_clip_with_attributes_of_old_opsets(tmp_path: Path):
    model = graph([node("Clip", "x", min=0.0, max=6.0)], IMAGE, opset=10)
    assert layers(check_equal(model, tmp_path)) == ["ReLU6"]


UNARY = {
    "relu": (node("Relu", "x"), IMAGE),
    "softmax": (node("Softmax", "x", axis=1), ROWS),
    "softmax of the last axis": (node("Softmax", "x"), ROWS),
    "identity": (node("Identity", "x"), IMAGE),
    "dropout": (node("Dropout", "x"), IMAGE),
    "flatten": (node("Flatten", "x"), IMAGE),
    "global average": (node("GlobalAveragePool", "x"), IMAGE),
    "max pool": (node("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2]), IMAGE),
    "max pool, padded": (
        node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        IMAGE,
    ),
    "max pool, ceil that changes nothing": (
        node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        IMAGE,
    ),
    "average pool": (node("AveragePool", "x", kernel_shape=[3, 2], strides=[2, 1]), IMAGE),
    "average pool, padding left out": (
        node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        IMAGE,
    ),
    "average pool, padding counted": (
        node("AveragePool", "x", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        IMAGE,
    ),
    "average pool, asymmetric padding counted": (
        node("AveragePool", "x", kernel_shape=[3, 3], pads=[0, 0, 1, 1], count_include_pad=1),
        IMAGE,
    ),
    "mean": (node("ReduceMean", "x", axes=[2, 3]), IMAGE),
    "mean, negative axes, not kept": (node("ReduceMean", "x", axes=[-1, -2], keepdims=0), IMAGE),
    "transpose of ones": (node("Transpose", "x", perm=[0, 2, 3, 1]), (1, 1, 5, 6)),
}


@pytest.mark.parametrize("case", UNARY)
def test_unary(case: str, tmp_path: Path):
    operator, shape = UNARY[case]
    check_equal(graph([operator], shape), tmp_path)


def test_mean_with_axes_as_input(tmp_path: Path):
    model = graph([node("ReduceMean", "x a")], IMAGE, [integers("a", 2, 3)], opset=18)
    assert layers(check_equal(model, tmp_path)) == ["AdaptiveAvgPool2d"]


def test_max_pool_pads_with_zeros_after_a_relu(tmp_path: Path):
    nodes = [
        node("Relu", "x", "r"),
        node("MaxPool", "r", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER"),
    ]
    assert layers(check_equal(graph(nodes, IMAGE), tmp_path)) == ["ReLU", "ZeroPad2d", "MaxPool2d"]


@pytest.mark.parametrize(
    "target", [(1, -1), (-1, 252), (0, 0, 63), (1, 4, 63), (1, 2, 2, 63), (1, 4, 9, 7)]
)
def test_reshape_runs_at_any_batch(target: tuple[int, ...], tmp_path: Path):
    model = graph([node("Reshape", "x s")], IMAGE, [integers("s", *target)])
    check_equal(model, tmp_path)


def test_squeeze_and_unsqueeze(tmp_path: Path):
    nodes = [
        node("GlobalAveragePool", "x", "p"),
        node("Squeeze", "p a", "s"),
        node("Unsqueeze", "s b", "u"),
        node("Flatten", "u"),
    ]
    model = graph(nodes, IMAGE, [integers("a", 2, 3), integers("b", 2)])
    check_equal(model, tmp_path)


@pytest.mark.parametrize(("value", "kind"), [(0.0, "ZeroPad2d"), (-1.5, "ConstantPad2d")])
def test_pad(value: float, kind: str, tmp_path: Path):
    model = graph(
        [node("Pad", "x p v")], IMAGE, [integers("p", 0, 0, 1, 2, 0, 0, 3, 0), scalar("v", value)]
    )
    assert layers(check_equal(model, tmp_path)) == [kind]


def test_pad_with_axes(tmp_path: Path):
    initializers = [integers("p", 1, 2), scalar("v", 0.0), integers("a", -1)]
    model = graph([node("Pad", "x p v a")], IMAGE, initializers, opset=18)
    check_equal(model, tmp_path)


def test_add_and_concat_of_activations(tmp_path: Path):
    nodes = [
        node("Conv", "x w", "left", pads=[1, 1, 1, 1]),
        node("Conv", "x v", "right"),
        node("Add", "left right", "sum"),
        node("Concat", "sum left x", axis=1),
    ]
    model = graph(nodes, IMAGE, [CONV[0], constant("v", 6, 4, 1, 1)])
    trainable = check_equal(model, tmp_path)
    functions = [n.target for n in trainable.graph.graph.nodes if n.op == "call_function"]
    assert [function.__name__ for function in functions] == ["add", "cat"]


def test_names_are_identifiers_and_say_where_a_layer_is(tmp_path: Path):
    weights = [constant("stage2.0.conv1.weight", 4, 4, 1, 1), constant("onnx::Conv_7", 4, 4, 1, 1)]
    nodes = [
        onnx.helper.make_node("Conv", ["x", weights[0].name], ["a"], name="node_conv2d"),
        onnx.helper.make_node(
            "Conv", ["a", weights[1].name], ["b"], name="/stage2/stage2.0/conv2/Conv"
        ),
        onnx.helper.make_node("Relu", ["b"], ["c"], name="/stage2/stage2.0/relu_1/Relu"),
        onnx.helper.make_node("Relu", ["c"], ["d"], name="1x/strange name"),
        onnx.helper.make_node("Add", ["d", "x"], ["y"]),
    ]
    trainable = imported(graph(nodes, IMAGE, weights), tmp_path)
    names = [n.name for n in trainable.graph.graph.nodes if n.op.startswith("call")]
    assert names == [
        "stage2_0_conv1",
        "stage2_0_conv2",
        "stage2_0_relu_1",
        "layer_1x_strange_name",
        "add",
    ]
    targets = [n.target for n in trainable.graph.graph.nodes if n.op == "call_module"]
    assert targets == names[:4]


def test_names_that_python_or_torch_keep_for_themselves(tmp_path: Path):
    taken = ["type", "max", "forward", "x", "in", "output"]
    nodes = [
        onnx.helper.make_node("Relu", ["x" if i == 0 else f"t{i}"], [f"t{i + 1}"], name=name)
        for i, name in enumerate(taken)
    ]
    trainable = check_equal(graph(nodes, IMAGE, outputs=[f"t{len(taken)}"]), tmp_path)
    targets = {n.name: n.target for n in trainable.graph.graph.nodes if n.op == "call_module"}
    assert targets == {f"{name}_2": f"{name}_2" for name in taken}


def test_a_constant_per_channel_becomes_the_convolutions_bias(tmp_path: Path):
    nodes = [node("Conv", "x w", "c"), node("Add", "c b")]
    trainable = check_equal(graph(nodes, IMAGE, [CONV[0], constant("b", 1, 6, 1, 1)]), tmp_path)
    assert layers(trainable) == ["Conv2d"]
