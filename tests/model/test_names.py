"""Layer names read like the module paths of the network they came from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import user_models

from edgecompress.model.load import load_source
from edgecompress.model.names import identifier, unique
from edgecompress.model.trainable import to_trainable

SHAPE = (1, 3, 16, 16)
EXPORTS = {
    "torchscript": {"dynamo": False},
    "torchscript, free batch, BatchNormalization kept": {
        "dynamo": False,
        "input_names": ["x"],
        "dynamic_axes": {"x": {0: "N"}},
        "training": torch.onnx.TrainingMode.PRESERVE,
        "do_constant_folding": False,
    },
    "dynamo": {"dynamo": True, "verbose": False},
}


@pytest.mark.parametrize("case", EXPORTS)
@pytest.mark.filterwarnings("ignore")
def test_files_from_torchs_exporters(case: str, tmp_path: Path):
    module = user_models.mixed().eval()
    torch.onnx.export(module, (torch.zeros(SHAPE),), tmp_path / "net.onnx", **EXPORTS[case])
    trainable = to_trainable(load_source(str(tmp_path / "net.onnx")))
    names = {node.name for node in trainable.graph.graph.nodes}
    assert {"entry", "act", "depthwise", "add", "relu", "concat", "head", "softmax"} <= names
    x = torch.rand(3, *SHAPE[1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(trainable.graph(x), module(x), atol=1e-5, rtol=0)


def test_unsupported_nodes_of_a_module_are_named_by_their_path():
    names = {n.op_type: n.name for n in load_source("user_models:recurrent").onnx.graph.node}
    assert names["GRU"].startswith("gru")


@pytest.mark.parametrize(
    ("text", "name"),
    [("stage2.0.conv1", "stage2_0_conv1"), ("0", "layer_0"), ("a//b:c", "a_b_c"), ("", "layer_")],
)
def test_identifier(text: str, name: str):
    assert identifier(text) == name
    assert name.isidentifier()


def test_unique_counts_on():
    assert unique("a", set()) == "a"
    assert unique("a", {"a"}) == "a_2"
    assert unique("a", {"a", "a_2"}) == "a_3"
