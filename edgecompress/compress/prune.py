"""Structured pruning: whole channels leave, the network gets narrower and stays dense."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch

from edgecompress.compress.channels import ChannelMap, makes_channels, map_channels
from edgecompress.compress.criteria import Criterion, channel_scores
from edgecompress.compress.groups import group_labels
from edgecompress.compress.layers import layer_name
from edgecompress.compress.narrow import kept, narrow
from edgecompress.compress.repair import repair
from edgecompress.errors import BadInput
from edgecompress.model.trainable import Trainable


def prune(
    trainable: Trainable,
    widths: Mapping[str, int],
    *,
    criterion: Criterion = "l2",
    calibration: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    repaired: bool = False,
) -> Trainable:
    """Keeps exactly `widths[group]` channels of each named group; the argument is not changed.

    Kept are the channels that matter most by `criterion`. With "l2", a channel made by several
    layers (a residual stage) counts the squares of all of them, each relative to its layer's mean,
    so that no layer decides alone by having larger weights. Ties keep the lower index, order is
    preserved, and a producer always keeps its strongest channel.

    Args:
        widths: group name (see `find_groups`) -> channels to keep, 1..channels. Groups not named
            keep theirs.
        criterion: see `criteria`.
        calibration: [N, ...] float32, for criteria that look at activations and for `repaired`.
        labels: [N] int64 classes of `calibration`, for "taylor".
        repaired: least-squares repair of the layers that lose inputs, see `repair`.

    Raises:
        BadInput: an unknown group, a width that is out of range, a criterion that says nothing
            about a named group, or no calibration where it is needed.
    """
    channels = map_channels(trainable)
    groups = group_labels(trainable, channels)
    for name, width in widths.items():
        _check(name, width, groups)
    if repaired and calibration is None:
        raise BadInput("Least-squares repair needs data.", next_step="Give calibration inputs.")
    removed: set[int] = set()
    narrowed = [name for name, width in widths.items() if width < len(groups[name])]
    scores: dict[int, float] = {}
    if narrowed:
        scores = channel_scores(trainable, channels, criterion, calibration, labels)
    for name in narrowed:
        _check_scored(name, groups[name], scores, criterion)
        removed.update(_weakest(trainable, channels, groups[name], widths[name], scores))
    graph = copy.deepcopy(trainable.graph)
    if removed:
        narrow(graph, trainable.graph, channels, removed)
    pruned = replace(trainable, graph=graph)
    if not (repaired and removed):
        return pruned
    assert calibration is not None
    return repair(trainable, pruned, _kept_outputs(trainable, channels, removed), calibration)


def least_width(trainable: Trainable, channels: ChannelMap, labels: list[int]) -> int:
    """The fewest channels a group can have with none of its producers left empty."""
    return len(_needed(trainable, channels, labels))


def _check(name: str, width: int, groups: dict[str, list[int]]) -> None:
    if name not in groups:
        known = ", ".join(groups) or "none"
        raise BadInput(f"'{name}' is not a group of channels that can be pruned.",
                       next_step=f"Groups of this model: {known}.")  # fmt: skip
    if not 1 <= width <= len(groups[name]):
        raise BadInput(
            f"Group '{name}' has {len(groups[name])} channels, its width cannot become {width}.",
            next_step=f"Give a width from 1 to {len(groups[name])}.",
        )


def _check_scored(
    name: str, labels: list[int], scores: Mapping[int, float], criterion: Criterion
) -> None:
    missing = sum(label not in scores for label in labels)
    if missing:
        lacks = {"batchnorm": "BatchNorm layer", "apoz": "ReLU"}.get(criterion, "reading layer")
        raise BadInput(
            f"The criterion '{criterion}' says nothing about {missing} of {len(labels)} channels "
            f"of group '{name}': no {lacks} follows them.",
            next_step="Use another criterion, such as l2.",
        )


def _weakest(
    trainable: Trainable,
    channels: ChannelMap,
    labels: list[int],
    width: int,
    scores: Mapping[int, float],
) -> set[int]:
    """The labels to remove so that `width` stay and no producer is left empty."""
    ranked = sorted(labels, key=lambda label: (-scores[label], label))
    needed = _needed(trainable, channels, ranked)
    if len(needed) > width:
        raise BadInput(
            f"{len(needed)} layers make separate channels of one group; it cannot have {width}.",
            next_step=f"Give a width of at least {len(needed)}.",
        )
    rest = [label for label in ranked if label not in needed]
    staying = {*needed, *rest[: width - len(needed)]}
    return set(labels) - staying


def _needed(trainable: Trainable, channels: ChannelMap, ranked: list[int]) -> list[int]:
    """The first label in `ranked` of each producer that no earlier producer's choice serves."""
    needed: list[int] = []
    for node in trainable.graph.graph.nodes:
        if not makes_channels(node):
            continue
        own = set(channels.of(node).tolist())
        if not own.isdisjoint(ranked) and own.isdisjoint(needed):
            needed.append(next(label for label in ranked if label in own))
    return needed


def _kept_outputs(
    trainable: Trainable, channels: ChannelMap, removed: set[int]
) -> dict[str, torch.Tensor]:
    """Conv or dense layer -> positions of its outputs that stay, int64."""
    return {
        layer_name(node): kept(channels.of(node), removed)
        for node in trainable.graph.graph.nodes
        if makes_channels(node)
    }
