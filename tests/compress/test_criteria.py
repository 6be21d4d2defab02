"""Each criterion keeps the channels its paper would keep, on networks small enough to see why."""

from __future__ import annotations

import pytest
import torch
from small_networks import Mobile, Residual, seeded, trainable
from torch import nn

from edgecompress.compress.criteria import CRITERIA, NEED_DATA, Criterion, channel_scores
from edgecompress.compress.groups import map_channels
from edgecompress.compress.prune import prune
from edgecompress.errors import BadInput
from edgecompress.model.trainable import Trainable

X = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Four(nn.Module):
    """A 1x1 conv with four channels, BatchNorm, ReLU, and a head that reads their means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 1)
        self.norm = nn.BatchNorm2d(4, eps=0.0)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.flatten(self.pool(self.relu(self.norm(self.conv(x))))))


def four() -> Trainable:
    """Every criterion finds another channel least important (see the comments)."""
    network = Four()
    with torch.no_grad():
        network.conv.weight.copy_(torch.tensor([0.5, 1.0, 2.0, 3.0]).reshape(4, 1, 1, 1))
        network.conv.bias.copy_(torch.tensor([0.0, 0.0, -1.5, 0.0]))  # 2 is often negative
        network.head.weight.copy_(torch.tensor([[1.0, 1.0, 1.0, 0.01], [-1.0, -1.0, -1.0, 0.01]]))
        network.head.bias.zero_()
    made = torch.fx.symbolic_trace(network).eval()
    with torch.no_grad():
        made.norm.weight.copy_(torch.tensor([4.0, 0.1, 4.0, 1.0]))
        made.norm.bias.zero_()
    return Trainable(made, torch.zeros(1, 1, 4, 4), "image", "logits")


@pytest.mark.parametrize(
    ("criterion", "weakest"),
    [
        ("l1", 0),  # the smallest filter
        ("l2", 0),
        ("batchnorm", 1),  # the smallest gamma
        ("activation", 1),  # 0.1 * 1.0 x is the smallest activation
        ("apoz", 2),  # relu(2 x - 1.5) is zero for x < 0.75, the others never
        ("taylor", 3),  # the head gives both classes the same share of it
    ],
)
def test_criteria_choose_what_their_papers_say(criterion: Criterion, weakest: int) -> None:
    before = four()
    labels = (X.mean((1, 2, 3)) > 0.5).long()
    after = prune(before, {"conv": 3}, criterion=criterion, calibration=X, labels=labels)
    kept = [channel for channel in range(4) if channel != weakest]
    expected = before.graph.get_submodule("conv").weight.detach()[kept]
    assert torch.equal(after.graph.get_submodule("conv").weight, expected)


def test_taylor_is_the_first_order_change_of_the_loss() -> None:
    """Against autograd by hand: the mean of |sum over positions of dC/da * a| of each sample."""
    before = four()
    labels = torch.arange(len(X)) % 2
    channels = map_channels(before)
    scores = channel_scores(before, channels, "taylor", X, labels)
    graph = before.graph
    pooled = graph.relu(graph.norm(graph.conv(X))).mean((2, 3)).detach().requires_grad_()
    nn.functional.cross_entropy(graph.head(pooled), labels, reduction="sum").backward()
    expected = (pooled * pooled.grad).abs().mean(0)
    node = next(node for node in graph.graph.nodes if node.target == "conv")
    got = torch.tensor([scores[int(label)] for label in channels.of(node)])
    torch.testing.assert_close(got, expected.detach(), rtol=1e-4, atol=1e-7)


def test_taylor_predicts_the_cost_of_removing_one_channel() -> None:
    """On a smooth network with small activations first order is nearly all of the change."""
    before = four()
    with torch.no_grad():
        before.graph.get_submodule("head").weight.mul_(0.01)
    labels = torch.zeros(len(X), dtype=torch.int64)
    channels = map_channels(before)
    scores = channel_scores(before, channels, "taylor", X, labels)
    node = next(node for node in before.graph.graph.nodes if node.target == "conv")
    cross_entropy = nn.functional.cross_entropy
    whole = cross_entropy(before.graph(X), labels, reduction="none")
    for position, label in enumerate(channels.of(node)):
        silent = four()
        with torch.no_grad():
            silent.graph.get_submodule("head").weight.mul_(0.01)
            silent.graph.get_submodule("head").weight[:, position] = 0
        change = (cross_entropy(silent.graph(X), labels, reduction="none") - whole).abs().mean()
        assert scores[int(label)] == pytest.approx(change.item(), rel=0.05, abs=1e-6)


def test_taylor_counts_every_reader_of_a_residual_channel() -> None:
    """A channel no layer reads with any weight costs nothing; one read by a skip alone does."""
    before = seeded(Residual)
    with torch.no_grad():
        for name in ("conv1", "conv3", "skip"):
            before.graph.get_submodule(name).weight[:, 0] = 0
        for name in ("conv1", "conv3"):
            before.graph.get_submodule(name).weight[:, 1] = 0
    x = torch.randn(16, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    channels = map_channels(before)
    scores = channel_scores(before, channels, "taylor", x)
    stem = next(node for node in before.graph.graph.nodes if node.target == "stem")
    unread, by_the_skip = (scores[int(label)] for label in channels.of(stem)[:2])
    assert unread == 0 < by_the_skip


def test_models_that_do_not_classify_have_taylor_scores_too() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 1, 3))
    with torch.no_grad():
        network[2].weight[:, 4] = 0
    before = trainable(network, size=8)
    x = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    channels = map_channels(before)
    scores = channel_scores(before, channels, "taylor", x)
    first = next(node for node in before.graph.graph.nodes if node.op == "call_module")
    values = [scores[int(label)] for label in channels.of(first)]
    assert min(values) == values[4] == 0
    assert sorted(values)[1] > 0


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_are_repeatable_and_leave_the_model_alone(criterion: Criterion) -> None:
    before = four()
    state = {key: value.clone() for key, value in before.graph.state_dict().items()}
    channels = map_channels(before)
    first, second = (channel_scores(before, channels, criterion, X) for _ in range(2))
    assert first == second
    assert all(torch.equal(value, state[key]) for key, value in before.graph.state_dict().items())
    assert not before.graph.training
    assert all(parameter.grad is None for parameter in before.graph.parameters())


@pytest.mark.parametrize("criterion", sorted(NEED_DATA))
def test_no_data_where_it_is_needed(criterion: Criterion) -> None:
    with pytest.raises(BadInput, match=f"'{criterion}' looks at activations and needs data"):
        prune(four(), {"conv": 3}, criterion=criterion)


def test_a_group_without_batchnorm_is_named() -> None:
    with pytest.raises(BadInput, match=r"12 of 12 channels of group 'pointwise': no BatchNorm"):
        prune(seeded(Mobile), {"pointwise": 6}, criterion="batchnorm")


def test_an_unknown_criterion_lists_the_known_ones() -> None:
    with pytest.raises(BadInput, match="l1, l2, batchnorm, taylor, activation, apoz"):
        prune(four(), {"conv": 3}, criterion="weight")  # type: ignore[arg-type]
