from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import Mobile, Residual, seeded
from torch import nn

from edgecompress.compress.sparsify import (
    Gradual,
    apply_masks,
    cubic_sparsity,
    global_sparsity,
    hold,
    layer_sparsity,
    masks,
    sparse_layers,
    sparsify,
    zero_masks,
)
from edgecompress.errors import BadInput

X = torch.randn(32, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 0.999))
def test_each_layer_loses_exactly_its_smallest_weights(fraction: float) -> None:
    before = seeded(Residual)
    after = sparsify(before, layer_sparsity(before, fraction))
    for name in sparse_layers(before.graph):
        old = before.graph.get_submodule(name).weight.detach().numpy().ravel()
        new = after.graph.get_submodule(name).weight.detach().numpy().ravel()
        gone = int(np.ceil(fraction * old.size - 1e-9))
        assert (new == 0).sum() == gone
        assert np.array_equal(new[new != 0], old[new != 0])
        if 0 < gone < old.size:
            assert np.abs(old[new == 0]).max() <= np.abs(old[new != 0]).min()


def test_one_threshold_over_the_whole_network() -> None:
    before = seeded(Residual)
    after = sparsify(before, global_sparsity(before, 0.6))
    old, new = (
        torch.cat([graph.get_submodule(name).weight.flatten() for name in names]).detach()
        for graph, names in (
            (before.graph, sparse_layers(before.graph)),
            (after.graph, sparse_layers(before.graph)),
        )
    )
    assert int((new == 0).sum()) == -(-6 * new.numel() // 10)
    assert old[new == 0].abs().max() <= old[new != 0].abs().min()
    shares = global_sparsity(before, 0.6).values()
    assert max(shares) - min(shares) > 0.1


def test_no_layer_is_emptied_by_the_global_threshold() -> None:
    before = seeded(Residual)
    with torch.no_grad():
        before.graph.get_submodule("conv1").weight.mul_(1e-4)
    after = sparsify(before, global_sparsity(before, 0.9))
    assert int((after.graph.get_submodule("conv1").weight != 0).sum()) == 1


def test_depthwise_and_batchnorm_are_left_alone() -> None:
    before = seeded(Mobile)
    assert sparse_layers(before.graph) == ["stem", "pointwise", "dense", "head"]
    after = sparsify(before, layer_sparsity(before, 0.5))
    for name in ("depthwise", "depthwise_norm"):
        assert torch.equal(
            after.graph.get_submodule(name).weight, before.graph.get_submodule(name).weight
        )


def test_masks_outlive_training() -> None:
    before = seeded(Residual)
    kept = masks(before, layer_sparsity(before, 0.7))
    student = apply_masks(before, kept)
    optimizer = torch.optim.Adam(student.graph.parameters(), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        student.graph(X).square().mean().backward()
        optimizer.step()
        hold(student.graph, kept)
    for name, mask in kept.items():
        weight = student.graph.get_submodule(name).weight
        assert torch.equal(weight != 0, mask)
        assert not torch.equal(weight, before.graph.get_submodule(name).weight * mask)
    found = zero_masks(student)
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[name], kept[name]) for name in kept)


def test_the_schedule_is_zhu_and_guptas_cubic() -> None:
    """0 to 87.5 % in 100 steps: at half the time an eighth of that is still missing."""
    at = [cubic_sparsity(t, begin=10, end=110, final=0.875) for t in (0, 10, 60, 110, 500)]
    assert at == pytest.approx([0, 0, 0.875 * (1 - 0.5**3), 0.875, 0.875])
    from_half = cubic_sparsity(35, begin=10, end=110, final=0.9, initial=0.5)
    assert from_half == pytest.approx(0.9 + (0.5 - 0.9) * 0.75**3)
    steps = np.diff([cubic_sparsity(t, begin=0, end=50, final=0.8) for t in range(51)])
    assert (steps > 0).all()
    assert (np.diff(steps) < 0).all()
    assert cubic_sparsity(3, begin=3, end=3, final=0.5) == 0.5


def test_gradual_pruning_follows_the_schedule_and_never_revives_a_weight() -> None:
    student = seeded(Residual)
    optimizer = torch.optim.SGD(student.graph.parameters(), lr=0.05, momentum=0.9)
    gradual = Gradual({"conv3": 0.8, "head": 0.5}, begin=4, end=24, every=5)
    previous = torch.ones_like(student.graph.get_submodule("conv3").weight, dtype=torch.bool)
    seen: dict[int, float] = {}
    for step in range(1, 31):
        optimizer.zero_grad()
        student.graph(X).square().mean().backward()
        optimizer.step()
        gradual(student.graph, step)
        alive = student.graph.get_submodule("conv3").weight != 0
        assert not (alive & ~previous).any()
        previous, seen[step] = alive, 1 - float(alive.double().mean())
    for step in (4, 9, 14, 19, 24):
        wanted = cubic_sparsity(step, begin=4, end=24, final=0.8)
        assert seen[step] == pytest.approx(wanted, abs=1 / previous.numel())
    assert seen[12] == seen[9] < seen[14]
    assert seen[30] == seen[24] == pytest.approx(0.8, abs=1e-3)
    assert float((student.graph.get_submodule("head").weight == 0).double().mean()) == 0.5


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 3])
def test_sparsity_out_of_range(fraction: float) -> None:
    before = seeded(Residual)
    for make in (layer_sparsity, global_sparsity):
        with pytest.raises(BadInput, match=f"sparsity of {fraction:g}"):
            make(before, fraction)
    with pytest.raises(BadInput, match=f"'conv1' cannot have a sparsity of {fraction:g}"):
        masks(before, {"conv1": fraction})


@pytest.mark.parametrize("name", ["nothing", "norm1"])
def test_unknown_layers_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(BadInput, match=f"'{name}' to make sparse. Its layers are stem, conv1"):
        masks(seeded(Residual), {name: 0.5})


def test_a_model_without_weights_says_so() -> None:
    graph = torch.fx.symbolic_trace(nn.Sequential(nn.ReLU())).eval()
    empty = type(seeded(Residual))(graph, torch.zeros(1, 1, 4, 4), "image", "map")
    with pytest.raises(BadInput, match="no convolution or dense layer"):
        layer_sparsity(empty, 0.5)
