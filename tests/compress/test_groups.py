from __future__ import annotations

import torch
from small_networks import NETWORKS, Branches, Mobile, Residual, seeded, trainable
from torch import nn

from edgecompress.compress.groups import ChannelGroup, find_groups


def by_name(groups: list[ChannelGroup]) -> dict[str, ChannelGroup]:
    return {group.name: group for group in groups}


def test_residual_addition_couples_the_skip_with_the_block() -> None:
    groups = by_name(find_groups(seeded(Residual)))
    assert set(groups) == {"stem", "conv1", "conv3"}
    assert groups["stem"].producers == ("stem", "conv2")
    assert groups["stem"].consumers == ("conv1", "conv3", "skip")
    assert groups["stem"].followers == ("stem_norm",)
    assert groups["conv1"] == ChannelGroup("conv1", 8, ("conv1",), ("conv2",), ("norm1",))
    assert groups["conv3"].producers == ("conv3", "skip")
    assert groups["conv3"].consumers == ("head",)
    assert groups["conv3"].channels == 16


def test_depthwise_follows_its_producer_and_flatten_reaches_the_dense_layer() -> None:
    groups = by_name(find_groups(seeded(Mobile)))
    assert set(groups) == {"stem", "pointwise", "dense"}
    assert groups["stem"].followers == ("depthwise", "depthwise_norm")
    assert groups["stem"].consumers == ("pointwise",)
    assert groups["pointwise"].consumers == ("dense",)
    assert groups["pointwise"].channels == 12


def test_concatenation_keeps_the_branches_apart() -> None:
    groups = by_name(find_groups(seeded(Branches)))
    assert {name: group.channels for name, group in groups.items()} == {
        "left": 4,
        "right": 6,
        "mix": 8,
    }
    assert groups["left"].consumers == groups["right"].consumers == ("mix",)


def test_output_channels_are_never_prunable() -> None:
    for build in NETWORKS:
        for group in find_groups(seeded(build)):
            assert "head" not in group.producers


class ConcatenatedSkip(nn.Module):
    """cat(a, b) + c: c's first channels belong to a, its last to b."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 3, 3, padding=1)
        self.b = nn.Conv2d(1, 5, 3, padding=1)
        self.c = nn.Conv2d(1, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.a(x), self.b(x)], 1) + self.c(x))


def test_addition_to_a_concatenation_is_one_group_of_three_producers() -> None:
    (group,) = find_groups(trainable(ConcatenatedSkip()))
    assert group.producers == ("a", "b", "c")
    assert group.channels == 8


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3)
        self.grouped = nn.Conv2d(8, 8, 3, groups=2)
        self.last = nn.Conv2d(8, 6, 1)
        self.head = nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.last(self.grouped(self.first(x))))


def test_channels_around_a_grouped_convolution_are_fixed() -> None:
    assert [group.name for group in find_groups(trainable(Grouped()))] == ["last"]
