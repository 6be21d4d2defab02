"""A learned constant added to every sample, as positions in a transformer."""

from __future__ import annotations

import torch
from torch import nn


class Offset(nn.Module):
    """x + value; value [1, ...] of the shape of one sample."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.value
