"""The order of activations in memory that convolutions train fastest in.

Channels last, but for 1x1 convolutions with a stride. Where such a layer has few inputs, as pruned
ones do, oneDNN 3.12 (torch 2.13) writes past a buffer when it computes the gradient of the weights
on CPUs with AVX2 and no AVX-512: the gradient may be wrong, and the process may crash
(uxlfoundation/oneDNN issue 6035). Taking every stride-th pixel first is the same sum.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

_OVERRIDDEN = "_conv_forward"


def channels_last(graph: nn.Module) -> None:
    """In place, for training; undone by `usual_order`."""
    graph.to(memory_format=torch.channels_last)  # pyright: ignore
    for layer in graph.modules():
        if isinstance(layer, nn.Conv2d) and _is_strided_pointwise(layer):
            setattr(layer, _OVERRIDDEN, partial(_subsampled, layer.stride, layer.groups))


def usual_order(graph: nn.Module) -> None:
    """In place: as modules come from the importer."""
    graph.to(memory_format=torch.contiguous_format)  # pyright: ignore
    for layer in graph.modules():
        vars(layer).pop(_OVERRIDDEN, None)


def _is_strided_pointwise(layer: nn.Conv2d) -> bool:
    unpadded = layer.padding in ((0, 0), "valid")
    return layer.kernel_size == (1, 1) and layer.stride != (1, 1) and unpadded


def _subsampled(
    stride: tuple[int, ...],
    groups: int,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """A 1x1 convolution of every stride-th pixel of x [N, C, H, W]."""
    return nn.functional.conv2d(x[:, :, :: stride[0], :: stride[1]], weight, bias, groups=groups)
