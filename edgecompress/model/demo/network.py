"""The demo network: a residual CNN of 1.3 M weights; even in int8 they exceed 1 MiB of flash."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

CLASS_COUNT = 10
INPUT_SHAPE = (1, 1, 28, 28)


class ResidualBlock(nn.Module):
    """relu(norm(conv(relu(norm(conv(x))))) + shortcut(x)), both convolutions 3x3.

    The shortcut is a 1x1 convolution where the stride or the channel count changes.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels_out)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(channels_in, channels_out, 1, stride, bias=False),
                    norm=nn.BatchNorm2d(channels_out),
                )
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, channels_in, H, W] -> [N, channels_out, H / stride, W / stride], rounded up."""
        y = self.relu1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return self.relu2(y + self.shortcut(x))


class DemoNet(nn.Module):
    """[N, 1, 28, 28] float32 in [0, 1] -> [N, 10] logits.

    Three stages halve the image (28 -> 14 -> 7 -> 4); most weights sit in the last one, where a
    weight costs only 16 MACs. The stem's BatchNorm takes the place of an input normalisation.
    """

    input_shape = INPUT_SHAPE

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(1, 16, 3, padding=1, bias=False),
                norm=nn.BatchNorm2d(16),
                relu=nn.ReLU(),
            )
        )
        self.stage1 = nn.Sequential(ResidualBlock(16, 32, 2))
        self.stage2 = nn.Sequential(ResidualBlock(32, 64, 2), ResidualBlock(64, 64, 1))
        self.stage3 = nn.Sequential(ResidualBlock(64, 192, 2), ResidualBlock(192, 192, 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(192, CLASS_COUNT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stage3(self.stage2(self.stage1(self.stem(x))))
        return self.classifier(torch.flatten(self.pool(y), 1))
