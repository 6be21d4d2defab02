from __future__ import annotations

import pytest
import torch
from small_networks import NETWORKS, Branches, Residual, seeded, trainable
from test_groups import ConcatenatedSkip
from torch import nn

from edgecompress.compress.criteria import channel_scores
from edgecompress.compress.groups import find_groups, map_channels
from edgecompress.compress.prune import prune
from edgecompress.compress.widths import global_widths, kernel_multiple, uniform_widths
from edgecompress.errors import BadInput
from edgecompress.target import load_target


def test_uniform_widths_keep_the_share_of_every_group() -> None:
    assert uniform_widths(seeded(Residual), 0.5) == {"stem": 4, "conv1": 4, "conv3": 8}
    assert uniform_widths(seeded(Residual), 0.0) == {"stem": 8, "conv1": 8, "conv3": 16}


@pytest.mark.parametrize(("ratio", "widths"), [(0.2, (8, 12)), (0.4, (4, 8)), (0.95, (4, 4))])
def test_widths_are_what_kernels_like(ratio: float, widths: tuple[int, int]) -> None:
    made = uniform_widths(seeded(Residual), ratio, multiple_of=4)
    assert (made["stem"], made["conv3"]) == widths


def test_a_group_smaller_than_the_multiple_stays_whole() -> None:
    assert uniform_widths(seeded(Branches), 0.5, multiple_of=8) == {"left": 4, "right": 6, "mix": 8}


def test_no_producer_is_left_empty() -> None:
    assert uniform_widths(trainable(ConcatenatedSkip()), 0.95) == {"a": 2}


@pytest.mark.parametrize(
    ("target", "multiple"), [("cortex-m4", 4), ("cortex-m55", 8), ("aarch64", 8)]
)
def test_multiples_by_target(target: str, multiple: int) -> None:
    assert kernel_multiple(load_target(target)) == multiple


def test_global_widths_take_the_weakest_wherever_they_are() -> None:
    """Network slimming: the smallest half of all BatchNorm scales goes."""
    before = seeded(Residual)
    with torch.no_grad():
        before.graph.get_submodule("stem_norm").weight.copy_(torch.linspace(1, 2, 8))
        before.graph.get_submodule("norm1").weight.copy_(torch.linspace(0.6, 1.6, 8))
        before.graph.get_submodule("norm3").weight.copy_(torch.linspace(0.5, 2.5, 16))
    scores = channel_scores(before, map_channels(before), "batchnorm")
    scales = {
        "stem": torch.linspace(1, 2, 8),
        "conv1": torch.linspace(0.6, 1.6, 8),
        "conv3": torch.linspace(0.5, 2.5, 16),
    }
    threshold = torch.cat([*scales.values()]).sort().values[16]
    expected = {name: int((scale >= threshold).sum()) for name, scale in scales.items()}
    widths = global_widths(before, 0.5, scores, normalize=False)
    assert widths == expected
    assert sum(widths.values()) == 16
    pruned = prune(before, widths, criterion="batchnorm")
    assert {group.name: group.channels for group in find_groups(pruned)} == expected


def test_normalized_scores_do_not_depend_on_a_groups_scale() -> None:
    before = seeded(Residual)
    channels = map_channels(before)
    scores = channel_scores(before, channels, "l2")
    stem = next(node for node in before.graph.graph.nodes if node.target == "stem")
    scaled = {**scores, **{int(label): 1e3 * scores[int(label)] for label in channels.of(stem)}}
    assert global_widths(before, 0.4, scores) == global_widths(before, 0.4, scaled)


@pytest.mark.parametrize("build", NETWORKS)
def test_global_widths_can_be_pruned(build: type[nn.Module]) -> None:
    before = seeded(build)
    scores = channel_scores(before, map_channels(before), "l2")
    for ratio in (0.3, 0.9):
        widths = global_widths(before, ratio, scores)
        assert min(widths.values()) >= 1
        prune(before, widths).graph(torch.zeros(2, 1, 16, 16))


@pytest.mark.parametrize("ratio", [-0.1, 1.0, 7])
def test_ratio_out_of_range(ratio: float) -> None:
    with pytest.raises(BadInput, match=f"ratio of {ratio:g} is out of range"):
        uniform_widths(seeded(Residual), ratio)


def test_a_model_with_nothing_to_prune_says_so() -> None:
    with pytest.raises(BadInput, match="no prunable layer"):
        uniform_widths(trainable(nn.Sequential(nn.Conv2d(1, 4, 3))), 0.5)
