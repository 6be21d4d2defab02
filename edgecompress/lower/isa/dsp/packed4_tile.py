"""The DSP convolutions' multiplication by weights of four bits, unpacked on the way to it.

Four inputs of two channels A and B are one word: the byte of input k holds 16 * B + A, two signed
digits, so half of what int8 needs.

    SXTB16 of the word         16 * B + A in 16-bit lanes, summed in one register a pixel
    SXTB16 of (word << 4)      16 * A, each byte without its neighbour's digit, in another

The end tells them apart: 16 * B = (16 * B + A) - (16 * A >> 4). Both sums go through the
requantization with a shift that is 4 larger and come out the same, see `tile.py`. 21 instructions
for 24 multiplications at 3 pixels, where int8 pairs take 17; any layer whose sums fit 28 bits.

Columns, drivers, header and epilogue are those of `tile.py`, so nothing else knows of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.isa.dsp.tile import (
    MOST_PIXELS,
    Tile,
    clamps,
    rounding_fits,
    with_partners,
    words_of_bytes,
)

if TYPE_CHECKING:
    from edgecompress.lower.kernels.requant import Requantize

_SCALE_BITS = 4
_SUM_BITS = 27  # of a sum's magnitude: 16 times it stays within int32


@dataclass(frozen=True)
class Packed4Tile(Tile):
    """`Tile` of two channels whose weights are digits of four bits."""

    @property
    def codec(self) -> str:
        return "packed4"

    @property
    def _end_register(self) -> str:
        return ""  # r12 holds a lane of weights

    def _unit(self) -> list[str]:
        load = self._load_columns()
        lines = ["ldr r10, [lr], #4", "and r11, r10, #0x0f0f0f0f", "lsl.w r11, r11, #4"]
        for turn, rotation in enumerate(("", ", ror #8")):
            # the second turn needs neither word again
            both, low = ("r12", "r12") if turn == 0 else ("r10", "r11")
            lines += [load, f"sxtb16 {both}, r10{rotation}", *self._multiply(self._second, both)]
            lines += [f"sxtb16 {low}, r11{rotation}", *self._multiply(self._first, low)]
        return lines

    def _epilogue(self) -> list[str]:
        multipliers, *rest = super()._epilogue()
        apart = [
            f"sub.w {b}, {b}, {a}, asr #4" for a, b in zip(self._first, self._second, strict=True)
        ]
        return [multipliers, *apart, *rest]

    def header(self, requantize: Requantize, quads: int, channels: int, stride: int) -> np.ndarray:
        return super().header(_scaled(requantize), quads, channels, stride)

    def stream(
        self, weights: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, groups: int = 1
    ) -> np.ndarray:
        """As `Tile.stream`, with half the words of weights."""
        if self.odd:
            weights, bias, multiplier = (
                with_partners(array, groups) for array in (weights, bias, multiplier)
            )
        wide = bias.astype(np.int64).reshape(-1, 2)
        sums = np.stack([16 * wide[:, 0], 16 * wide[:, 1] + wide[:, 0]], axis=1)
        words = words_of_bytes(_digits(weights).reshape(len(wide), -1, 4))
        rows = np.concatenate([sums, words, multiplier.reshape(-1, 2)], axis=1)
        return (rows & 0xFFFFFFFF).astype(np.uint32).view(np.int32).reshape(-1)


def _digits(weights: np.ndarray) -> np.ndarray:
    """16 * B + A of each two channels, int64."""
    wide = weights.astype(np.int64)
    return 16 * wide[1::2] + wide[0::2]


def _scaled(requantize: Requantize) -> Requantize:
    """For sums 16 times as large."""
    return replace(requantize, shift=requantize.shift + _SCALE_BITS)


def packed4_tiles(
    requantize: Requantize, weights: np.ndarray, bias: np.ndarray, pixels: int, groups: int
) -> list[Tile]:
    """The routines for these channels, none where weights or sums do not fit.

    A byte ends at -128, so -8 cannot stand beside a negative weight of its partner.

    Args:
        weights: int8 `[channels, inputs]`, inputs a multiple of 4.
        bias: int32 `[channels]`.
        groups: the convolution's.
    """
    if weights.size == 0 or weights.min() < -8 or weights.max() > 7:
        return []
    if not rounding_fits(_scaled(requantize)):
        return []
    wide = weights.astype(np.int64)
    most = np.maximum(wide * 127, wide * -128).sum(axis=1) + np.abs(bias.astype(np.int64))
    if most.max() >= 1 << (_SUM_BITS - requantize.left_shift):
        return []
    odd = weights.shape[0] // groups % 2 == 1
    if _digits(with_partners(weights, groups) if odd else weights).min() < -128:
        return []
    left = requantize.left_shift > 0
    return [
        Packed4Tile("packed4", min(pixels, MOST_PIXELS), unroll, left, clamps(requantize), odd)
        for unroll in (1, 2, 4)
    ]
