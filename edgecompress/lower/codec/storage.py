"""What a storage of weights costs, before there are weights: for the planner.

The instructions are those of the DSP set's code: packed4 is unpacked inside the kernel, at a price
for each multiplication; everything else is decoded into scratch once an inference, at a price for
each weight, so that layers with many output pixels hardly notice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

StorageFormat = Literal["int8", "int4", "shared16", "shared4", "sparse"]

_BITS = {"int8": 8, "int4": 4, "shared16": 4, "shared4": 2}
_TABLE_BYTES = {"shared16": 16, "shared4": 4}
# Measured on the virtual board; a dense layer has a multiplication a weight.
_PER_MAC = {"int4": 0.17}
_PER_WEIGHT = {"shared16": 1.7, "shared4": 1.9, "sparse": 3.3}


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

    Example: 64 x 64 x 3 x 3 weights in int4 take 18,432 bytes instead of 36,864, for 0.17
    instructions a multiplication on top of some 0.75.
    """
    if format == "sparse":
        stored = math.ceil(weights / 8) + round(weights * (1.0 - sparsity))
        stored = min(weights, stored)
    else:
        stored = math.ceil(weights * _BITS[format] / 8) + _TABLE_BYTES.get(format, 0)
    extra = _PER_MAC.get(format, 0.0) * macs + _PER_WEIGHT.get(format, 0.0) * weights
    return StorageCost(stored, extra)
