"""Convolutions and dense layers for RV32IM: the kernels' own TIR, eight output channels at a time.

RV32IM has no multiply-accumulate and no packed arithmetic: a MAC is a load, MUL and ADD, and what
can be saved is loading the input. A tile of eight takes 8 x 3 + 1 instructions and three of loop
where the generic tile of four takes 4 x 3 + 1 and three: 3.5 a MAC instead of 4. Cortex-M has 13
registers, too few for eight accumulators.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecompress.lower.isa.interface import Cost, Generator, Implementation
from edgecompress.lower.kernels.conv2d import Conv2D
from edgecompress.lower.kernels.conv2d_add import Conv2DAdd
from edgecompress.lower.kernels.dense import Dense
from edgecompress.lower.kernels.loops import tile_output_channels
from edgecompress.lower.kernels.primfunc import build_function
from edgecompress.lower.program import Overlap

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

_WIDTH = 8
_TILE_STEP = 3 * _WIDTH + 1 + 3
# bias, MULH, rounding, clamping and storing one result
_FINISH = 14
# CV32E40P: a taken branch costs two cycles more than one, MULH four
_TILE_STEP_STALL, _FINISH_STALL = 2, 8
_CODE_BYTES = 900


@dataclass(frozen=True)
class _Wide:
    """A kernel with the wider tile as its schedule."""

    op: str
    macs: int
    compute: Callable[..., Any]
    reference: Callable[..., np.ndarray]
    overlaps: tuple[Overlap, ...]

    def schedule(self, schedule: Any, function_name: str) -> None:
        tile_output_channels(schedule, function_name, _WIDTH)


@dataclass(frozen=True)
class WideTileGenerator:
    """`Conv2D` of one group, the same with an addition, and `Dense`, of a multiple of 8 outputs.

    Pixels are still finished one after the other, so the output may lie over the input exactly as
    the kernel's own TIR permits.
    """

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not isinstance(kernel, Conv2D | Conv2DAdd | Dense):
            return []
        shapes = _activations(kernel)
        if not shapes or kernel.output_shape[-1] % _WIDTH:
            return []
        overlaps = () if isinstance(kernel, Dense) else kernel.overlaps
        arguments = [(shape, "int8") for shape in shapes]
        arguments += [(array.shape, str(array.dtype)) for array in constants]
        symbol = "rv32_" + hashlib.sha256(repr((kernel, arguments)).encode()).hexdigest()[:12]
        wide = _Wide(kernel.op, kernel.macs, kernel.compute, kernel.reference, overlaps)
        first = next((item for item in overlaps if item.argument == 0), None)
        return [
            Implementation(
                symbol=symbol,
                constants=constants,
                cost=_cost(kernel),
                description=f"rv32 {kernel.op}, {_WIDTH} channels",
                driver=build_function(wide, arguments, symbol),
                may_overlap_input=None if first is None else first.distance_bytes,
                in_place_arguments=tuple(item.argument for item in overlaps if item.argument > 0),
            )
        ]


def _activations(kernel: Conv2D | Conv2DAdd | Dense) -> list[tuple[int, ...]]:
    """The shapes of the activation arguments; empty for a convolution in groups."""
    if isinstance(kernel, Dense):
        return [kernel.input_shape]
    conv = kernel.conv if isinstance(kernel, Conv2DAdd) else kernel
    if conv.groups != 1:
        return []
    shapes: list[tuple[int, ...]] = [conv.window.input_shape]
    return [*shapes, conv.output_shape] if isinstance(kernel, Conv2DAdd) else shapes


def _cost(kernel: Conv2D | Conv2DAdd | Dense) -> Cost:
    results = int(np.prod(kernel.output_shape))
    steps = kernel.macs // _WIDTH
    instructions = steps * _TILE_STEP + results * _FINISH
    stalls = steps * _TILE_STEP_STALL + results * _FINISH_STALL
    return Cost(instructions, instructions + stalls, _CODE_BYTES)


GENERATORS: tuple[Generator, ...] = (WideTileGenerator(),)
