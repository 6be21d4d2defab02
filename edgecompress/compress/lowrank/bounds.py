"""Which factorizations a layer can take, their full ranks, and how many weights they leave."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

from edgecompress.records import LowRank

Layer = nn.Conv2d | nn.Linear
LowRankMethod = Literal["svd", "tucker2", "cp", "spatial"]


def methods_of(layer: nn.Module) -> dict[LowRankMethod, tuple[int, ...]]:
    """Method -> full ranks, the usual one first; empty where no factorization applies.

    Dense and 1x1 conv: svd (min(I, O),). Larger conv: tucker2 (I, O), each at most what the other
    sides of the weight allow; cp at most what a matrix unfolding holds; spatial where both sides of
    the kernel exceed 1. Grouped and depthwise convolutions take none.
    """
    if isinstance(layer, nn.Linear):
        return {"svd": (min(layer.in_features, layer.out_features),)}
    if not isinstance(layer, nn.Conv2d) or layer.groups != 1 or layer.padding_mode != "zeros":
        return {}
    rows, columns = layer.in_channels, layer.out_channels
    tall, wide = layer.kernel_size
    area = tall * wide
    if area == 1:
        return {"svd": (min(rows, columns),)} if layer.padding == (0, 0) else {}
    found: dict[LowRankMethod, tuple[int, ...]] = {
        "tucker2": (min(rows, columns * area), min(columns, rows * area))
    }
    if min(tall, wide) > 1:
        found["spatial"] = (min(rows * tall, columns * wide),)
    sides = (columns, rows, tall, wide)
    found["cp"] = (min(columns * rows * area // side for side in sides),)
    return found


def largest_ranks(layer: nn.Module) -> tuple[LowRankMethod, tuple[int, ...]] | None:
    """The usual method for a layer and its full ranks, or None where no factorization applies."""
    return next(iter(methods_of(layer).items()), None)


def factored_weights(layer: Layer, choice: LowRank) -> int:
    """Weights of the factors, biases left out."""
    columns, rows = layer.weight.shape[:2]
    tall, wide = layer.kernel_size if isinstance(layer, nn.Conv2d) else (1, 1)
    first, *rest = choice.ranks
    if choice.method == "tucker2":
        return rows * first + first * rest[0] * tall * wide + rest[0] * columns
    if choice.method == "spatial":
        return first * (rows * tall + columns * wide)
    if choice.method == "cp":
        return first * (rows + columns + sum(side for side in (tall, wide) if side > 1))
    return first * (rows + columns)


def factored_macs(layer: Layer, choice: LowRank, inputs: int, outputs: int) -> int:
    """Multiply-accumulates of the factors; what strides on one axis alone counts as between both.

    Args:
        inputs, outputs: positions of the map the layer reads, and of the one it makes.
    """
    columns, rows = layer.weight.shape[:2]
    tall, wide = layer.kernel_size if isinstance(layer, nn.Conv2d) else (1, 1)
    between = math.isqrt(inputs * outputs)
    first, *rest = choice.ranks
    if choice.method == "tucker2":
        core = first * rest[0] * tall * wide
        return rows * first * inputs + (core + rest[0] * columns) * outputs
    if choice.method == "spatial":
        return first * (rows * tall * between + columns * wide * outputs)
    if choice.method == "cp":
        return first * (rows * inputs + tall * between + (wide + columns) * outputs)
    return first * (rows + columns) * outputs
