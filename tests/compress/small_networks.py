"""Small networks with every way channels can be coupled, as Trainables."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgecompress.model.data import Dataset
from edgecompress.model.trainable import Trainable


class Residual(nn.Module):
    """stem -> two-conv block with identity skip -> two-conv block with projection -> head."""

    def __init__(self, channels: int = 8, classes: int = 4) -> None:
        super().__init__()
        wide = 2 * channels
        self.stem = nn.Conv2d(1, channels, 3, stride=2, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv3 = nn.Conv2d(channels, wide, 3, stride=2, padding=1)
        self.norm3 = nn.BatchNorm2d(wide)
        self.skip = nn.Conv2d(channels, wide, 1, stride=2)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(wide, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem_norm(self.stem(x)))
        x = self.relu(x + self.conv2(self.relu(self.norm1(self.conv1(x)))))
        x = self.relu(self.norm3(self.conv3(x)) + self.skip(x))
        return self.head(self.flatten(self.pool(x)))


class Mobile(nn.Module):
    """padding -> stem -> depthwise -> pointwise -> max pool -> flatten (with a map) -> dense."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.stem = nn.Conv2d(1, 8, 3, stride=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(8)
        self.relu6 = nn.ReLU6()
        self.pointwise = nn.Conv2d(8, 12, 1)
        self.pool = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.dense = nn.Linear(12 * 4 * 4, 10)
        self.dense_norm = nn.BatchNorm1d(10)
        self.head = nn.Linear(10, 4)
        self.softmax = nn.Softmax(dim=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu6(self.stem(self.pad(x)))
        x = self.relu6(self.depthwise_norm(self.depthwise(x)))
        x = self.pool(torch.relu(self.pointwise(x)))
        x = torch.relu(self.dense_norm(self.dense(self.flatten(x))))
        return self.softmax(self.head(x))


class Branches(nn.Module):
    """Two branches concatenated, one of them also pooled; average pooling; a nonzero pad."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 4, 3, padding=1)
        self.right = nn.Conv2d(1, 6, 3, padding=1)
        self.border = nn.ConstantPad2d(1, 0.5)
        self.mix = nn.Conv2d(10, 8, 3)
        self.relu = nn.ReLU()
        self.average = nn.AvgPool2d(2)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8 * 8 * 8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.relu(self.left(x)), self.right(x)], dim=1)
        x = self.average(self.relu(self.mix(self.border(x))))
        x = torch.reshape(self.norm(x), (-1, 512))
        return self.head(x)


def trainable(network: nn.Module, *, size: int = 16, seed: int = 0) -> Trainable:
    """`network` for [1, 1, size, size] inputs, with BatchNorm statistics that are not the default.

    The weights were drawn by the caller; `seed` moves the statistics only.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            shape = module.weight.shape
            module.weight.data = 0.5 + torch.rand(shape, generator=generator)
            module.bias.data = 0.3 * torch.randn(shape, generator=generator)
            module.running_mean = 0.2 * torch.randn(shape, generator=generator)
            module.running_var = 0.5 + torch.rand(shape, generator=generator)
    graph = torch.fx.symbolic_trace(network).eval()
    return Trainable(graph, torch.zeros(1, 1, size, size), "image", "logits")


def seeded(build: type[nn.Module], *, seed: int = 0) -> Trainable:
    """A freshly initialised network, the same for the same seed."""
    torch.manual_seed(seed)
    return trainable(build(), seed=seed)


def stripes(count: int, seed: int) -> Dataset:
    """Four classes of noisy stripes: horizontal or vertical, broad or fine."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    rows, columns = np.mgrid[0:16, 0:16]
    axis = np.where((labels % 2 == 0)[:, None, None], rows, columns)
    period = np.where(labels < 2, 4, 8)[:, None, None]
    phase = random.uniform(0, 2 * np.pi, (count, 1, 1))
    x = np.sin(2 * np.pi * axis / period + phase) + random.normal(0, 0.5, (count, 16, 16))
    return Dataset(x[:, None].astype(np.float32), labels.astype(np.int64))


NETWORKS: list[type[nn.Module]] = [Residual, Mobile, Branches]
