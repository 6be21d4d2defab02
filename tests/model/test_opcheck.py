"""All unsupported operators are named at once, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx_nets import constant, graph, integers, node, scalar

from edgecompress.errors import UnsupportedOperators
from edgecompress.model.load import Source, load_source
from edgecompress.model.opcheck import check_operators
from edgecompress.model.trainable import to_trainable

IMAGE = (1, 4, 8, 8)
ROWS = (1, 12)
WEIGHT = constant("w", 6, 4, 3, 3)


def load(model: onnx.ModelProto, folder: Path) -> Source:
    path = folder / "net.onnx"
    onnx.save(model, path)
    return load_source(str(path))


def test_all_of_them_with_their_names(tmp_path: Path):
    nodes = [
        node("Conv", "x w", "a"),
        node("Softplus", "a", "b"),
        node("Sub", "a b", "c"),
        node("MaxPool", "c", "d", kernel_shape=[2, 2], dilations=[2, 2]),
        node("HardSwish", "d"),
    ]
    source = load(graph(nodes, IMAGE, [WEIGHT]), tmp_path)
    for judge in (check_operators, to_trainable):
        with pytest.raises(UnsupportedOperators) as refused:
            judge(source)
        assert [(kind, name) for kind, name, _ in refused.value.operators] == [
            ("Softplus", "softplus_of_b"),
            ("Sub", "sub_of_c"),
            ("MaxPool", "maxpool_of_d"),
            ("HardSwish", "hardswish_of_y"),
        ]
        assert str(refused.value).startswith(
            "4 unsupported operators: Softplus 'softplus_of_b': no "
        )


def test_supported_models_pass(tmp_path: Path):
    assert check_operators(load(graph([node("Conv", "x w")], IMAGE, [WEIGHT]), tmp_path)) is None


REFUSED: dict[str, tuple[list[onnx.NodeProto], Sequence[int], list[Any], str]] = {
    "computed weight": (
        [node("Flatten", "x", "f"), node("Gemm", "f f", transB=1)],
        ROWS,
        [],
        r"weight \('.*'\) is computed",
    ),
    "3-D convolution": (
        [node("Conv", "x w")],
        (1, 4, 8, 8, 8),
        [constant("w", 6, 4, 3, 3, 3)],
        "5 dimensions",
    ),
    "matmul of two activations": (
        [node("MatMul", "x x")],
        (1, 1),
        [],
        "activation x constant",
    ),
    "transposed activation": (
        [node("Gemm", "x w", transA=1)],
        (1, 12),
        [constant("w", 1, 3)],
        "transA=1",
    ),
    "odd clip": (
        [node("Clip", "x low high")],
        IMAGE,
        [scalar("low", -1.0), scalar("high", 1.0)],
        r"bounds \[-1, 1\]",
    ),
    "softmax over channels of an image": (
        [node("Softmax", "x", axis=1)],
        IMAGE,
        [],
        "over axis 1 of 4 dimensions",
    ),
    "added constant": (
        [node("Add", "x c")],
        IMAGE,
        [constant("c", 1, 4, 1, 1)],
        "adds a constant",
    ),
    "broadcast": (
        [node("GlobalAveragePool", "x", "g"), node("Add", "x g")],
        IMAGE,
        [],
        r"shapes \[1, 4, 8, 8\] and \[1, 4, 1, 1\] differ",
    ),
    "batch joined": ([node("Concat", "x x", axis=0)], IMAGE, [], "batch dimension"),
    "joined with a constant": (
        [node("Concat", "x c", axis=1)],
        IMAGE,
        [constant("c", 1, 2, 8, 8)],
        "is a constant",
    ),
    "batch reshaped away": (
        [node("Reshape", "x s")],
        IMAGE,
        [integers("s", 4, 64)],
        r"\[1, 4, 8, 8\] to \[4, 64\] does not keep the batch",
    ),
    "channels last": (
        [node("Transpose", "x", perm=[0, 2, 3, 1])],
        IMAGE,
        [],
        r"must be \[N, C, H, W\]",
    ),
    "mean over channels": ([node("ReduceMean", "x", axes=[1])], IMAGE, [], r"over axes \[1\]"),
    "reflecting pad": (
        [node("Pad", "x p", mode="reflect")],
        IMAGE,
        [integers("p", 0, 0, 1, 1, 0, 0, 1, 1)],
        "mode 'reflect'",
    ),
    "padded channels": (
        [node("Pad", "x p")],
        IMAGE,
        [integers("p", 0, 1, 0, 0, 0, 0, 0, 0)],
        "only positive ones on H and W",
    ),
    "max pool padded at one side": (
        [node("MaxPool", "x", kernel_shape=[2, 2], pads=[0, 0, 1, 1])],
        IMAGE,
        [],
        "may be negative",
    ),
    "average pool padded at one side": (
        [node("AveragePool", "x", kernel_shape=[2, 2], pads=[0, 0, 1, 1])],
        IMAGE,
        [],
        "left out of the average",
    ),
    "pool that rounds up": (
        [node("MaxPool", "x", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)],
        IMAGE,
        [],
        "ceil_mode=1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_forms_of_supported_operators_that_are_refused(case: str, tmp_path: Path):
    nodes, shape, initializers, reason = REFUSED[case]
    source = load(graph(nodes, shape, initializers), tmp_path)
    with pytest.raises(UnsupportedOperators, match=reason):
        check_operators(source)


def test_batch_normalization_in_training_mode(tmp_path: Path):
    parameters = [constant(name, 4, seed=i) for i, name in enumerate("sbmv")]
    norm = onnx.helper.make_node(
        "BatchNormalization", ["x", *"sbmv"], ["y", "n", "u"], name="norm", training_mode=1
    )
    with pytest.raises(UnsupportedOperators, match="'norm': it is in training mode"):
        check_operators(load(graph([norm], IMAGE, parameters), tmp_path))
