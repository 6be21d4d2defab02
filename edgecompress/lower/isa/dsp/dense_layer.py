"""A fully connected layer as the DSP routines see it: what they take, and in which numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from edgecompress.lower.kernels.dense import Dense

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

_MOST_INPUTS = 1 << 16
_PAIR_LIMIT = 1 << 23


def takes(kernel: Kernel) -> TypeGuard[Dense]:
    """Dense layers, unless they round LiteRT's way.

    Of several rows those whose inputs are a multiple of 4 only.
    """
    if not isinstance(kernel, Dense) or kernel.requantize.form != "smmla":
        return False
    inputs = kernel.input_shape[-1]
    rows = int(np.prod(kernel.input_shape[:-1]))
    if not 0 < inputs <= _MOST_INPUTS or min(kernel.output_channels, rows) < 1:
        return False
    return rows == 1 or inputs % 4 == 0


@dataclass(frozen=True)
class DenseLayer:
    """A dense kernel and its constants."""

    kernel: Dense
    weights: np.ndarray
    bias: np.ndarray
    multipliers: np.ndarray

    @property
    def rows(self) -> int:
        return int(np.prod(self.kernel.input_shape[:-1]))

    @property
    def uniform(self) -> bool:
        return bool((self.multipliers == self.multipliers[0]).all())

    def centred(self) -> tuple[int, np.ndarray]:
        """The input value whose subtraction makes the largest bias smallest, and the biases."""
        sums = self.weights.sum(1, dtype=np.int64)
        centres = np.arange(-128, 128)
        biases = self.bias.astype(np.int64) + centres[:, None] * sums
        best = int(np.abs(biases).max(1).argmin())
        return int(centres[best]), biases[best]


def fits_pairs(weights: np.ndarray, bias: np.ndarray) -> bool:
    """True if every second channel's sum stays within 24 bits and every pair within 16.

    Args:
        weights: int8 [O, K].
        bias: int32 [O].
    """
    wide = weights.astype(np.int64)
    high = np.where(wide > 0, 127 * wide, -128 * wide).sum(1) + bias
    low = np.where(wide > 0, -128 * wide, 127 * wide).sum(1) + bias
    within = (high < _PAIR_LIMIT) & (low >= -_PAIR_LIMIT)
    second = wide[1::2]
    pairs = 256 * second + wide[0::2][: len(second)]
    return bool(within[1::2].all() and (pairs >= -(1 << 15)).all())
