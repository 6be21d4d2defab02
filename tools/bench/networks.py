"""Networks nobody tuned for, written as int8 QDQ ONNX for the bench.

    python tools/bench/networks.py OUT_DIR [NAME...]
    python tools/bench/mcu.py OUT_DIR/*.onnx

MobileNetV1 and V2, a ResNet of odd widths, a wide DS-CNN, an MCUNet-like network with 3x3, 5x5 and
7x7 depthwise kernels, a ResNeXt of groups of two to four channels, and one with grouped, dilated
and k x 1 convolutions, poolings and joined branches. Weights are random and batch norms hold the
statistics of random inputs, so that every layer uses its int8 range; what a network costs does not
depend on what it has learnt.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from edgecompress.compress.quantize import quantize
from edgecompress.model.load import load_source
from edgecompress.model.trainable import to_trainable

Activation = Callable[[], nn.Module]


class Residual(nn.Module):
    """after(branch(x) + shortcut(x))."""

    def __init__(
        self, branch: nn.Module, shortcut: nn.Module | None = None, after: Activation = nn.Identity
    ) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.after = after()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.branch(x) + self.shortcut(x))


class Branches(nn.Module):
    """All branches' channels one after another."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def convolution(
    inputs: int,
    outputs: int,
    size: int | tuple[int, int] = 1,
    stride: int | tuple[int, int] = 1,
    *,
    groups: int = 1,
    dilation: int = 1,
    after: Activation = nn.ReLU,
) -> nn.Sequential:
    """Convolution padded to `input / stride`, batch norm, activation."""
    tall, wide = size if isinstance(size, tuple) else (size, size)
    padding = (dilation * (tall - 1) // 2, dilation * (wide - 1) // 2)
    layer = nn.Conv2d(
        inputs, outputs, (tall, wide), stride, padding, dilation, groups, bias=False
    )  # fmt: skip
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), after())


def separable(
    inputs: int, outputs: int, size: int | tuple[int, int] = 3, stride: int = 1
) -> nn.Sequential:
    """Depthwise, then pointwise."""
    return nn.Sequential(
        convolution(inputs, inputs, size, stride, groups=inputs), convolution(inputs, outputs)
    )


def inverted(
    inputs: int, outputs: int, size: int, stride: int, expansion: int
) -> nn.Module:  # fmt: skip
    """Expand, depthwise, project; added to its input where the shapes allow."""
    middle = inputs * expansion
    layers: list[nn.Module] = []
    if expansion > 1:
        layers.append(convolution(inputs, middle, after=nn.ReLU6))
    layers.append(convolution(middle, middle, size, stride, groups=middle, after=nn.ReLU6))
    layers.append(convolution(middle, outputs, after=nn.Identity))
    branch = nn.Sequential(*layers)
    return Residual(branch) if stride == 1 and inputs == outputs else branch


def basic(inputs: int, outputs: int, size: int, stride: int = 1) -> Residual:
    """Two convolutions beside a shortcut, which is a 1x1 convolution where shapes change."""
    branch = nn.Sequential(
        convolution(inputs, outputs, size, stride),
        convolution(outputs, outputs, size, after=nn.Identity),
    )
    same = stride == 1 and inputs == outputs
    shortcut = None if same else convolution(inputs, outputs, 1, stride, after=nn.Identity)
    return Residual(branch, shortcut, nn.ReLU)


def classifier(channels: int, classes: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def mobilenet_v1(
    side: int = 96, widths: tuple[int, ...] = (8, 16, 32, 64, 128, 256), repeats: int = 5
) -> nn.Module:
    """MobileNetV1 0.25 at 96 x 96, the shape of the visual wake words model: 7,489,664 MACs."""
    first, *rest = widths
    layers: list[nn.Module] = [convolution(3, first, 3, 2), separable(first, rest[0])]
    for position, (before, after) in enumerate(pairwise(rest)):
        layers.append(separable(before, after, stride=2))
        deep = position == len(rest) - 3
        layers += [separable(after, after) for _ in range(repeats if deep else 1)]
    return _finished(nn.Sequential(*layers, *classifier(widths[-1], 2)), (1, 3, side, side))


def mobilenet_v2(
    side: int = 96,
    stages: tuple[tuple[int, int, int, int], ...] = (
        (1, 8, 1, 1), (6, 8, 2, 2), (6, 16, 3, 2), (6, 24, 4, 2), (6, 32, 3, 1), (6, 56, 3, 2),
        (6, 112, 1, 1),
    ),
    last: int = 448,
) -> nn.Module:  # fmt: skip
    """MobileNetV2 0.35: stages of (expansion, channels, repeats, stride)."""
    channels = 16
    layers: list[nn.Module] = [convolution(3, channels, 3, 2, after=nn.ReLU6)]
    for expansion, outputs, repeats, stride in stages:
        for repeat in range(repeats):
            step = stride if repeat == 0 else 1
            layers.append(inverted(channels, outputs, 3, step, expansion))
            channels = outputs
    layers.append(convolution(channels, last, after=nn.ReLU6))
    return _finished(nn.Sequential(*layers, *classifier(last, 10)), (1, 3, side, side))


def resnet_odd(
    side: int = 32, widths: tuple[int, ...] = (13, 27, 50), repeats: int = 1
) -> nn.Module:
    """A residual network whose widths are no multiples of four, with 5x5 kernels in places."""
    layers: list[nn.Module] = [convolution(3, widths[0], 5), nn.MaxPool2d(3, 2, 1)]
    layers.append(basic(widths[0], widths[0], 3))
    for position, (before, after) in enumerate(pairwise(widths)):
        layers.append(basic(before, after, 5 if position == 0 else 3, 2))
        layers += [basic(after, after, 3) for _ in range(repeats)]
    return _finished(nn.Sequential(*layers, *classifier(widths[-1], 10)), (1, 3, side, side))


def ds_cnn(
    height: int = 49, width: int = 10, channels: int = 172, blocks: int = 4
) -> nn.Module:  # fmt: skip
    """The medium DS-CNN of keyword spotting: twice the width of MLPerf Tiny's, and strides."""
    layers: list[nn.Module] = [nn.ZeroPad2d((1, 2, 4, 5)), _valid(1, channels, (10, 4), (2, 1))]
    layers.append(separable(channels, channels, stride=2))
    layers += [separable(channels, channels) for _ in range(blocks - 1)]
    network = nn.Sequential(*layers, *classifier(channels, 12), nn.Softmax(dim=1))
    return _finished(network, (1, 1, height, width))


def mcunet(
    side: int = 80,
    blocks: tuple[tuple[int, int, int, int], ...] = (
        (1, 8, 3, 1), (4, 16, 7, 2), (3, 16, 3, 1), (5, 24, 5, 2), (3, 24, 7, 1), (4, 24, 5, 1),
        (4, 40, 7, 2), (5, 40, 3, 1), (4, 48, 5, 1), (5, 96, 7, 2), (4, 96, 3, 1), (6, 160, 5, 1),
    ),
) -> nn.Module:  # fmt: skip
    """Inverted residuals as a search leaves them: blocks of (expansion, channels, size, stride)."""
    channels = 16
    layers: list[nn.Module] = [convolution(3, channels, 3, 2, after=nn.ReLU6)]
    for expansion, outputs, size, stride in blocks:
        layers.append(inverted(channels, outputs, size, stride, expansion))
        channels = outputs
    return _finished(nn.Sequential(*layers, *classifier(channels, 10)), (1, 3, side, side))


def resnext(
    side: int = 48, widths: tuple[int, ...] = (16, 32, 48), inputs: tuple[int, ...] = (2, 4, 3)
) -> nn.Module:
    """Bottlenecks with a 3x3 in groups of few channels; widths double by two filters a channel."""
    layers: list[nn.Module] = [convolution(3, widths[0], 3, 2)]
    for position, (width, few) in enumerate(zip(widths, inputs, strict=True)):
        if position:
            before = widths[position - 1]
            layers.append(convolution(before, 2 * before, 3, 2, groups=before))
            layers.append(convolution(2 * before, width))
        branch = nn.Sequential(
            convolution(width, width),
            convolution(width, width, 3, groups=width // few),
            convolution(width, width, after=nn.Identity),
        )
        layers.append(Residual(branch, after=nn.ReLU))
    return _finished(nn.Sequential(*layers, *classifier(widths[-1], 10)), (1, 3, side, side))


def mixed(side: int = 32, width: int = 24) -> nn.Module:
    """Every other form: grouped, dilated, k x 1 and joined convolutions, both poolings, denses."""
    layers = [
        convolution(2, width, 3),
        nn.AvgPool2d(2),
        Branches(
            convolution(width, width, 3, groups=4),
            convolution(width, 10, (5, 1)),
            convolution(width, 6, (1, 7)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1), convolution(width, 8)),
        ),
        convolution(width + 24, width + 6, 3, dilation=2),
        convolution(width + 6, width + 6, (5, 1), groups=width + 6),
        convolution(width + 6, width + 6, 3, dilation=2, groups=width + 6),
        nn.MaxPool2d(2),
        convolution(width + 6, 2 * (width + 6), 3, groups=width + 6),
        convolution(2 * (width + 6), 2 * width, 1, 2),
        convolution(2 * width, 2 * width, (1, 3), (1, 2), groups=3),
        nn.Flatten(),
    ]
    features = 2 * width * (side // 8) * -(-side // 16)
    layers += [nn.Linear(features, 37), nn.ReLU(), nn.Linear(37, 5), nn.Softmax(dim=1)]
    return _finished(nn.Sequential(*layers), (1, 2, side, side))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v2": mobilenet_v2,
    "resnet_odd": resnet_odd,
    "ds_cnn": ds_cnn,
    "mcunet": mcunet,
    "resnext": resnext,
    "mixed": mixed,
}


def _valid(inputs: int, outputs: int, size: tuple[int, int], stride: tuple[int, int]) -> nn.Module:
    """A convolution that pads nothing, for uneven borders before it."""
    layer = nn.Conv2d(inputs, outputs, size, stride, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def _finished(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """Seeded weights and gains; each batch norm's statistics are what it sees of random inputs."""
    random = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            spread = 1 / np.sqrt(module.weight[0].numel())
            module.weight.data.normal_(0, spread, generator=random)
            if module.bias is not None:
                module.bias.data.normal_(0, 0.1, generator=random)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5, generator=random)
            module.bias.data.normal_(0, 0.5, generator=random)
            module.momentum = None
    with torch.no_grad():
        network.train()(torch.randn((8, *shape[1:]), generator=random))
    network.input_shape = shape  # type: ignore[assignment]
    return network.eval()


def deployable(name: str) -> onnx.ModelProto:
    """Loaded, imported and quantized as `edgecompress fit` does it, on random calibration."""
    source = load_source(f"{Path(__file__).stem}:{name}")
    shape = (8, *source.input_shape[1:])
    calibration = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return quantize(to_trainable(source), calibration, name=name)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="OUT_DIR")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NETWORKS))
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(NETWORKS))
    if unknown:
        parser.error(f"no network is called {unknown[0]}; there are {', '.join(NETWORKS)}")
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in options.names or NETWORKS:
        path = options.folder / f"{name}.onnx"
        onnx.save(deployable(name), path)
        print(f"{path}  {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
