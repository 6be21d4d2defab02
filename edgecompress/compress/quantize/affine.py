"""How a tensor's real values are stored as integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Bits = Literal[8, 16]

# Below this a float32 scale product would lose precision or vanish; the tensor is all zeros.
_LEAST_SPAN = 1e-6


@dataclass(frozen=True)
class Affine:
    """real = scale * (stored - zero_point), stored in int8 [-128, 127] or int16."""

    scale: np.float32
    zero_point: int
    bits: Bits = 8

    @property
    def lowest(self) -> int:
        return -(2 ** (self.bits - 1))

    @property
    def highest(self) -> int:
        return 2 ** (self.bits - 1) - 1

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """Round half to even, saturate: the ONNX QuantizeLinear rule. Returns float of integers."""
        stored = np.rint(values / np.float64(self.scale)) + self.zero_point
        return np.clip(stored, self.lowest, self.highest)

    def dequantize(self, stored: np.ndarray) -> np.ndarray:
        return (stored - self.zero_point) * np.float64(self.scale)


def affine_from_range(
    low: float, high: float, *, bits: Bits = 8, symmetric: bool = False
) -> Affine:
    """The scale for [low, high], widened to contain 0 so that padding is exact.

    Symmetric: zero point 0 and scale max(-low, high) / (2^(bits-1) - 1). Asymmetric: all 2^bits
    integers between low and high.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    highest = 2 ** (bits - 1) - 1
    if symmetric:
        return Affine(np.float32(max(-low, high, _LEAST_SPAN) / highest), 0, bits)
    scale = np.float32(max(high - low, _LEAST_SPAN) / (2 * highest + 1))
    zero_point = np.rint(-highest - 1 - low / np.float64(scale))
    return Affine(scale, int(np.clip(zero_point, -highest - 1, highest)), bits)


def softmax_affine(bits: Bits) -> Affine:
    """TensorFlow Lite fixes it: 1/256 from -128 on, or 1/32768 from 0 on."""
    return Affine(np.float32(1 / 256), -128) if bits == 8 else Affine(np.float32(2.0**-15), 0, 16)
