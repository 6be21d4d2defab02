"""Convolutions and dense layers on MVE: rows of inputs by packed weights.

A dense layer is a 1x1 convolution of a one-row image, and a depthwise layer on one channel is an
ordinary convolution: all use the same routines. A residual addition may follow in the same pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.isa.interface import Cost, Implementation, WeightStream
from edgecompress.lower.isa.mve.gather import (
    CONV2D,
    convolution,
    convolution_words,
    gather_instructions,
)
from edgecompress.lower.isa.mve.packing import (
    BLOCK,
    CYCLES_PER_INSTRUCTION,
    GROUP,
    addition_words,
    interleave,
    pack,
    requantize_words,
)
from edgecompress.lower.isa.mve.pointwise import (
    POINTWISE,
    RAGGED,
    pointwise,
    pointwise_instructions,
)
from edgecompress.lower.isa.mve.rows import Variant
from edgecompress.lower.kernels.add import Add, SingleRounding
from edgecompress.lower.kernels.conv2d import Conv2D, Window
from edgecompress.lower.kernels.conv2d_add import Conv2DAdd
from edgecompress.lower.kernels.dense import Dense
from edgecompress.lower.kernels.depthwise_conv2d import DepthwiseConv2D
from edgecompress.lower.kernels.requant import Requantize

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel


@dataclass(frozen=True)
class ConvolutionGenerator:
    """Conv2D of one group, Conv2DAdd, Dense, and DepthwiseConv2D of one channel; batch 1.

    Refuses other groups and batches, rounding forms other than "smmla", and LiteRT's addition.
    """

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not isinstance(kernel, Conv2D | Conv2DAdd | Dense | DepthwiseConv2D):
            return []
        last: list[int] = []
        if isinstance(kernel, Conv2DAdd):
            if not _is_plain(kernel.add):
                return []
            last = addition_words(kernel.add, kernel.conv_operand)
            kernel = kernel.conv
        read = _as_convolution(kernel, constants[0])
        if read is None:
            return []
        window, weights, fill, requantize = read
        if requantize.form != "smmla" or window.input_shape[0] != 1:
            return []
        layer = _Layer(window, weights, constants[1], constants[2], fill, requantize, last)
        return [layer.pointwise() if layer.is_pointwise else layer.gathered()]


def _is_plain(add: Add) -> bool:
    """One shape, rounded once."""
    return isinstance(add.rounding, SingleRounding) and add.shape == add.other_shape


def _as_convolution(
    kernel: Kernel, weights: np.ndarray
) -> tuple[Window, np.ndarray, int, Requantize] | None:
    """The kernel's window, its weights as `[O, kh, kw, C]`, fill and requantization."""
    if isinstance(kernel, Conv2D) and kernel.groups == 1:
        return kernel.window, weights, kernel.input_zero_point, kernel.requantize
    if isinstance(kernel, DepthwiseConv2D) and kernel.window.input_shape[3] == 1:
        ordered = weights.transpose(2, 0, 1)[..., None]
        return kernel.window, ordered, kernel.input_zero_point, kernel.requantize
    if isinstance(kernel, Dense):
        inputs = kernel.input_shape[-1]
        rows = int(np.prod(kernel.input_shape[:-1]))
        window = Window((1, 1, rows, inputs), (1, 1))
        return window, weights.reshape(-1, 1, 1, inputs), 0, kernel.requantize
    return None


@dataclass(frozen=True)
class _Layer:
    """One layer as a convolution: weights `[O, kh, kw, C]`, bias and multiplier `[O]`.

    `last` are the residual addition's header words, empty without one.
    """

    window: Window
    weights: np.ndarray
    bias: np.ndarray
    multiplier: np.ndarray
    fill: int
    requantize: Requantize
    last: list[int]

    @property
    def is_pointwise(self) -> bool:
        """Pixels can be read where they lie."""
        return self.window.size == (1, 1) and not any(self.window.padding)

    @property
    def pixels(self) -> int:
        return int(np.prod(self.window.output_size))

    def pointwise(self) -> Implementation:
        channels, _, _, inputs = self.weights.shape
        rows, columns = self.window.output_size
        column_bytes = self.window.strides[1] * inputs
        row_bytes = self.window.strides[0] * self.window.input_shape[2] * inputs
        row = -(-inputs // BLOCK) * BLOCK
        beyond = int(np.prod(self.window.input_shape)) - row
        own = [self.pixels, columns, column_bytes, row_bytes, inputs, beyond]
        symbol = POINTWISE if row == inputs else RAGGED
        # two pixels' inputs are read again for every group of channels, while outputs are written
        first = np.arange(rows)[:, None] * row_bytes + np.arange(columns) * column_bytes
        first = first.reshape(-1)[::2]
        written = np.minimum(2 * np.arange(first.size) + 2, self.pixels) * channels
        distance = int((first - written).min())
        ordered = self.weights.reshape(channels, inputs)
        around = pointwise_instructions(symbol)
        scratch_bytes = 0 if symbol == POINTWISE else 2 * row
        return self._implementation(symbol, ordered, own, around, scratch_bytes, distance)

    def gathered(self) -> Implementation:
        channels, kernel_rows, kernel_columns, inputs = self.weights.shape
        window = self.window
        _, height, width, _ = window.input_shape
        segments = kernel_columns if window.dilation[1] > 1 else 1
        taps = kernel_columns // segments
        own = convolution_words(
            pixels=self.pixels,
            columns=window.output_size[1],
            column_stride=window.strides[1],
            first_column=-window.padding[1],
            row_stride=window.strides[0],
            first_row=-window.padding[0],
            segments=segments,
            taps=taps,
            last_inside=width - taps,
            segment_step=window.dilation[1],
            width=width,
            channels=inputs,
            segment_bytes=taps * inputs,
            kernel_rows=kernel_rows,
            height=height,
            row_step=window.dilation[0],
            row_step_bytes=window.dilation[0] * width * inputs,
            fill=self.fill,
        )
        shape = (channels, kernel_rows, segments, taps, inputs)
        ordered = self.weights.reshape(shape).transpose(0, 2, 1, 3, 4).reshape(channels, -1)
        around = 2 * gather_instructions(segments, kernel_rows, taps * inputs)
        scratch_bytes = 2 * BLOCK * -(-ordered.shape[1] // BLOCK)
        # a pixel is written when its window and all earlier ones have been copied
        distance = min(window.overlap_distance(channels), 0)
        return self._implementation(CONV2D, ordered, own, around, scratch_bytes, distance)

    def _implementation(
        self,
        symbol: str,
        ordered: np.ndarray,
        own: list[int],
        around: int,
        scratch_bytes: int,
        distance: int,
    ) -> Implementation:
        """`around`: instructions of the outer loop for two pixels."""
        channels, inputs = ordered.shape
        blocks, groups = -(-inputs // BLOCK), -(-channels // GROUP)
        variant = Variant(added=bool(self.last), lifted=self.requantize.left_shift > 0)
        pairs, odd = divmod(self.pixels, 2)
        each = variant.rows2_instructions(blocks, groups) + around
        single = variant.rows1_instructions(blocks, groups) + around // 2
        instructions = pairs * each + odd * single + 40
        words = requantize_words(blocks, channels, self.requantize)
        stream = interleave(ordered, self.bias, self.multiplier)
        constant = pack(words, own, stream, self.last)
        header = constant.size - stream.size // 4
        gathers = symbol == CONV2D
        kind = "convolution" if gathers else "pointwise"
        return Implementation(
            symbol=symbol + variant.suffix,
            constants=(constant,),
            cost=Cost(instructions, round(instructions * CYCLES_PER_INSTRUCTION), 0),
            description=f"mve {kind}, 2 pixels x 4 channels",
            assembly=convolution(variant) if gathers else pointwise(symbol, variant),
            scratch_bytes=scratch_bytes,
            may_overlap_input=distance,
            in_place_arguments=(1,) if variant.added else (),
            stream=WeightStream(
                header, GROUP, BLOCK * blocks, GROUP, groups, channels=GROUP, mixed=False
            ),
        )
