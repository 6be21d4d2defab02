"""Convolutions whose outputs read few channels, seen as one kind: depthwise and narrow grouped.

    depthwise, m filters a channel    groups of 1 input and m outputs
    Conv2D of g groups                groups of C / g inputs and O / g outputs

Example: 8 channels in 4 groups to 12: outputs 0, 1, 2 read channels 0 and 1, outputs 3, 4, 5 read
channels 2 and 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.kernels.conv2d import Conv2D, Window
from edgecompress.lower.kernels.depthwise_conv2d import DepthwiseConv2D

if TYPE_CHECKING:
    from edgecompress.lower.kernels.requant import Requantize
    from edgecompress.lower.program import Kernel

_MOST_INPUTS = 4  # a group's planes: all channels of one word


@dataclass(frozen=True)
class Filters:
    """`outputs` filters over each group of `inputs` neighbouring channels."""

    window: Window
    inputs: int
    outputs: int
    input_zero_point: int
    requantize: Requantize

    @classmethod
    def of(cls, kernel: Kernel) -> Filters | None:
        """None for another kind of kernel, one group, and groups of more than four inputs."""
        if isinstance(kernel, DepthwiseConv2D):
            inputs, outputs = 1, kernel.multiplier
        elif isinstance(kernel, Conv2D) and kernel.groups > 1:
            inputs = kernel.window.input_shape[3] // kernel.groups
            outputs = kernel.output_channels // kernel.groups
        else:
            return None
        if inputs > _MOST_INPUTS:
            return None
        return cls(kernel.window, inputs, outputs, kernel.input_zero_point, kernel.requantize)

    @property
    def output_channels(self) -> int:
        return self.window.input_shape[3] // self.inputs * self.outputs

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return (self.window.input_shape[0], *self.window.output_size, self.output_channels)


def weights_of(kernel: Kernel, weights: np.ndarray) -> np.ndarray:
    """int8 [O, kh, kw, inputs]; a depthwise kernel stores [kh, kw, O]."""
    if isinstance(kernel, DepthwiseConv2D):
        return np.ascontiguousarray(weights.transpose(2, 0, 1))[..., None]
    return weights
