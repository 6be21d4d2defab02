"""Cross-layer equalization: the function stays, the weights get even."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import NETWORKS, Mobile, seeded, trainable
from torch import nn

from edgecompress.compress.batchnorm import fold
from edgecompress.compress.quantize import QuantizeOptions, quantize
from edgecompress.compress.quantize.equalize import equalize
from edgecompress.model.reference import run_onnx

X = np.random.default_rng(0).normal(size=(48, 1, 16, 16)).astype(np.float32)


class Chain(nn.Module):
    """conv -> depthwise -> grouped -> conv -> pool -> flatten (with a map) -> dense."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, stride=2)
        self.grouped = nn.Conv2d(8, 12, 3, groups=4)
        self.relu = nn.ReLU()
        self.last = nn.Conv2d(12, 6, 1, bias=False)
        self.pool = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(54, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.first(x))
        x = self.relu(self.depthwise(x))
        x = self.relu(self.grouped(x))
        return self.head(self.flatten(self.pool(self.relu(self.last(x)))))


def uneven(network: nn.Module, seed: int = 0) -> nn.Module:
    """The same function with channels of `first` up to 1000 times larger or smaller."""
    generator = torch.Generator().manual_seed(seed)
    factor = 10 ** (3 * (torch.rand(8, generator=generator) - 0.5))
    with torch.no_grad():
        network.first.weight.mul_(factor[:, None, None, None])
        network.first.bias.mul_(factor)
        network.depthwise.weight.div_(factor[:, None, None, None])
    return network


@pytest.mark.parametrize("build", [*NETWORKS, Chain])
def test_the_function_is_unchanged(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = build()
    before = fold(trainable(uneven(network) if build is Chain else network))
    after = equalize(before)
    x = torch.from_numpy(X)
    with torch.no_grad():
        expected, made = before.graph(x), after.graph(x)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_ranges_of_neighbours_meet() -> None:
    torch.manual_seed(0)
    after = equalize(fold(trainable(uneven(Chain()))))
    first, depthwise, grouped, last = (
        after.graph.get_submodule(name).weight.detach()
        for name in ("first", "depthwise", "grouped", "last")
    )

    def rows(weight: torch.Tensor) -> torch.Tensor:
        return weight.flatten(1).abs().amax(1)

    torch.testing.assert_close(rows(first), rows(depthwise), rtol=0.02, atol=0)
    # Channel 2 g + i of the depthwise is input i of group g, read by outputs 3 g .. 3 g + 2.
    read = grouped.reshape(4, 3, 2, 3, 3).abs().amax((1, 3, 4)).flatten()
    torch.testing.assert_close(rows(depthwise), read, rtol=0.02, atol=0)
    torch.testing.assert_close(rows(grouped), last.abs().amax((0, 2, 3)), rtol=0.02, atol=0)


def test_relu6_and_second_readers_stop_a_pair() -> None:
    before = fold(seeded(Mobile))
    after = equalize(before)
    for name in ("stem", "depthwise"):  # both end in a ReLU6
        assert torch.equal(
            before.graph.get_submodule(name).weight, after.graph.get_submodule(name).weight
        )
    # pointwise -> relu -> max pool -> flatten -> dense is a pair.
    assert not torch.equal(
        before.graph.get_submodule("dense").weight, after.graph.get_submodule("dense").weight
    )


def test_per_tensor_quantization_of_uneven_channels_is_saved() -> None:
    torch.manual_seed(0)
    before = trainable(uneven(Chain()))
    expected = before.graph(torch.from_numpy(X)).detach().numpy()
    errors = {}
    for on in (False, True):
        options = QuantizeOptions(per_channel=False, equalize=on)
        outputs = run_onnx(quantize(before, X, name="chain", options=options), X)
        errors[on] = float(np.mean((outputs - expected) ** 2)) / float(expected.var())
    assert errors[True] < 0.05 * errors[False]
    assert errors[True] < 0.01
