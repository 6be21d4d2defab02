from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import Branches, Residual, seeded
from torch import nn

from edgecompress.compress.prune import prune
from edgecompress.errors import BadData, BadInput
from edgecompress.model.trainable import Trainable


def images(count: int, seed: int, size: int = 16) -> torch.Tensor:
    """Smooth noise: channels computed from it are correlated, as in real networks."""
    noise = torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(seed))
    return nn.functional.avg_pool2d(noise, 5, 1, 2) * 4


class Two(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.relu = nn.ReLU()
        self.second = nn.Conv2d(8, 5, 3, stride=2, padding=1, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.relu(self.first(x)))


def two(bias: bool = True) -> Trainable:
    torch.manual_seed(1)
    graph = torch.fx.symbolic_trace(Two(bias)).eval()
    return Trainable(graph, torch.zeros(1, 1, 8, 8), "image", "map")


def error(before: Trainable, after: Trainable, x: torch.Tensor) -> float:
    with torch.no_grad():
        return float((before.graph(x) - after.graph(x)).square().mean())


@pytest.mark.parametrize("bias", [True, False])
def test_repair_finds_numpys_least_squares(bias: bool) -> None:
    """All 16 positions of an 8 x 8 map at stride 2 fit within those taken, so nothing is random."""
    before, x = two(bias), images(300, 0, 8)
    after = prune(before, {"first": 5}, calibration=x, repaired=True)
    with torch.no_grad():
        hidden = torch.relu(after.graph.get_submodule("first")(x))
        patches = nn.functional.unfold(hidden, 3, padding=1, stride=2).transpose(1, 2)
        rows = patches.reshape(-1, 45).double().numpy()
        wanted = before.graph(x).flatten(2).transpose(1, 2).reshape(-1, 5).double().numpy()
    if bias:
        rows = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    best, *_ = np.linalg.lstsq(rows, wanted, rcond=None)
    second = after.graph.get_submodule("second")
    got = second.weight.detach().double().numpy().reshape(5, 45).T
    np.testing.assert_allclose(got, best[:45], atol=4e-2 * np.abs(best).max())
    least = float(np.square(rows @ best - wanted).mean())
    assert least <= error(before, after, x) <= 1.001 * least


def test_a_channel_that_is_a_sum_of_others_is_not_missed() -> None:
    before = two()
    first, second = (before.graph.get_submodule(name) for name in ("first", "second"))
    with torch.no_grad():
        first.weight[7] = 1e-3 * first.weight[3]
        first.bias[7] = 1e-3 * first.bias[3]
        second.weight[:, 7] *= 1e3
    x = images(64, 0)
    bare = prune(before, {"first": 7})
    repaired = prune(before, {"first": 7}, calibration=x, repaired=True)
    assert error(before, repaired, images(32, 9)) < 1e-5 * error(before, bare, images(32, 9))


@pytest.mark.parametrize("build", [Residual, Branches])
def test_whole_networks_come_closer_on_inputs_not_seen(build: type[nn.Module]) -> None:
    before = seeded(build)
    residual = build is Residual
    widths = {"stem": 5, "conv1": 5, "conv3": 10} if residual else {"left": 3, "right": 4, "mix": 6}
    bare = prune(before, widths)
    repaired = prune(before, widths, calibration=images(128, 0), repaired=True)
    fresh = images(64, 5)
    assert error(before, repaired, fresh) < 0.7 * error(before, bare, fresh)
    shapes = [tuple(value.shape) for value in repaired.graph.parameters()]
    assert shapes == [tuple(value.shape) for value in bare.graph.parameters()]


def test_few_samples_do_no_harm() -> None:
    """The head has 384 unknowns a class: eight samples cannot decide them."""
    before, fresh = seeded(Branches), images(64, 5)
    bare = prune(before, {"mix": 6})
    repaired = prune(before, {"mix": 6}, calibration=images(8, 0), repaired=True)
    assert error(before, bare, fresh) > 1e-3
    assert error(before, repaired, fresh) < 1.1 * error(before, bare, fresh)


def test_repair_is_repeatable_and_needs_two_samples() -> None:
    x = images(16, 0)
    first, second = (prune(two(), {"first": 5}, calibration=x, repaired=True) for _ in range(2))
    for one, other in zip(first.graph.parameters(), second.graph.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(BadData, match="1 samples and needs at least 2"):
        prune(two(), {"first": 5}, calibration=x[:1], repaired=True)
    with pytest.raises(BadInput, match="repair needs data"):
        prune(two(), {"first": 5}, repaired=True)
