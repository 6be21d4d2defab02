from __future__ import annotations

import numpy as np
import pytest
import torch
import torch_pruning
from small_networks import NETWORKS, Branches, Mobile, Residual, seeded, trainable
from test_groups import ConcatenatedSkip
from torch import nn

from edgecompress.compress.groups import find_groups
from edgecompress.compress.prune import prune
from edgecompress.errors import BadInput
from edgecompress.model.trainable import Trainable


def random_inputs(count: int = 8) -> torch.Tensor:
    return torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def relative_squares(weight: torch.Tensor) -> torch.Tensor:
    squares = weight.square().flatten(1).sum(1)
    return squares / squares.mean()


@pytest.mark.parametrize("build", NETWORKS)
def test_every_group_gets_exactly_its_width_and_the_network_runs(build: type[nn.Module]) -> None:
    before = seeded(build)
    widths = {group.name: 1 + group.channels // 3 for group in find_groups(before)}
    after = prune(before, widths)
    assert {group.name: group.channels for group in find_groups(after)} == widths
    assert after.graph(random_inputs()).shape == before.graph(random_inputs()).shape


@pytest.mark.parametrize("build", NETWORKS)
def test_full_widths_change_nothing(build: type[nn.Module]) -> None:
    before = seeded(build)
    after = prune(before, {group.name: group.channels for group in find_groups(before)})
    assert torch.equal(after.graph(random_inputs()), before.graph(random_inputs()))


@pytest.mark.parametrize("build", [Residual, Mobile])
def test_removing_silent_channels_is_exact(build: type[nn.Module]) -> None:
    """A channel whose filters and BatchNorm are all zero can go without changing any output."""
    before = seeded(build)
    widths = {}
    for group in find_groups(before):
        silence(before, group.producers + group.followers, group.channels, keep=2)
        widths[group.name] = group.channels - 2
    after = prune(before, widths)
    difference = after.graph(random_inputs()) - before.graph(random_inputs())
    assert difference.abs().max() < 1e-5


def silence(trainable: Trainable, layers: tuple[str, ...], channels: int, keep: int) -> None:
    """Zeroes channels 0 .. keep-1 of every layer of a group."""
    for name in layers:
        module = trainable.graph.get_submodule(name)
        assert module.weight.shape[0] == channels
        with torch.no_grad():
            module.weight[:keep] = 0
            if module.bias is not None:
                module.bias[:keep] = 0
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean[:keep] = 0


def test_residual_partners_lose_the_channel_with_the_least_coupled_norm() -> None:
    before = seeded(Residual)
    stem, conv2 = (before.graph.get_submodule(name).weight.detach() for name in ("stem", "conv2"))
    squares = relative_squares(stem) + relative_squares(conv2)
    keep = squares.argsort(descending=True)[:5].sort().values
    after = prune(before, {"stem": 5}).graph
    assert torch.equal(after.get_submodule("stem").weight, stem[keep])
    assert torch.equal(after.get_submodule("conv2").weight, conv2[keep])
    conv1 = before.graph.get_submodule("conv1").weight.detach()
    assert torch.equal(after.get_submodule("conv1").weight, conv1[:, keep])


@pytest.mark.parametrize(
    ("build", "name"),
    [(Residual, "stem"), (Residual, "conv3"), (Mobile, "stem"), (Mobile, "pointwise")],
)
def test_partners_agree_with_torch_pruning(build: type[nn.Module], name: str) -> None:
    """The independent DependencyGraph removes the same channels from the same layers."""
    before = seeded(build)
    producers = {group.name: group.producers for group in find_groups(before)}[name]
    ours = prune(before, {name: 3}).graph
    weights = [before.graph.get_submodule(one).weight for one in producers]
    squares = torch.stack([relative_squares(weight.detach()) for weight in weights]).sum(0)
    drop = squares.argsort(descending=True)[3:].sort().values.tolist()
    theirs = seeded(build).graph
    dependency = torch_pruning.DependencyGraph().build_dependency(theirs, torch.zeros(1, 1, 16, 16))
    layer = theirs.get_submodule(name)
    prune_out = torch_pruning.prune_conv_out_channels
    dependency.get_pruning_group(layer, prune_out, idxs=drop).prune()
    expected = theirs.state_dict()
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in expected.items()
    }
    for key, value in ours.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_the_argument_is_untouched_and_runs_are_equal() -> None:
    before = seeded(Branches)
    reference = before.graph(random_inputs())
    first, second = (prune(before, {"mix": 3, "left": 2}) for _ in range(2))
    assert torch.equal(before.graph(random_inputs()), reference)
    for one, other in zip(first.graph.parameters(), second.graph.parameters(), strict=True):
        assert torch.equal(one, other)


def test_no_producer_of_a_mixed_group_is_emptied() -> None:
    before = trainable(ConcatenatedSkip())
    with torch.no_grad():
        before.graph.get_submodule("a").weight.mul_(1e-3)
        before.graph.get_submodule("c").weight.mul_(1e-3)
    after = prune(before, {"a": 2}).graph
    assert [after.get_submodule(name).out_channels for name in "abc"] == [1, 1, 2]
    assert np.isfinite(after(random_inputs()).detach().numpy()).all()


@pytest.mark.parametrize("width", [0, -1, 9])
def test_width_out_of_range_is_refused(width: int) -> None:
    with pytest.raises(BadInput, match="'conv1' has 8 channels"):
        prune(seeded(Residual), {"conv1": width})


def test_unknown_group_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match="stem, conv1, conv3"):
        prune(seeded(Residual), {"conv2": 4})
