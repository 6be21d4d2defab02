"""The planner bench's networks, trained once a data set and seed and kept.

resnet8     a stem, three residual blocks of 16, 32 and 64 channels (MLPerf Tiny's class)
dscnn       a stem and four depthwise-separable blocks of 64 channels, "DS-CNN S" of Zhang et al.,
            "Hello Edge: Keyword Spotting on Microcontrollers", 2017
dscnn-wide  128 channels, the first block with a stride as in their "DS-CNN M"; a quarter of DS-CNN
            S's image is mostly the firmware around the model
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgecompress.compress.finetune import Recipe
from edgecompress.compress.finetune.augment import augmented
from edgecompress.compress.finetune.memory_order import channels_last, usual_order
from edgecompress.model.data import Splits

NAMES = ("resnet8", "dscnn", "dscnn-wide")
BASE_STEPS = {"fashion": 5000, "cifar": 7000, "fsdd": 3000, "hapt": 3000}
"""Enough for plans to lose something; CIFAR-10 alone would gain much from more."""
_MOVED = {"cifar": Recipe(shift_pixels=3, mirror=True)}
"""Photographs are shown shifted and mirrored, as they usually are in training."""
_BATCH = 64


def _unit(inputs: int, outputs: int, kernel, stride, groups: int = 1) -> nn.Sequential:
    padding = tuple(size // 2 for size in kernel)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class _Block(nn.Module):
    """relu(conv(relu(conv(x))) + shortcut(x))."""

    def __init__(self, inputs: int, outputs: int, kernel, stride) -> None:
        super().__init__()
        self.first = _unit(inputs, outputs, kernel, stride)
        self.second = _unit(outputs, outputs, kernel, 1)
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs or stride != (1, 1):
            self.shortcut = _unit(inputs, outputs, (1, 1), stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(torch.relu(self.first(x)))
        return torch.relu(y + self.shortcut(x))


class ResNet8(nn.Module):
    def __init__(self, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        kernel, stride = ((1, 5), (1, 2)) if shape[1] == 1 else ((3, 3), (2, 2))
        self.stem = nn.Sequential(_unit(shape[0], 16, kernel, stride), nn.ReLU())
        self.blocks = nn.Sequential(
            _Block(16, 16, kernel, (1, 1)),
            _Block(16, 32, kernel, stride),
            _Block(32, 64, kernel, stride),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))


class DsCnn(nn.Module):
    def __init__(
        self, shape: tuple[int, ...], classes: int, width: int = 64, strided: bool = False
    ) -> None:
        super().__init__()
        flat = shape[1] == 1
        window = (1, 9) if flat else (5, 5) if shape[1] == shape[2] else (9, 5)
        halved = (1, 2) if flat else (2, 2)
        self.stem = nn.Sequential(_unit(shape[0], width, window, halved), nn.ReLU())
        kernel = (1, 5) if flat else (3, 3)
        layers: list[nn.Module] = []
        for block in range(4):
            stride = halved if strided and block == 0 else (1, 1)
            layers += [_unit(width, width, kernel, stride, groups=width), nn.ReLU()]
            layers += [_unit(width, width, (1, 1), (1, 1)), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.flatten(self.pool(self.body(self.stem(x))), 1))


def make(name: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    makers = {
        "resnet8": ResNet8,
        "dscnn": DsCnn,
        "dscnn-wide": partial(DsCnn, width=128, strided=True),
    }
    return makers[name](shape, classes)


def trained(name: str, splits: Splits, seed: int, steps: int, cache: Path) -> nn.Module:
    """The base network, from the cache where it was trained before: Adam, cosine, cross entropy."""
    assert splits.train.y is not None
    shape, classes = splits.train.x.shape[1:], int(splits.train.y.max()) + 1
    path = cache / f"{splits.name}-{name}-{seed}-{steps}-{splits.hash[:12]}.pt"
    torch.manual_seed(seed)
    net = make(name, shape, classes)
    if path.is_file():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    x, y = torch.from_numpy(splits.train.x), torch.from_numpy(splits.train.y)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    random = np.random.default_rng(seed)
    moved = _MOVED.get(splits.name, Recipe())
    channels_last(net.train())
    for _ in range(steps):
        rows = torch.from_numpy(random.choice(len(x), min(_BATCH, len(x)), replace=False))
        loss = nn.functional.cross_entropy(net(augmented(x[rows], moved)), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    usual_order(net)
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(net.state_dict(), partial)
    partial.replace(path)
    return net.eval()
