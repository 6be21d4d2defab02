"""What a layer multiplies by its weights, as rows of a matrix."""

from __future__ import annotations

import torch
from torch import nn


def patches_of(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """[N, places, I * kh * kw] in the weight's own order, for maps x [N, I, H, W]."""
    assert not isinstance(layer.padding, str)
    window = (layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    return nn.functional.unfold(x, *window).transpose(1, 2)  # type: ignore[arg-type]
