from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgecompress.model.float_onnx import to_float_onnx
from edgecompress.model.load import load_source
from edgecompress.model.reference import run_onnx
from edgecompress.model.trainable import Trainable, to_trainable


class Network(nn.Module):
    """Convolutions with every kind of neighbour, a residual addition and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.left = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.right = nn.Conv2d(8, 8, (1, 3), padding=(0, 1))
        self.relu = nn.ReLU6()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.norm(self.stem(x)))
        x = torch.cat([self.left(x) + x, self.right(x)], dim=1)
        return self.head(self.flatten(self.pool(torch.relu(x))))


def network(output: str = "scores") -> Trainable:
    torch.manual_seed(0)
    graph = torch.fx.symbolic_trace(Network()).eval()
    with torch.no_grad():
        graph.norm.running_mean.normal_()
        graph.norm.running_var.uniform_(0.5, 1.5)
    return Trainable(graph, torch.zeros(1, 1, 12, 12), "image", output)


X = np.random.default_rng(0).normal(size=(5, 1, 12, 12)).astype(np.float32)


def test_the_file_computes_what_the_graph_does_and_comes_back(tmp_path: Path) -> None:
    before = network()
    model = to_float_onnx(before, "net")
    wanted = before.graph(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(run_onnx(model, X), wanted, atol=1e-5)
    assert [model.graph.input[0].name, model.graph.output[0].name] == ["image", "scores"]
    onnx.save_model(model, tmp_path / "net.onnx")
    again = to_trainable(load_source(str(tmp_path / "net.onnx")))
    np.testing.assert_allclose(again.graph(torch.from_numpy(X)).detach().numpy(), wanted, atol=1e-5)
    weighted = [
        name
        for name, part in again.graph.named_modules()
        if isinstance(part, nn.Conv2d | nn.Linear)
    ]
    assert weighted == ["stem", "left", "right", "head"]
    assert any(isinstance(module, nn.BatchNorm2d) for module in again.graph.modules())


def test_the_same_weights_give_the_same_bytes_and_nothing_of_this_machine() -> None:
    first, second = (to_float_onnx(network(), "net").SerializeToString() for _ in range(2))
    assert first == second
    assert b".py" not in first


@pytest.mark.parametrize("output", ["linear", "relu"])
def test_any_output_name_is_possible(output: str) -> None:
    model = to_float_onnx(network(output), "net")
    assert model.graph.output[0].name == output
    assert run_onnx(model, X).shape == (5, 3)


def test_the_argument_keeps_its_mode() -> None:
    before = network()
    before.graph.train()
    to_float_onnx(before, "net")
    assert before.graph.training
