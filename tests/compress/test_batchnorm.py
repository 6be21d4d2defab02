from __future__ import annotations

import pytest
import torch
from small_networks import NETWORKS, Branches, Residual, seeded, trainable
from torch import nn

from edgecompress.compress.batchnorm import fold, reestimate
from edgecompress.errors import UnsupportedOperators

X = 2 + 3 * torch.randn(256, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("build", NETWORKS)
def test_fold_keeps_every_output_and_leaves_no_batchnorm(build: type[nn.Module]) -> None:
    before = seeded(build)
    after = fold(before)
    torch.testing.assert_close(after.graph(X), before.graph(X), rtol=1e-4, atol=1e-5)
    kinds = {type(module) for module in after.graph.modules()}
    assert kinds.isdisjoint({nn.BatchNorm1d, nn.BatchNorm2d, nn.Identity})
    assert any(isinstance(module, nn.BatchNorm2d) for module in before.graph.modules())


def test_a_batchnorm_without_a_layer_becomes_a_depthwise_of_its_name() -> None:
    norm = fold(seeded(Branches)).graph.get_submodule("norm")
    assert isinstance(norm, nn.Conv2d)
    assert norm.groups == norm.out_channels == 8


class LonelyNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.norm = nn.BatchNorm1d(256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.flatten(x))


def test_a_dense_batchnorm_without_a_layer_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedOperators, match="norm"):
        fold(trainable(LonelyNorm()))


class SharedConv(nn.Module):
    """One conv whose result is used with and without the BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return y + self.norm(y)


def test_a_layer_read_twice_is_not_changed_by_folding() -> None:
    before = trainable(SharedConv())
    torch.testing.assert_close(fold(before).graph(X), before.graph(X), rtol=1e-4, atol=1e-4)


def test_reestimate_takes_mean_and_variance_of_the_data() -> None:
    before = seeded(Residual)
    after = reestimate(before, X)
    stem = before.graph.get_submodule("stem")(X)
    norm = after.graph.get_submodule("stem_norm")
    torch.testing.assert_close(norm.running_mean, stem.mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(norm.running_var, stem.var((0, 2, 3)), rtol=2e-2, atol=1e-3)
    assert not after.graph.training
    assert norm.momentum == before.graph.get_submodule("stem_norm").momentum
    assert not torch.equal(norm.running_mean, before.graph.get_submodule("stem_norm").running_mean)
