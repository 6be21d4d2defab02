"""The constants an MVE routine reads: a header of 32-bit words, then its stream.

Every size and every quantization parameter is a header word, so one routine serves all layers of
its kind. The first eight words are the same for all of them:

    0 blocks of 16 inputs (or of 16 channels)   1 output channels   2 -shift   3 rounding constant
    4 low   5 high   6 left shift of the accumulator   7 where the stream begins, in bytes

and the stream holds biases, weights and multipliers in the order in which they are used.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecompress.lower.kernels.add import Add, SingleRounding
from edgecompress.lower.kernels.requant import Requantize

BLOCK = 16  # bytes in a vector register
GROUP = 4  # output channels computed together
# Estimate: a vector instruction takes two cycles (four beats of two), loads overlap arithmetic.
CYCLES_PER_INSTRUCTION = 1.5


def requantize_words(blocks: int, channels: int, requantize: Requantize) -> list[int]:
    """Header words 0 to 6 of the "smmla" form."""
    constant = (requantize.zero_point << requantize.shift) + (1 << (requantize.shift - 1))
    return [
        blocks, channels, -requantize.shift, constant,
        requantize.low, requantize.high, requantize.left_shift,
    ]  # fmt: skip


def addition_words(add: Add, conv_operand: int) -> list[int]:
    """The eight words before the stream of a convolution that is added to something.

    Factors of the convolution's result and of the other operand, offset, -shift, low, high.
    """
    assert isinstance(add.rounding, SingleRounding)
    factors = add.rounding.factors
    mine, other = factors[conv_operand], factors[1 - conv_operand]
    return [mine, other, add.rounding.offset, -add.rounding.shift, add.low, add.high, 0, 0]


def pack(
    words: Sequence[int], more: Sequence[int], stream: np.ndarray, last: Sequence[int] = ()
) -> np.ndarray:
    """Seven header words, the stream's place, the routine's own words, the stream: int32 `[n]`.

    Args:
        more: the routine's own words, from word 8.
        last: words directly before the stream.
    """
    header = [*words, 0, *more]
    header += [0] * (-len(header) % 4)
    header += last
    header[7] = 4 * len(header)
    return np.concatenate([np.array(header, np.int64).astype(np.int32), stream.view(np.int32)])


def interleave(rows: np.ndarray, bias: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    """The stream of `edge_mve_rows1` and `edge_mve_rows2`.

    For each group of four channels: 4 biases; for each 16 inputs the 16 weights of each of the
    four channels; 4 multipliers. Inputs and channels that are missing have zeros.

    Args:
        rows: int8 `[channels, inputs]`.
        bias, multiplier: int32 `[channels]`.

    Returns:
        uint8 `[bytes]`.
    """
    channels, inputs = rows.shape
    groups, blocks = -(-channels // GROUP), -(-inputs // BLOCK)
    weights = np.zeros((groups * GROUP, blocks * BLOCK), np.int8)
    weights[:channels, :inputs] = rows
    weights = weights.reshape(groups, GROUP, blocks, BLOCK).transpose(0, 2, 1, 3)
    return np.concatenate(
        [
            padded(bias, groups * GROUP).reshape(groups, -1).view(np.uint8),
            np.ascontiguousarray(weights).reshape(groups, -1).view(np.uint8),
            padded(multiplier, groups * GROUP).reshape(groups, -1).view(np.uint8),
        ],
        axis=1,
    ).reshape(-1)


def padded(values: np.ndarray, count: int) -> np.ndarray:
    """int32 `[count]`: the values, then zeros."""
    result = np.zeros(count, np.int32)
    result[: values.size] = values.reshape(-1)
    return result
