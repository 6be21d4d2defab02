"""What every codec offers: int8 values to bytes and back, without loss."""

from __future__ import annotations

from typing import Protocol

import numpy as np

UNIT = 8
"""Values the device decodes at a time; a stream is padded to a multiple of it."""


class Codec(Protocol):
    """A lossless storage of int8 values, chosen by looking at them; one file a codec.

    Values are a flat array in the order the kernel streams them.
    """

    @property
    def name(self) -> str:
        """As reports name it."""
        ...

    def takes(self, values: np.ndarray) -> bool:
        """True if these int8 values can be encoded."""
        ...

    def encoded_bytes(self, values: np.ndarray) -> int:
        """Exactly `encode(values).nbytes`."""
        ...

    def encode(self, values: np.ndarray) -> np.ndarray:
        """uint8 array.

        Raises:
            ValueError: `takes` refuses these values.
        """
        ...

    def decode(self, data: np.ndarray, count: int) -> np.ndarray:
        """The first `count` values, int8; what the device computes."""
        ...


def padded(values: np.ndarray, value: int = 0) -> np.ndarray:
    """Flat, with `value` behind up to a multiple of `UNIT`."""
    flat = np.asarray(values, np.int8).reshape(-1)
    return np.pad(flat, (0, -len(flat) % UNIT), constant_values=value)


def units(values: np.ndarray) -> int:
    """How many units of `UNIT` values hold these."""
    return -(-np.asarray(values).size // UNIT)


def require(codec: Codec, values: np.ndarray) -> None:
    """Raises ValueError where a codec refuses values it was asked to encode."""
    if not codec.takes(values):
        raise ValueError(f"{codec.name} cannot hold these {np.asarray(values).size} values.")
