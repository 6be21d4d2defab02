"""Values of four bits, two a byte.

Of eight values v the first four are low nibbles, the rest high ones, as v + 8: one AND and one
subtraction restore four bytes, or two 16-bit halves 256 * B + A at once.

    byte j = (v[j] + 8) | (v[j + 4] + 8) << 4,  j = 0..3
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.lower.codec.interface import UNIT, padded, require, units


@dataclass(frozen=True)
class Packed4:
    """Takes values within [-8, 7]; half a byte each."""

    name: str = "packed4"

    def takes(self, values: np.ndarray) -> bool:
        return values.size > 0 and int(values.min()) >= -8 and int(values.max()) <= 7

    def encoded_bytes(self, values: np.ndarray) -> int:
        return UNIT // 2 * units(values)

    def encode(self, values: np.ndarray) -> np.ndarray:
        require(self, values)
        codes = (padded(values) + 8).view(np.uint8).reshape(-1, 2, UNIT // 2)
        return (codes[:, 0] | codes[:, 1] << 4).reshape(-1)

    def decode(self, data: np.ndarray, count: int) -> np.ndarray:
        packed = np.asarray(data, np.uint8).reshape(-1, UNIT // 2)
        codes = np.stack([packed & 15, packed >> 4], axis=1)
        return (codes.reshape(-1)[:count].astype(np.int16) - 8).astype(np.int8)
