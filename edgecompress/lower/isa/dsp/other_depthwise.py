"""Depthwise convolutions that `depthwise.py` refuses, as the convolutions they also are.

A depthwise convolution with m filters a channel is a convolution of C groups with one input and m
outputs each. With few channels it is cheaper as a convolution of one group whose other weights are
zero: then pixels are read as they lie in memory.

Example: 8 filters of 10x8 on one channel, as small keyword spotters begin, is a first layer.
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

_MOST_ZEROS = 4  # channels whose inputs are multiplied by zero rather than picked out


@dataclass(frozen=True)
class OtherDepthwiseGenerator:
    """`DepthwiseConv2D` that `preferred` has no offer for.

    Refuses what `Conv2DGenerator` refuses: more than one image and LiteRT's rounding.
    """

    preferred: Generator

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not isinstance(kernel, DepthwiseConv2D):
            return []
        offers = self.preferred.implement(kernel, constants)
        if offers:
            return offers
        weights, *rest = constants
        channels = kernel.window.input_shape[3]
        forms = [(channels, grouped(weights))]
        if channels <= _MOST_ZEROS:
            forms.append((1, spread(weights, channels)))
        found = [
            offer
            for groups, values in dict(forms).items()
            for generator in (Conv2DGenerator(), FirstLayerGenerator())
            for offer in generator.implement(_convolution(kernel, groups), (values, *rest))
        ]
        return [replace(item, description=f"{item.description}, depthwise") for item in found]


def _convolution(kernel: DepthwiseConv2D, groups: int) -> Conv2D:
    return Conv2D(
        kernel.window, kernel.output_shape[3], groups, kernel.input_zero_point, kernel.requantize
    )


def grouped(weights: np.ndarray) -> np.ndarray:
    """[kh, kw, O] as [O, kh, kw, 1]."""
    return np.ascontiguousarray(weights.transpose(2, 0, 1)[..., None])


def spread(weights: np.ndarray, channels: int) -> np.ndarray:
    """[kh, kw, O] as [O, kh, kw, C], zero where an output does not read a channel."""
    tall, wide, outputs = weights.shape
    full = np.zeros((outputs, tall, wide, channels), np.int8)
    every = np.arange(outputs)
    full[every, :, :, every * channels // outputs] = weights.transpose(2, 0, 1)
    return full
