"""1x1 convolutions of stride 1 for Thumb-2 with DSP: every pixel's inputs follow the last one's.

A driver of its own, without borders and rows, for networks that have only such convolutions beside
depthwise ones. The multiplication is `tile.py`'s, shared with `conv2d.py`.

    constants   [tile header] [last group's pixel, bytes widened, bytes to the next pixel, their
                difference] [stream]

The last group of pixels overlaps the one before when the pixels are no multiple of a group. A
channel count that is no multiple of 4 reads on into what follows, up to 3 bytes past the input's
end, and multiplies it by zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.isa.dsp.asm import cycles, instruction_count, routine, written_once
from edgecompress.lower.isa.dsp.packed4_tile import packed4_tiles
from edgecompress.lower.isa.dsp.tile import Tile, forms, tiles
from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.kernels.conv2d import Conv2D

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

_DRIVER_WORDS = 4


@dataclass(frozen=True)
class _Driver:
    """Widens a group of pixels, multiplies, next group; `unroll` words a widening loop."""

    tile: Tile
    unroll: int

    @property
    def symbol(self) -> str:
        return f"pointwise_{self.unroll}_{self.tile.symbol}"

    @written_once
    def text(self) -> str:
        lines = [*self._prologue(), "1:", *self._group(), "2:", *self._pixel(), "3:"]
        lines += [*self._widen(), *self._pixel_end(), *self._call(), "4:", *self._end()]
        return routine(self.symbol, lines)

    def work(self, groups: int, words: int) -> tuple[int, int]:
        """(instructions, cycles) of one layer without the tiles."""
        pixels = groups * self.tile.pixels
        parts = [
            ([*self._prologue(), *self._end()], 1),
            ([*self._group(), *self._call()], groups),
            ([*self._pixel(), *self._pixel_end()], pixels),
            (self._widen(), pixels * words // self.unroll),
        ]
        return (
            sum(instruction_count(lines) * times for lines, times in parts),
            sum(cycles(lines) * times for lines, times in parts),
        )

    def _prologue(self) -> list[str]:
        """r0 input, r1 constants, r2 columns, r3 output; then r5 to r8, r4 the group's pixel."""
        return ["push {r4-r11, lr}", "sub sp, #4", "mov r5, r0", "mov r6, r1", "mov r7, r2",
                "mov r8, r3", f"add.w r9, r1, #{4 * self.tile.header_words}",
                "movs r4, #0"]  # fmt: skip

    def _group(self) -> list[str]:
        return ["ldm r9, {r0, r10, r11, r12}", "mla r0, r4, r11, r5", "mov r1, r7",
                f"movs r2, #{self.tile.pixels}"]  # fmt: skip

    def _pixel(self) -> list[str]:
        return ["add.w r3, r0, r10", "mov lr, r1"]

    def _widen(self) -> list[str]:
        step = 4 * self.tile.pixels
        word = ["ldr r11, [r0], #4", "sxtb16 r12, r11", "sxtb16 r11, r11, ror #8",
                f"str r11, [r1, #{step}]", f"str r12, [r1], #{2 * step}"]  # fmt: skip
        return [*word * self.unroll, "cmp r0, r3", "bne.n 3b"]

    def _pixel_end(self) -> list[str]:
        return ["ldr r11, [r9, #12]", "add r0, r11", "add.w r1, lr, #4", "subs r2, #1", "bne.n 2b"]

    def _call(self) -> list[str]:
        return [f"add.w r0, r9, #{4 * _DRIVER_WORDS}", "mov r1, r7", "ldr r10, [r6]",
                "mla r2, r4, r10, r8", "mov r3, r6", f"bl {self.tile.symbol}", "ldr r0, [r9]",
                "cmp r4, r0", "beq.n 4f", f"adds r4, #{self.tile.pixels}", "cmp r4, r0", "it gt",
                "movgt r4, r0", "b.n 1b"]  # fmt: skip

    def _end(self) -> list[str]:
        return ["add sp, #4", "pop {r4-r11, pc}"]

    def header(self, pixels: int, channels: int) -> np.ndarray:
        word_bytes = -(-channels // 4) * 4
        last = pixels - self.tile.pixels
        return np.array([last, word_bytes, channels, channels - word_bytes], np.int32)


class PointwiseGenerator:
    """`Conv2D` with a 1x1 window, stride 1, no padding and one group."""

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not isinstance(kernel, Conv2D) or not is_pointwise(kernel):
            return []
        weights, bias, multiplier = constants[0], constants[1], constants[2]
        weights = weights.reshape(kernel.output_channels, -1)
        pixels = int(np.prod(kernel.output_shape[:3]))
        words = -(-weights.shape[1] // 4)
        offered = packed4_tiles(kernel.requantize, weights, bias, pixels, 1)
        for form in forms(kernel.requantize, weights, bias):
            offered += tiles(form, kernel.requantize, pixels, kernel.output_channels)
        return [
            _implementation(_Driver(tile, unroll), kernel, pixels, (weights, bias, multiplier))
            for tile in offered
            for unroll in (1, 2, 4)
            if words % unroll == 0
        ]


def is_pointwise(kernel: Conv2D) -> bool:
    window = kernel.window
    return (
        kernel.groups == 1
        and window.size == (1, 1)
        and window.strides == (1, 1)
        and not any(window.padding)
    )


def _implementation(
    driver: _Driver, kernel: Conv2D, pixels: int, arrays: tuple[np.ndarray, ...]
) -> Implementation:
    weights, bias, multiplier = arrays
    tile = driver.tile
    outputs, channels = weights.shape
    quads = -(-channels // 4)
    padded = np.pad(weights, ((0, 0), (0, 4 * quads - channels)))
    groups = -(-pixels // tile.pixels)
    constant = np.concatenate(
        [
            tile.header(kernel.requantize, quads, outputs, outputs),
            driver.header(pixels, channels),
            tile.stream(padded, bias, multiplier),
        ]
    )
    own, inner = driver.work(groups, quads), tile.work(quads, outputs)
    return Implementation(
        symbol=driver.symbol,
        constants=(constant,),
        cost=Cost(own[0] + groups * inner[0], own[1] + groups * inner[1], 0),
        description=(
            f"dsp pointwise, {tile.channels} channels x {tile.pixels} pixels x "
            f"{4 * tile.unroll} inputs, {tile.form}"
        ),
        assembly={driver.symbol: driver.text, tile.symbol: tile.text},
        scratch_bytes=8 * quads * tile.pixels,
        may_overlap_input=overlap_distance(groups, tile.pixels, pixels, channels, outputs),
        codec=tile.codec,
        stream=tile.layout(tile.header_words + _DRIVER_WORDS, quads, -(-outputs // 2), own, groups),
    )


def overlap_distance(groups: int, size: int, pixels: int, channels: int, outputs: int) -> int:
    """How far after the input's start the output may start, in bytes.

    A group reads its pixels before it writes them. What it writes must lie before everything the
    next groups read, the first of which begins where the group ends, or earlier for the last.
    """
    return min(
        (
            min((group + 1) * size, pixels - size) * channels - (group + 1) * size * outputs
            for group in range(groups - 1)
        ),
        default=0,
    )
