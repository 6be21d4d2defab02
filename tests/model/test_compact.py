"""Students: sizes are right, seeds decide the weights, and every family can be quantized."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgecompress.compress.groups import find_groups
from edgecompress.compress.quantize import quantize
from edgecompress.errors import BadInput
from edgecompress.model.compact import Student, students
from edgecompress.model.reference import run_onnx

SHAPES = [(1, 3, 32, 32), (1, 6, 128), (1, 128, 6), (1, 1, 49, 10), (1, 20)]


@pytest.mark.parametrize("shape", SHAPES)
def test_largest_first_and_within_the_budget(shape: tuple[int, ...]) -> None:
    everything = students(shape, 10)
    assert [s.macs for s in everything] == sorted((s.macs for s in everything), reverse=True)
    assert len({s.name for s in everything}) == len(everything)
    middle = everything[len(everything) // 2]
    budget = {"flash_bytes": middle.weight_bytes, "ram_bytes": middle.peak_bytes}
    kept = students(shape, 10, macs=middle.macs, **budget)
    assert middle in kept
    assert 0 < len(kept) < len(everything)
    assert all(s.weight_bytes <= middle.weight_bytes for s in kept)
    assert students(shape, 10) == everything


def smallest(shape: tuple[int, ...], family: str) -> Student:
    return [s for s in students(shape, 5) if s.family == family and s.depth == 2][-1]


@pytest.mark.parametrize("family", ["ds_cnn", "mobilenet", "mcunet"])
@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 40, 6)])
def test_promised_sizes_are_those_of_the_network(shape: tuple[int, ...], family: str) -> None:
    student = smallest(shape, family)
    trainable = student.trainable(seed=3)
    layers = [m for m in trainable.graph.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    weights = sum(layer.weight.numel() + 8 * len(layer.weight) for layer in layers)
    assert weights == student.weight_bytes
    x = np.random.default_rng(0).normal(size=(4, *shape[1:])).astype(np.float32)
    with torch.no_grad():
        assert tuple(trainable.graph(torch.from_numpy(x)).shape) == (4, 5)
    assert find_groups(trainable)
    made = run_onnx(quantize(trainable, x, name=student.name), x)
    assert made.shape == (4, 5)


def test_a_seed_decides_the_weights_and_nothing_else() -> None:
    student = smallest((1, 3, 32, 32), "mobilenet")
    torch.manual_seed(5)
    before = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (student.trainable(seed) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), before)
    pairs = zip(first.graph.parameters(), second.graph.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    assert not torch.equal(first.graph.stem_conv.weight, other.graph.stem_conv.weight)


def test_an_autoencoder_gives_back_as_many_values() -> None:
    student = students((1, 64), 0, "autoencoder")[-1]
    assert tuple(student.trainable().graph(torch.zeros(2, 64)).shape) == (2, 64)


def test_what_no_family_serves_is_refused() -> None:
    with pytest.raises(BadInput, match=r"\[1, 3, 8, 8, 8\]"):
        students((1, 3, 8, 8, 8), 10)
    with pytest.raises(BadInput, match="plain features"):
        students((1, 3, 32, 32), 10, "autoencoder")
    with pytest.raises(BadInput, match="at least one output"):
        students((1, 3, 32, 32), 0)
