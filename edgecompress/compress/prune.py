"""Structured pruning: whole channels leave, the network gets narrower and stays dense."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from edgecompress.compress.criteria import Criterion, channel_scores
from edgecompress.compress.groups import (
    ChannelMap,
    group_labels,
    makes_channels,
    map_channels,
)
from edgecompress.compress.layers import (
    input_nodes,
    is_depthwise,
    kind_of,
    layer_name,
)
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
        _narrow(graph, trainable.graph, channels, removed)
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
    kept = {*needed, *rest[: width - len(needed)]}
    return set(labels) - kept


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
        layer_name(node): _kept(channels.of(node), removed)
        for node in trainable.graph.graph.nodes
        if makes_channels(node)
    }


def _narrow(
    graph: torch.fx.GraphModule,
    original: torch.fx.GraphModule,
    channels: ChannelMap,
    removed: set[int],
) -> None:
    """Slices every layer of `graph`, a copy of `original`, to the channels that stay."""
    done: set[str] = set()
    for node, twin in zip(original.graph.nodes, graph.graph.nodes, strict=True):
        if kind_of(node) == "reshape":
            _resize_reshape(twin, channels.of(node), removed)
        if node.op != "call_module" or layer_name(node) in done:
            continue
        done.add(layer_name(node))
        module = graph.get_submodule(layer_name(node))
        sources = input_nodes(node)
        keep_in = _kept(channels.of(sources[0]), removed)
        keep_out = _kept(channels.of(node), removed)
        if isinstance(module, nn.Conv2d | nn.Linear):
            _slice_weighted(module, keep_in, keep_out)
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            _slice_norm(module, keep_out)
    graph.recompile()


def _kept(labels: np.ndarray, removed: set[int]) -> torch.Tensor:
    """Positions that stay, int64."""
    return torch.tensor([at for at, label in enumerate(labels) if int(label) not in removed])


def _slice_weighted(
    module: nn.Conv2d | nn.Linear, keep_in: torch.Tensor, keep_out: torch.Tensor
) -> None:
    weight = module.weight.detach()[keep_out]
    if isinstance(module, nn.Linear):
        module.in_features, module.out_features = len(keep_in), len(keep_out)
        weight = weight[:, keep_in]
    elif is_depthwise(module):
        module.groups = len(keep_in)
    elif module.groups == 1:
        weight = weight[:, keep_in]
    if isinstance(module, nn.Conv2d):
        module.in_channels, module.out_channels = len(keep_in), len(keep_out)
    module.weight = nn.Parameter(weight.clone())
    if module.bias is not None:
        module.bias = nn.Parameter(module.bias.detach()[keep_out].clone())


def _slice_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, keep: torch.Tensor) -> None:
    module.num_features = len(keep)
    if module.affine:
        module.weight = nn.Parameter(module.weight.detach()[keep].clone())
        module.bias = nn.Parameter(module.bias.detach()[keep].clone())
    if module.running_mean is not None and module.running_var is not None:
        module.running_mean = module.running_mean[keep].clone()
        module.running_var = module.running_var[keep].clone()


def _resize_reshape(node: torch.fx.Node, labels: np.ndarray, removed: set[int]) -> None:
    """A reshape to [batch, features] has the number of features written into it."""
    features = len(_kept(labels, removed))

    def resized(value: Any) -> Any:
        return type(value)([*value[:-1], features]) if len(value) == 2 and value[-1] > 0 else value

    if len(node.args) > 1:
        node.args = (node.args[0], resized(node.args[1]))
    else:
        node.kwargs = {**node.kwargs, "shape": resized(node.kwargs["shape"])}
