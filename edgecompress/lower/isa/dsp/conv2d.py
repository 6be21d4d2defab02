"""Convolutions of any window, stride, padding, dilation and group count on Thumb-2 with DSP.

`columns.py` lays out a group of pixels' inputs, `tile.py` multiplies them by every channel's
weights. Here both are chosen, the constants are packed, and what they cost is added up.

    constants   [tile header] [columns header] [stream]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.isa.dsp.add import add_routine, sum_parameters
from edgecompress.lower.isa.dsp.columns import Columns, Runs, group_starts
from edgecompress.lower.isa.dsp.packed4_tile import packed4_tiles
from edgecompress.lower.isa.dsp.tile import Tile, forms, tiles
from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.kernels.add import SingleRounding
from edgecompress.lower.kernels.conv2d import Conv2D
from edgecompress.lower.kernels.conv2d_add import Conv2DAdd

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

# The column counters are 15 bits wide, and so are the shifts that place a window.
_MOST_COLUMNS = 1 << 15


class Conv2DGenerator:
    """`Conv2D` and `Conv2DAdd` of batch 1, unless they round LiteRT's way.

    Refused besides: sums of a grouped convolution.
    """

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not isinstance(kernel, Conv2D | Conv2DAdd):
            return []
        conv = kernel.conv if isinstance(kernel, Conv2DAdd) else kernel
        if not _takes(conv) or (isinstance(kernel, Conv2DAdd) and not _takes_sum(kernel)):
            return []
        weights, bias, multiplier = constants[0], constants[1], constants[2]
        packed = Runs.of(conv).pack(weights)
        pixels = int(np.prod(conv.window.output_size))
        outputs = conv.output_channels // conv.groups
        offered = packed4_tiles(conv.requantize, packed, bias, pixels, conv.groups)
        for form in forms(conv.requantize, packed, bias):
            offered += tiles(form, conv.requantize, pixels, outputs)
        return [
            _implementation(columns, kernel, conv, stream)
            for tile in offered
            for stream in [tile.stream(packed, bias, multiplier, conv.groups)]
            for columns in _columns(tile, conv, kernel)
        ]


def _takes(conv: Conv2D) -> bool:
    batch, _, width, _ = conv.window.input_shape
    reach = conv.window.size[1] * conv.window.dilation[1] + sum(conv.window.padding)
    return batch == 1 and width + reach < _MOST_COLUMNS


def _takes_sum(kernel: Conv2DAdd) -> bool:
    rounding = kernel.add.rounding
    return (
        kernel.conv.groups == 1
        and isinstance(rounding, SingleRounding)
        and 1 <= rounding.shift <= 31
        and int(np.prod(kernel.add.shape)) == int(np.prod(kernel.add.other_shape))
    )


def _columns(tile: Tile, conv: Conv2D, kernel: Conv2D | Conv2DAdd) -> list[Columns]:
    """The drivers that can serve: one with borders also serves where there are none."""
    runs = Runs.of(conv)
    torn = runs.per_row > 1 or conv.groups > 1
    sums = add_routine(kernel.add) if isinstance(kernel, Conv2DAdd) else None
    found = []
    for bordered in (True,) if any(conv.window.padding) else (False, True):
        # without a border nothing is cut, and a run may end within a word
        ragged = bordered and runs.tap_bytes % 4 != 0
        unit = runs.tap_bytes // 4 if bordered and not ragged else runs.words
        found += [
            Columns(tile, unroll, bordered, torn, ragged, sums)
            for unroll in (1, 2, 4)
            if unit % unroll == 0
        ]
    return found


def _implementation(
    columns: Columns,
    kernel: Conv2D | Conv2DAdd,
    conv: Conv2D,
    stream: np.ndarray,
) -> Implementation:
    runs, tile = Runs.of(conv), columns.tile
    quads, outputs = runs.quads(conv), conv.output_channels // conv.groups
    starts = group_starts(int(np.prod(conv.window.output_size)), tile.pixels)
    stride = outputs if columns.sums else conv.output_channels
    constant = [tile.header(conv.requantize, quads, outputs, stride), columns.header(conv, runs)]
    own, inner = columns.work(conv, runs), tile.work(quads, outputs)
    calls, whole = len(starts) * conv.groups, conv.groups == 1 and columns.sums is None
    cost = Cost(own[0] + calls * inner[0], own[1] + calls * inner[1], 0)
    assembly = {columns.symbol: columns.text, tile.symbol: tile.text}
    if columns.sums and isinstance(kernel, Conv2DAdd):
        size = tile.pixels * outputs
        fresh = size - (len(starts) * size - _elements(conv))
        for elements in (size, fresh):
            constant.append(
                sum_parameters(
                    kernel.add, elements, aligned=outputs % 4 == 0,
                    swapped=kernel.conv_operand == 1,
                )
            )  # fmt: skip
        each = columns.sums.cost(size)
        cost = Cost(
            cost.instructions + each.instructions * calls, cost.cycles + each.cycles * calls, 0
        )
        assembly[columns.sums.symbol] = columns.sums.text
    header_words, turns = sum(map(len, constant)), -(-outputs // 2) * conv.groups
    constant.append(stream)
    return Implementation(
        symbol=columns.symbol,
        constants=(np.concatenate(constant),),
        cost=cost,
        description=(
            f"dsp conv, {tile.channels} channels x {tile.pixels} pixels x "
            f"{4 * tile.unroll} inputs, {tile.form}" + (", added" if columns.sums else "")
        ),
        assembly=assembly,
        scratch_bytes=columns.scratch_bytes(runs, conv),
        may_overlap_input=overlap_distance(conv, starts, tile.pixels),
        in_place_arguments=(1,) if columns.sums else (),
        codec=tile.codec,
        stream=tile.layout(header_words, quads, turns, own, calls if whole else 0),
    )


def _elements(conv: Conv2D) -> int:
    return int(np.prod(conv.output_shape))


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
