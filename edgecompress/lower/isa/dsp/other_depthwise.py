"""Depthwise convolutions of one to four channels, as first layers whose other weights are zero.

A depthwise convolution with m filters a channel is a convolution of all channels in which every
output reads one. While channels are few that is the cheapest form there is: pixels are read as
they lie in memory.

Example: 8 filters of 10x8 on one channel, as small keyword spotters begin.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.isa.dsp.conv2d import Conv2DGenerator
from edgecompress.lower.isa.dsp.first_layer import FirstLayerGenerator
from edgecompress.lower.isa.interface import Generator, Implementation
from edgecompress.lower.kernels.conv2d import Conv2D
from edgecompress.lower.kernels.depthwise_conv2d import DepthwiseConv2D

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

_MOST_CHANNELS = 4


@dataclass(frozen=True)
class OtherDepthwiseGenerator:
    """What `preferred` takes; `DepthwiseConv2D` it refuses, or of several filters a channel.

    The latter compete with `preferred`'s up to four channels: beyond, the zeros cost more than the
    generic kernel. More than one image and LiteRT's rounding are refused.
    """

    preferred: Generator

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        offers = self.preferred.implement(kernel, constants)
        if not isinstance(kernel, DepthwiseConv2D):
            return offers
        channels = kernel.window.input_shape[3]
        if channels > _MOST_CHANNELS or (offers and kernel.multiplier == 1):
            return offers
        weights, *rest = constants
        convolution = Conv2D(
            kernel.window, kernel.output_shape[3], 1, kernel.input_zero_point, kernel.requantize
        )
        found = [
            offer
            for generator in (Conv2DGenerator(), FirstLayerGenerator())
            for offer in generator.implement(convolution, (spread(weights, channels), *rest))
        ]
        return [
            *offers,
            *(replace(item, description=f"{item.description}, depthwise") for item in found),
        ]


def spread(weights: np.ndarray, channels: int) -> np.ndarray:
    """[kh, kw, O] as [O, kh, kw, C], zero where an output does not read a channel."""
    tall, wide, outputs = weights.shape
    full = np.zeros((outputs, tall, wide, channels), np.int8)
    every = np.arange(outputs)
    full[every, :, :, every * channels // outputs] = weights.transpose(2, 0, 1)
    return full
