"""Convolutions of any window, stride, padding, dilation and group count on Thumb-2 with DSP.

`columns.py` lays out a group of pixels' inputs, `tile.py` multiplies them by every channel's
weights. Here both are chosen, the constants are packed, and what they cost is added up.

    constants   [tile header] [columns header] [stream]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.isa.dsp.columns import Columns, Runs, group_starts
from edgecompress.lower.isa.dsp.tile import forms, tiles
from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.kernels.conv2d import Conv2D

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

# The column counters are 15 bits wide, and so are the shifts that place a window.
_MOST_COLUMNS = 1 << 15


class Conv2DGenerator:
    """`Conv2D` of batch 1, unless its requantization is not the rounding-once form."""

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not isinstance(kernel, Conv2D) or not _takes(kernel):
            return []
        weights, bias, multiplier = constants[0], constants[1], constants[2]
        runs = Runs.of(kernel)
        packed = runs.pack(weights)
        group = packed[: kernel.output_channels // kernel.groups]
        offered = forms(kernel.requantize, packed, bias)
        if len(group) % 2 and offered:
            offered = ["single"]
        return [
            _implementation(columns, kernel, runs, (packed, bias, multiplier))
            for form in offered
            for tile in tiles(form, kernel.requantize, int(np.prod(kernel.window.output_size)))
            for columns in _columns(tile, kernel, runs)
        ]


def _takes(kernel: Conv2D) -> bool:
    batch, _, width, _ = kernel.window.input_shape
    reach = kernel.window.size[1] * kernel.window.dilation[1] + sum(kernel.window.padding)
    return batch == 1 and width + reach < _MOST_COLUMNS


def _columns(tile, kernel: Conv2D, runs: Runs) -> list[Columns]:
    ragged = runs.tap_bytes * runs.taps % 4 != 0 or (
        any(kernel.window.padding) and runs.tap_bytes % 4 != 0
    )
    unit = runs.words if ragged or not any(kernel.window.padding) else runs.tap_bytes // 4
    bordered = any(kernel.window.padding)
    torn = runs.per_row > 1 or kernel.groups > 1
    return [
        Columns(tile, unroll, bordered, torn, ragged and bordered)
        for unroll in (1, 2, 4)
        if unit % unroll == 0
    ]


def _implementation(
    columns: Columns, kernel: Conv2D, runs: Runs, arrays: tuple[np.ndarray, ...]
) -> Implementation:
    packed, bias, multiplier = arrays
    tile, quads, groups = columns.tile, runs.quads(kernel), kernel.groups
    outputs = kernel.output_channels // groups
    constant = np.concatenate(
        [
            tile.header(kernel.requantize, quads, outputs, kernel.output_channels),
            columns.header(kernel, runs),
            tile.stream(packed, bias, multiplier),
        ]
    )
    starts = group_starts(int(np.prod(kernel.window.output_size)), tile.pixels)
    own, inner = columns.work(kernel, runs), tile.work(quads, outputs)
    calls = len(starts) * groups
    return Implementation(
        symbol=columns.symbol,
        constants=(constant,),
        cost=Cost(own[0] + calls * inner[0], own[1] + calls * inner[1], 0),
        description=(
            f"dsp conv, {tile.channels} channels x {tile.pixels} pixels x "
            f"{4 * tile.unroll} inputs, {tile.form}"
        ),
        assembly={columns.symbol: columns.text, tile.symbol: tile.text},
        scratch_bytes=8 * quads * tile.pixels + (4 * runs.words if columns.ragged else 0),
        may_overlap_input=overlap_distance(kernel, starts, tile.pixels),
    )


def overlap_distance(kernel: Conv2D, starts: np.ndarray, size: int) -> int | None:
    """How far after the input's start the output may start, in bytes; None for never.

    Each group of pixels is written after its windows were read, and before the next one's are:
    what is written must end before the first input byte that any later group reads.
    """
    window = kernel.window
    if kernel.groups > 1:
        return None
    _, height, width, channels = window.input_shape
    later = starts[1:]
    # a group's first pixel has its uppermost window; its leftmost may be the next row's
    top = later // window.output_size[1] * window.strides[0] - window.padding[0]
    left = later % window.output_size[1] * window.strides[1] - window.padding[1]
    wraps = later % window.output_size[1] + size > window.output_size[1]
    first = (np.maximum(top, 0) * width + np.where(wraps, 0, np.maximum(left, 0))) * channels
    first = np.minimum(first, height * width * channels)
    first = np.minimum.accumulate(first[::-1])[::-1]
    written = (starts[:-1] + size) * kernel.output_channels
    return int((first - written).min()) if len(later) else 0
