"""Bytes of a layer's weights in each storage, before there are any weights."""

from __future__ import annotations

from edgecompress.lower.codec import storage_cost
from edgecompress.records import WeightStorage

_MANY = 1 << 20


def stored_bytes(storage: WeightStorage | None, weights: int) -> int:
    """Bytes in flash of `weights` int8 weights, tables included."""
    if storage is None:
        return weights
    return storage_cost(storage.format, weights, 0, storage.sparsity).weight_bytes


def stored_share(storage: WeightStorage | None) -> float:
    """Bytes in flash for each weight of a large layer."""
    return stored_bytes(storage, _MANY) / _MANY


def decoding_instructions(storage: WeightStorage | None, weights: int, positions: int) -> float:
    """Instructions an inference spends on decoding so many weights, each used `positions` times."""
    if storage is None:
        return 0.0
    cost = storage_cost(storage.format, weights, weights * positions, storage.sparsity)
    return cost.extra_instructions


def decoding_share(storage: WeightStorage | None, positions: int) -> float:
    """The same for each multiply-accumulate of a large layer."""
    return decoding_instructions(storage, _MANY, positions) / (_MANY * positions)
