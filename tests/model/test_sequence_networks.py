"""Recurrent and transformer networks are imported with torch's own numbers, at any batch."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from onnx_nets import constant, graph, integers, node
from sequence_models import NETWORKS, SHAPE, build

from edgecompress.errors import UnsupportedOperators
from edgecompress.model.export import export_module
from edgecompress.model.load import load_source
from edgecompress.model.trainable import Trainable, to_trainable


def imported(model: onnx.ModelProto, folder: Path) -> Trainable:
    path = folder / "net.onnx"
    onnx.save(model, path)
    return to_trainable(load_source(str(path)))


def exported(network: torch.nn.Module, folder: Path, *, script: bool) -> onnx.ModelProto:
    if not script:
        return export_module(network, SHAPE, "net")
    path = folder / "script.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(SHAPE),), path, dynamo=False, opset_version=17)
    return onnx.load(path)


SCRIPTED = ["gru both ways", "lstm, final state", "convolution, gru", "encoder, gelu"]
CASES = [(name, False) for name in NETWORKS] + [(name, True) for name in SCRIPTED]


@pytest.mark.parametrize(("name", "script"), CASES)
def test_numbers_are_torchs_own(name: str, script: bool, tmp_path: Path) -> None:
    network = build(name)
    trainable = imported(exported(network, tmp_path, script=script), tmp_path)
    x = torch.randn(3, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(x)
        assert expected.std() > 1e-3
        torch.testing.assert_close(trainable.graph(x), expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(trainable.graph(x[:1]), expected[:1], atol=1e-5, rtol=1e-4)


def kinds(trainable: Trainable) -> list[str]:
    return [type(module).__name__ for module in trainable.graph.children()]


def test_data_movement_leaves_no_step(tmp_path: Path) -> None:
    trainable = imported(exported(build("gru"), tmp_path, script=False), tmp_path)
    assert kinds(trainable) == ["GRU", "Linear"]
    assert [n.op for n in trainable.graph.graph.nodes].count("call_function") == 0
    layer = next(iter(trainable.graph.children()))
    assert layer.sequence is False


def test_projections_of_attention_are_layers_of_their_own(tmp_path: Path) -> None:
    trainable = imported(exported(build("first token"), tmp_path, script=False), tmp_path)
    assert kinds(trainable) == ["Linear"] * 4 + ["Softmax", "Linear", "LayerNorm", "Linear"]
    functions = [n.target.__name__ for n in trainable.graph.graph.nodes if n.op == "call_function"]
    assert functions == ["scores_of", "mix", "add", "select"]


def recurrent(kind: str, **attributes: object) -> tuple[list[onnx.NodeProto], list]:
    """x [1, 10, 6] -> time first -> one layer of 4 units -> the states' mean."""
    rows = 4 * {"GRU": 3, "LSTM": 4}[kind]
    inputs = attributes.pop("inputs", "t w r b")
    made = helper.make_node(
        kind, str(inputs).split(" "), ["s"], name="cell", hidden_size=4, **attributes
    )
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        made,
        node("Squeeze", "s axes", "q"),
        node("ReduceMean", "q", "y", axes=[0], keepdims=0),
    ]
    constants = [
        constant("w", 1, rows, 6), constant("r", 1, rows, 4), constant("b", 1, 2 * rows),
        constant("p", 1, 12), constant("h", 1, 1, 4), integers("axes", 1),
        numpy_helper.from_array(np.array([10], np.int32), "lengths"),
    ]  # fmt: skip
    return nodes, constants


REFUSED = {
    "peepholes": ("LSTM", {"inputs": "t w r b    p"}, "peephole"),
    "lengths": ("GRU", {"inputs": "t w r b lengths", "linear_before_reset": 1}, "variable length"),
    "initial state": ("GRU", {"inputs": "t w r b  h", "linear_before_reset": 1}, "not zero"),
    "reset before": ("GRU", {}, "linear_before_reset=0"),
    "activations": ("LSTM", {"activations": ["Sigmoid", "Relu", "Relu"]}, "activations"),
    "clip": ("LSTM", {"clip": 3.0}, "clipping"),
    "coupled gates": ("LSTM", {"input_forget": 1}, "input_forget"),
    "computed weights": ("LSTM", {"inputs": "t t r b"}, "computed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_variants_without_a_kernel_are_refused_by_name(case: str, tmp_path: Path) -> None:
    kind, attributes, reason = REFUSED[case]
    nodes, constants = recurrent(kind, **attributes)
    with pytest.raises(UnsupportedOperators, match=reason) as refused:
        imported(graph(nodes, SHAPE, constants), tmp_path)
    assert (kind, "cell") in [(op, name) for op, name, _ in refused.value.operators]


def test_a_plain_recurrent_layer_is_refused(tmp_path: Path) -> None:
    made = helper.make_node("RNN", ["t", "w", "r"], ["s"], name="cell", hidden_size=4)
    nodes = [node("Transpose", "x", "t", perm=[1, 0, 2]), made, node("Flatten", "s")]
    constants = [constant("w", 1, 4, 6), constant("r", 1, 4, 4)]
    with pytest.raises(UnsupportedOperators, match="only GRU and LSTM"):
        imported(graph(nodes, SHAPE, constants), tmp_path)


def test_a_masked_attention_is_refused(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "x", "k", perm=[0, 2, 1]),
        node("MatMul", "x k", "scores"),
        node("Add", "scores mask", "masked"),
        node("Softmax", "masked", "weights", axis=-1),
        node("MatMul", "weights x"),
    ]
    mask = numpy_helper.from_array(np.triu(np.full((10, 10), -9.0, np.float32), 1), "mask")
    with pytest.raises(UnsupportedOperators, match="Add"):
        imported(graph(nodes, SHAPE, [mask]), tmp_path)
