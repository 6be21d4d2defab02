"""The table of what each layer's rounding costs."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from small_networks import Branches, Mobile, Residual, seeded
from torch import nn

from edgecompress.compress.quantize import layer_sensitivity
from edgecompress.errors import BadData
from edgecompress.records import WeightStorage

X = np.random.default_rng(0).normal(size=(70, 1, 16, 16)).astype(np.float32)


def test_every_layer_and_format_has_a_row_and_coarser_is_worse() -> None:
    before = seeded(Residual)
    state = copy.deepcopy(before.graph.state_dict())
    rows = layer_sensitivity(before, X)
    assert [row.layer for row in rows[::4]] == ["stem", "conv1", "conv2", "conv3", "skip", "head"]
    assert [row.format for row in rows[:4]] == ["int8", "int4", "shared16", "shared4"]
    for start in range(0, len(rows), 4):
        int8, int4, shared16, shared4 = rows[start : start + 4]
        assert int8.sqnr_db > int4.sqnr_db > shared4.sqnr_db
        assert int8.sqnr_db > shared16.sqnr_db > shared4.sqnr_db
        assert int8.weight_bytes == 2 * int4.weight_bytes == 4 * shared4.weight_bytes
        assert int4.divergence is not None
        assert shared4.divergence is not None
        assert 0 <= int4.divergence < shared4.divergence
    after = before.graph.state_dict()
    assert all(torch.equal(state[name], after[name]) for name in state)


def test_figures_by_their_definitions() -> None:
    before = seeded(Mobile)
    storage = WeightStorage(format="sparse", sparsity=0.75)
    (row,) = [one for one in layer_sensitivity(before, X, [storage]) if one.layer == "head"]
    changed = copy.deepcopy(before.graph)
    weight = changed.get_submodule("head").weight
    kept = weight.detach().abs().flatten().sort(descending=True).values[9]
    weight.data[weight.abs() < kept] = 0
    with torch.no_grad():
        p, q = (graph(torch.from_numpy(X)).double() for graph in (before.graph, changed))
    # The bitmap of 40 weights and what is left of them.
    assert row.weight_bytes == 5 + 10
    assert row.divergence == pytest.approx(float((p * (p / q).log()).sum(1).mean()), rel=0.05)
    expected = 10 * np.log10(float(p.square().sum() / (p - q).square().sum()))
    assert row.sqnr_db == pytest.approx(expected, abs=0.3)
    assert row.top1_kept_percent == pytest.approx(
        100 * float((p.argmax(1) == q.argmax(1)).double().mean()), abs=3
    )


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.back = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.back(self.relu(self.conv(x)))


def test_outputs_that_are_no_classes_have_no_divergence() -> None:
    for row in layer_sensitivity(seeded(Encoder), X):
        assert row.divergence is None
        assert row.top1_kept_percent is None
        assert row.sqnr_db > 5


def test_nothing_to_measure_on_is_refused() -> None:
    with pytest.raises(BadData, match="at least one input"):
        layer_sensitivity(seeded(Branches), X[:0])
