from __future__ import annotations

import pytest
import torch
from torch import nn

from edgecompress.compress.prune import prune
from edgecompress.plan.candidates import Problem, optimum
from edgecompress.plan.network import prunable_groups, read_network
from edgecompress.plan.probes import all_probes, stored_layers
from edgecompress.plan.sensitivity import measure, outputs
from edgecompress.progress import SILENT
from edgecompress.records import Budget, WeightStorage
from edgecompress.target import load_target

INT4 = WeightStorage(format="int4")
PROFILE = load_target("cortex-m7")


class Wide(nn.Module):
    """Three layers between the first and the last, one of them after a flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(8, 32, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 12, 3, stride=2, padding=1)
        self.hidden = nn.Linear(48, 24)
        self.head = nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv1(torch.relu(self.stem(x)))))
        x = torch.relu(self.conv2(x))
        return self.head(torch.relu(self.hidden(torch.flatten(x, 1))))


@pytest.fixture
def wide(as_trainable):
    torch.manual_seed(1)
    return as_trainable(Wide(), (1, 1, 8, 8))


@pytest.mark.parametrize("kind", ["residual", "wide"])
def test_a_narrowed_probe_computes_what_the_pruned_network_does(kind, splits, request):
    trainable = request.getfixturevalue(kind)
    x = torch.from_numpy(splits.validation.x)
    network, groups = read_network(trainable), prunable_groups(trainable)
    before = outputs(trainable, x)
    seen = 0
    for probe in all_probes(trainable, network, groups, x, ()):
        if probe.kind != "width":
            continue
        with probe.changed() as model:
            made = outputs(model, x)
        expected = outputs(prune(trainable, {probe.name: probe.option}), x)
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)
        with probe.changed() as model:
            assert not torch.equal(outputs(model, x), before)
        seen += 1
    assert seen >= len(groups)
    assert torch.equal(outputs(trainable, x), before)


def test_storages_are_measured_where_they_save_bytes(wide, splits):
    network = read_network(wide, prunable_groups(wide))
    assert stored_layers(network) == ["conv2", "conv1", "hidden"]
    calibration = torch.from_numpy(splits.train.x)
    half, most = (WeightStorage(format="sparse", sparsity=share) for share in (0.5, 0.9))
    choices = measure(wide, network, prunable_groups(wide), calibration, SILENT, (INT4, half, most))
    assert choices.formats["conv2"] == (INT4, half, most)
    for layer in choices.formats:
        four_bits, fewer, fewest = choices.format_damage[layer]
        assert 0 < four_bits < fewest
        assert fewer < fewest


def test_without_formats_none_is_offered(wide, splits):
    network = read_network(wide, prunable_groups(wide))
    calibration = torch.from_numpy(splits.train.x)
    assert measure(wide, network, prunable_groups(wide), calibration, SILENT).formats == {}


def test_low_rank_is_chosen_where_it_is_best(as_trainable, splits):
    """Dense layers of rank 4, as wide autoencoders have them: factors cost nothing, while four
    bits and fewer neurons do."""
    torch.manual_seed(3)
    layers = []
    for _ in range(2):
        dense = nn.Linear(64, 64)
        with torch.no_grad():
            dense.weight.copy_(torch.randn(64, 4) @ torch.randn(4, 64) / 4)
        layers += [dense, nn.ReLU()]
    deep = as_trainable(nn.Sequential(nn.Flatten(), *layers, nn.Linear(64, 3)), (1, 1, 8, 8))
    network, groups = read_network(deep, prunable_groups(deep)), prunable_groups(deep)
    calibration = torch.from_numpy(splits.train.x)
    choices = measure(deep, network, groups, calibration, SILENT, (INT4,))
    whole = Problem(network, PROFILE, Budget(), {}).predict({})
    problem = Problem(network, PROFILE, Budget(flash_bytes=whole.flash_bytes - 2_200), {})
    joint = optimum(problem, choices, "joint")
    assert joint is not None
    assert problem.fits(joint.predicted)
    assert {choice.method for choice in joint.low_rank.values()} == {"svd"}
    assert joint.widths == {group.name: group.channels for group in groups}
