"""What a kernel's own TIR costs on Thumb-2 with DSP, so that it competes with the generators.

LLVM's code is known only once it is compiled, which is too dear for every candidate of a plan. Its
structure is known: `kernels/loops.py` loads an input once for up to four output channels, computes
the address again for each tap and asks at each tap of a padded window whether it lies inside. The
constants were fitted (least relative error) to 280 kernels of random shapes counted on the virtual
Cortex-M4: half of all predictions are within 15 %, nine of ten between 0.6 and 1.25 of the count.
Too low is the rule for padded windows over many channels, which no generator loses to.

Example: 3x3, padded, 16 channels to 16, 8 x 8 pixels, 147,456 MACs: 2.9 a MAC, 4.9 + 16 * 1.3 a tap
of each tile of four outputs, 9.8 an output: 689,000 instructions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.kernels.add import Add
from edgecompress.lower.kernels.conv2d import Conv2D
from edgecompress.lower.kernels.conv2d_add import Conv2DAdd
from edgecompress.lower.kernels.dense import Dense
from edgecompress.lower.kernels.depthwise_conv2d import DepthwiseConv2D
from edgecompress.lower.kernels.loops import tile_width
from edgecompress.lower.kernels.max_pool2d import MaxPool2d

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel


@dataclass(frozen=True)
class _Work:
    """How often each thing happens in one call.

    `taps` are those of a tile of output channels, `padded_taps` the ones that may lie outside,
    `padded_steps` the latter's inputs.
    """

    macs: int = 0
    taps: int = 0
    padded_taps: int = 0
    padded_steps: int = 0
    outputs: int = 0


_Rates = tuple[float, float, float, float, float]
"""Of a `_Work`'s fields, in their order."""

# kind -> instructions, Cortex-M4 cycles (TRM table), bytes of code
_FITTED: dict[str, tuple[_Rates, _Rates, int]] = {
    "convolution": ((2.92, 0.50, 4.91, 1.28, 9.77), (3.82, 0.52, 6.92, 1.58, 11.66), 800),
    "depthwise": ((3.32, 0, 7.63, 0, 7.94), (4.19, 0, 10.93, 0, 9.31), 600),
    "maximum": ((0, 3.67, 2.86, 0, 0), (0, 4.24, 3.85, 0, 0), 400),
    "sum": ((0, 0, 0, 0, 6.68), (0, 0, 0, 0, 7.69), 250),
}
_CALL = 20  # entering, leaving and the outer loops' first turns


def with_portable(
    offers: list[Implementation], kernel: Kernel, constants: tuple[np.ndarray, ...], function: str
) -> list[Implementation]:
    """The offers and, where it is faster than all that keep plain weights, the kernel's own TIR.

    Slower TIR stays out of the choice: its code is not shared as the routines are, and its size is
    known too roughly to weigh against them.
    """
    plain = [offer.cost.cycles for offer in offers if not offer.codec]
    own = portable_offer(kernel, constants, function) if plain else None
    return [*offers, own] if own is not None and own.cost.cycles < min(plain) else offers


def portable_offer(
    kernel: Kernel, constants: tuple[np.ndarray, ...], function: str
) -> Implementation | None:
    """The kernel's TIR as one more offer; None for kinds whose cost is not known.

    Args:
        constants: the step's, unpacked.
        function: the step's own.
    """
    found = _work(kernel)
    if found is None:
        return None
    kind, work = found
    counts = (work.macs, work.taps, work.padded_taps, work.padded_steps, work.outputs)
    instructions, cycles = (
        _CALL + round(sum(rate * count for rate, count in zip(rates, counts, strict=True)))
        for rates in _FITTED[kind][:2]
    )
    cost = Cost(instructions, cycles, _FITTED[kind][2])
    return Implementation(function, constants, cost, "", portable=True)


def _work(kernel: Kernel) -> tuple[str, _Work] | None:
    if isinstance(kernel, Conv2DAdd):
        return _work(kernel.conv)
    if isinstance(kernel, Conv2D):
        window = kernel.window
        taps, inputs = int(np.prod(window.size)), window.input_shape[3] // kernel.groups
        tiles = int(np.prod(kernel.output_shape)) // tile_width(
            kernel.output_channels // kernel.groups
        )
        padded = any(window.padding) * tiles * taps
        outputs = int(np.prod(kernel.output_shape))
        return "convolution", _Work(kernel.macs, tiles * taps, padded, padded * inputs, outputs)
    if isinstance(kernel, DepthwiseConv2D):
        outputs = int(np.prod(kernel.output_shape))
        tiles = outputs // tile_width(kernel.output_shape[-1])
        taps = tiles * int(np.prod(kernel.window.size))
        return "depthwise", _Work(
            kernel.macs, taps, any(kernel.window.padding) * taps, outputs=outputs
        )
    if isinstance(kernel, Dense):
        rows = int(np.prod(kernel.input_shape[:-1]))
        return "convolution", _Work(kernel.macs, outputs=rows * kernel.output_channels)
    if isinstance(kernel, MaxPool2d):
        taps = int(np.prod(kernel.window.output_shape)) * kernel.window.size
        return "maximum", _Work(taps=taps, padded_taps=any(kernel.window.padding) * taps)
    if isinstance(kernel, Add) and kernel.shape == kernel.other_shape:
        return "sum", _Work(outputs=int(np.prod(kernel.shape)))
    return None
