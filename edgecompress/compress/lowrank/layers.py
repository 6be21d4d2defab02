"""Making the factors' layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgecompress.compress.lowrank.bounds import Layer


def window(layer: nn.Conv2d) -> dict[str, Any]:
    """How a convolution moves over the map."""
    names = ("kernel_size", "stride", "padding", "dilation")
    return {name: getattr(layer, name) for name in names}


def window_along(layer: nn.Conv2d, axis: int) -> dict[str, Any]:
    """The same along one axis of the map (0 down, 1 across), standing still along the other.

    Zeros around the map stay zeros after a convolution without bias, so padding splits as well.
    """
    still = {"kernel_size": 1, "stride": 1, "padding": 0, "dilation": 1}
    return {
        name: tuple(value[at] if at == axis else still[name] for at in (0, 1))
        for name, value in window(layer).items()
    }


def fill(layer: Layer, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Sets float32 weights, and the bias of a layer that has one (zeros for None)."""
    layer.weight = nn.Parameter(weight.reshape(layer.weight.shape).float())
    if layer.bias is not None:
        values = torch.zeros_like(layer.bias) if bias is None else bias.detach().clone()
        layer.bias = nn.Parameter(values)
