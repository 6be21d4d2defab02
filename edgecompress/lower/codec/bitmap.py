"""Sparse values: one bit each, and the bytes of those that are not zero.

    [mask byte of each eight values, the first lowest] [nonzero values, int8]

It pays where more than one value in eight is zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.lower.codec.interface import padded, require, units

LEAST_ZEROS = 1 / 8
"""Share of zeros at which a bitmap takes as much as the values themselves."""


@dataclass(frozen=True)
class Bitmap:
    """Takes values of which at least an eighth are zero."""

    name: str = "bitmap"

    def takes(self, values: np.ndarray) -> bool:
        zeros = values.size - np.count_nonzero(values)
        return values.size > 0 and zeros >= LEAST_ZEROS * values.size

    def encoded_bytes(self, values: np.ndarray) -> int:
        return units(values) + int(np.count_nonzero(values))

    def encode(self, values: np.ndarray) -> np.ndarray:
        require(self, values)
        flat = padded(values)
        masks = np.packbits(flat != 0, bitorder="little")
        return np.concatenate([masks, flat[flat != 0].view(np.uint8)])

    def decode(self, data: np.ndarray, count: int) -> np.ndarray:
        data = np.asarray(data, np.uint8)
        masks = -(-count // 8)
        present = np.unpackbits(data[:masks], bitorder="little").astype(bool)
        values = np.zeros(len(present), np.int8)
        values[present] = data[masks:].view(np.int8)
        return values[:count]
