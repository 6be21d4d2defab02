"""Lossless storage of int8 weights in the image, chosen from the values themselves.

    packed4   all values within [-8, 7]            1/2 byte a value
    lut16     at most 16 distinct values           1/2 byte and a table of 16
    lut4      at most 4 distinct values            1/4 byte and a table of 4
    bitmap    at least an eighth of them zero      1/8 byte and 1 for each that is not zero

A deployable is ordinary int8: no side table says that a layer was quantized to four bits, shared
or pruned. `passes.specialize` looks at the values and takes a codec where the bytes it saves are
worth the instructions it costs; the generic program and its numpy twin keep the dense values.

On the device: `isa/dsp/packed4_tile.py` and `packed4_dense.py` unpack four bits inside the kernel,
`isa/dsp/decoded.py` decodes some output channels at a time into scratch, before DSP and MVE kernels
alike, and `isa/scalar` reads codes in place on cores without packed arithmetic.

`storage_cost(format, weights, macs, sparsity)` tells a planner, before there are weights, the
bytes in flash and the extra instructions of "int4", "shared16", "shared4" or "sparse". Nothing
here imports torch or tvm.
"""

from __future__ import annotations

from edgecompress.lower.codec.bitmap import Bitmap
from edgecompress.lower.codec.interface import UNIT, Codec
from edgecompress.lower.codec.lut import Lut
from edgecompress.lower.codec.packed4 import Packed4
from edgecompress.lower.codec.storage import StorageCost, storage_cost

CODECS: tuple[Codec, ...] = (Packed4(), Lut(4), Lut(16), Bitmap())

__all__ = [
    "CODECS", "UNIT", "Bitmap", "Codec", "Lut", "Packed4", "StorageCost", "storage_cost",
]  # fmt: skip
