"""Small trainables with known sizes, and a tiny learnable data set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import fx, nn

from edgecompress.model.data import Dataset, Splits
from edgecompress.model.trainable import Trainable


class Residual(nn.Module):
    """stem 1 -> 8, a residual block 8 -> 16 -> 8, mean, 8 -> 3 on 8x8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.conv1 = nn.Conv2d(8, 16, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(16, 8, 3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.norm(self.stem(x)))
        x = self.relu2(self.conv2(self.relu1(self.conv1(x))) + x)
        return self.head(torch.flatten(self.pool(x), 1))


@pytest.fixture
def as_trainable() -> Callable[[nn.Module, tuple[int, ...]], Trainable]:
    """(module, input shape) -> its trainable."""
    return _as_trainable


def _as_trainable(module: nn.Module, shape: tuple[int, ...]) -> Trainable:
    return Trainable(fx.symbolic_trace(module.eval()), torch.zeros(shape), "x", "y")


@pytest.fixture
def residual() -> Trainable:
    torch.manual_seed(0)
    return _as_trainable(Residual(), (1, 1, 8, 8))


@pytest.fixture
def splits() -> Splits:
    """Three classes of 8x8 images: bright left, bright top, or neither."""
    generator = np.random.default_rng(0)

    def make(count: int) -> Dataset:
        y = generator.integers(0, 3, count)
        x = generator.normal(0, 0.3, (count, 1, 8, 8)).astype(np.float32)
        x[y == 0, :, :, :4] += 1
        x[y == 1, :, :4, :] += 1
        return Dataset(x, y.astype(np.int64))

    return Splits(make(240), make(60), make(60), "0" * 64, "corners")
