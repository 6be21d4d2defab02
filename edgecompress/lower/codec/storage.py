"""What a storage of weights costs, before there are weights: for the planner.

The instructions are those of the DSP set's code. Everything is decoded into scratch once an
inference, at a price for each weight, so that layers with many output pixels hardly notice; four
bits may instead be unpacked inside the kernel, without scratch, at a price for each multiplication.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

StorageFormat = Literal["int8", "int4", "shared16", "shared4", "sparse"]

_BITS = {"int8": 8, "int4": 4, "shared16": 4, "shared4": 2}
_TABLE_BYTES = {"shared16": 16, "shared4": 4}
# Measured on the virtual board; a dense layer has a multiplication a weight.
_INT4_PER_MAC = 0.17
_PER_WEIGHT = {"int8": 0.0, "int4": 1.2, "shared16": 1.7, "shared4": 1.8, "sparse": 3.3}


@dataclass(frozen=True)
class StorageCost:
    """One layer's weights in flash, and what they cost an inference beyond dense int8."""

    weight_bytes: int
    extra_instructions: float


def storage_cost(
    format: StorageFormat, weights: int, macs: int, sparsity: float = 0.0
) -> StorageCost:
    """Bytes and extra instructions of a layer.

    Args:
        format: as in `records.WeightStorage`, or "int8".
        weights: how many the layer has.
        macs: multiplications of one inference; `weights` times the output pixels.
        sparsity: share of zeros, for "sparse".

    Example: 64 x 64 x 3 x 3 weights in int4 take 18,432 bytes instead of 36,864. For one output
    pixel they are unpacked in the kernel, for 6,267 instructions more; for 64 pixels decoded, for
    44,237 on top of 1.8 million.
    """
    if format == "sparse":
        stored = math.ceil(weights / 8) + round(weights * (1.0 - sparsity))
        stored = min(weights, stored)
    else:
        stored = math.ceil(weights * _BITS[format] / 8) + _TABLE_BYTES.get(format, 0)
    extra = _PER_WEIGHT[format] * weights
    if format == "int4":
        extra = min(extra, _INT4_PER_MAC * macs)
    return StorageCost(stored, extra)
