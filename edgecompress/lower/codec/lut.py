"""Few distinct values: a table of them, and their places in it.

    [table: 16 or 4 int8 values, ascending, the last repeated] [codes, the first value lowest]

A table of 16 has two codes a byte, one of 4 has four. Weight sharing (k-means codebooks: Han et
al., "Deep Compression", section 3) and low precision of any step come out like this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.lower.codec.interface import UNIT, padded, require, units


@dataclass(frozen=True)
class Lut:
    """Takes at most `entries` distinct values, 4 or 16."""

    entries: int

    @property
    def name(self) -> str:
        return f"lut{self.entries}"

    @property
    def bits(self) -> int:
        return 4 if self.entries == 16 else 2

    def takes(self, values: np.ndarray) -> bool:
        return 0 < len(np.unique(values)) <= self.entries

    def encoded_bytes(self, values: np.ndarray) -> int:
        return self.entries + UNIT * self.bits // 8 * units(values)

    def table(self, values: np.ndarray) -> np.ndarray:
        """The distinct values, int8 `[entries]`."""
        distinct = np.unique(np.asarray(values, np.int8))
        return np.pad(distinct, (0, self.entries - len(distinct)), mode="edge")

    def encode(self, values: np.ndarray) -> np.ndarray:
        require(self, values)
        table = self.table(values)
        flat = padded(values, int(table[0]))
        codes = np.searchsorted(table, flat).astype(np.uint8).reshape(-1, 8 // self.bits)
        shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
        packed = np.bitwise_or.reduce(codes << shifts, axis=1)
        return np.concatenate([table.view(np.uint8), packed])

    def decode(self, data: np.ndarray, count: int) -> np.ndarray:
        data = np.asarray(data, np.uint8)
        shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
        codes = data[self.entries :, None] >> shifts & (self.entries - 1)
        return data[: self.entries].view(np.int8)[codes.reshape(-1)[:count]]
