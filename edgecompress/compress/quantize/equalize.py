"""Cross-layer equalization: channels of very different size are brought to one size.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019,
section 4.1. A ReLU lets a positive factor pass, so for two layers in a row

    W2 relu(W1 x + b1) = (W2 S) relu(S^-1 (W1 x + b1))      S diagonal, positive

and s_i = sqrt(r1_i r2_i) / r2_i makes the ranges r1_i of channel i in W1 and r2_i in W2 equal
(equation 11). Pairs are visited until the factors settle.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn

from edgecompress.compress.layers import kind_of, layer_name, module_of
from edgecompress.model.trainable import Trainable

_PASSES = 40
_SETTLED = 1e-3
# What lets a factor of each channel through. ReLU6 does not: its bound would have to move as well.
_TRANSPARENT = frozenset({"relu", "maxpool", "avgpool", "globalpool", "pad", "identity"})

Pair = tuple[nn.Conv2d | nn.Linear, nn.Conv2d | nn.Linear]


def equalize(folded: Trainable) -> Trainable:
    """A copy that computes the same, up to float rounding, with evener weights.

    Pairs are layers joined by nothing but ReLU, pooling, zero padding or a flatten, where no other
    node reads what is between. BatchNorm must be folded.
    """
    graph = copy.deepcopy(folded.graph)
    pairs = _pairs(graph)
    for _ in range(_PASSES):
        moved = max((_equalize_pair(*pair) for pair in pairs), default=0.0)
        if moved < _SETTLED:
            break
    return replace(folded, graph=graph)


def _pairs(graph: torch.fx.GraphModule) -> list[Pair]:
    calls: dict[str, int] = {}
    for node in graph.graph.nodes:
        calls[layer_name(node)] = calls.get(layer_name(node), 0) + 1
    found: list[Pair] = []
    for node in graph.graph.nodes:
        if kind_of(node) not in ("conv", "linear"):
            continue
        reached = _next_layer(node)
        if reached is not None and calls[layer_name(node)] == calls[layer_name(reached)] == 1:
            first, second = module_of(node), module_of(reached)
            assert isinstance(first, nn.Conv2d | nn.Linear)
            assert isinstance(second, nn.Conv2d | nn.Linear)
            if _columns(second, len(first.weight)) is not None:
                found.append((first, second))
    return found


def _next_layer(node: torch.fx.Node) -> torch.fx.Node | None:
    """The weighted layer behind a chain of single-user transparent nodes.

    A flatten lays a convolution's channels out in runs; what it makes of a sequence is not taken.
    """
    is_map = kind_of(node) == "conv"
    while len(node.users) == 1:
        node = next(iter(node.users))
        kind = kind_of(node)
        if kind in ("conv", "linear"):
            return node
        transparent = kind in _TRANSPARENT or (kind == "flatten" and is_map)
        if not transparent or (kind == "pad" and float(module_of(node).value) != 0):  # type: ignore
            return None
    return None


def _columns(layer: nn.Conv2d | nn.Linear, channels: int) -> torch.Tensor | None:
    """A view [channels, rest...] of the weights that read each input channel.

    A dense layer behind a flatten reads every channel as often as its map has values.
    """
    weight = layer.weight.data
    if isinstance(layer, nn.Linear):
        if layer.in_features % channels:
            return None
        return weight.reshape(layer.out_features, channels, -1).transpose(0, 1)
    if layer.in_channels != channels or layer.padding_mode != "zeros":
        return None
    if layer.groups == 1:
        return weight.transpose(0, 1)
    # Group g holds output rows g*O/G ... and its own input columns.
    shape = (layer.groups, layer.out_channels // layer.groups, *weight.shape[1:])
    return weight.reshape(shape).transpose(1, 2).flatten(0, 1)


def _equalize_pair(first: nn.Conv2d | nn.Linear, second: nn.Conv2d | nn.Linear) -> float:
    """Scales both in place; how far the largest factor was from 1, as a logarithm."""
    with torch.no_grad():
        columns = _columns(second, len(first.weight))
        assert columns is not None
        mine = first.weight.data.flatten(1).abs().amax(1)
        theirs = columns.flatten(1).abs().amax(1)
        alive = (mine > 0) & (theirs > 0)
        ratio = torch.where(alive, mine, 1.0) / torch.where(alive, theirs, 1.0)
        factor = ratio.sqrt().clamp(1e-4, 1e4)
        first.weight.data.div_(factor.reshape((-1,) + (1,) * (first.weight.dim() - 1)))
        if first.bias is not None:
            first.bias.data.div_(factor)
        _scale_columns(second, factor)
        return float(factor.log().abs().max())


def _scale_columns(layer: nn.Conv2d | nn.Linear, factor: torch.Tensor) -> None:
    weight = layer.weight.data
    if isinstance(layer, nn.Linear):
        weight.mul_(factor.repeat_interleave(layer.in_features // len(factor)))
    elif layer.groups == 1:
        weight.mul_(factor.reshape(1, -1, 1, 1))
    else:
        inputs = weight.shape[1]
        rows = torch.arange(layer.out_channels) // (layer.out_channels // layer.groups)
        index = rows[:, None] * inputs + torch.arange(inputs)
        weight.mul_(factor[index][:, :, None, None])
