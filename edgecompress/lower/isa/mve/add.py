"""Residual addition on MVE: four 32-bit sums at a time, in place over either operand.

(x * factor0 + y * factor1 + offset) >> shift by VMUL, VMLA, VADD and VSHL in 32-bit lanes, clamped
and narrowed by the store; the loop's own predicate takes the last elements. Constants:

    [elements, factor0, factor1, offset, -shift, low, high]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.isa.dsp.asm import routine
from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.isa.mve.packing import CYCLES_PER_INSTRUCTION
from edgecompress.lower.kernels.add import Add, SingleRounding

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

ADD = "edge_mve_add"
_LINES = [
    "push {r4-r9, lr}",
    "ldm r2, {r2, r4-r9}",
    "vdup.32 q2, r8",
    "vdup.32 q3, r9",
    "dlstp.32 lr, r2",
    "1:",
    "vldrb.s32 q0, [r0], #4",
    "vldrb.s32 q1, [r1], #4",
    "vmul.i32 q0, q0, r4",
    "vmla.i32 q0, q1, r5",
    "vadd.i32 q0, q0, r6",
    "vshl.s32 q0, r7",
    "vmax.s32 q0, q0, q2",
    "vmin.s32 q0, q0, q3",
    "vstrb.32 q0, [r3], #4",
    "letp lr, 1b",
    "pop {r4-r9, pc}",
]
_LOOP_INSTRUCTIONS = 10


def routines() -> dict[str, str]:
    return {ADD: routine(ADD, _LINES)}


@dataclass(frozen=True)
class AddGenerator:
    """`Add` of two activations of one shape, rounded once. Refuses broadcasts, constant operands
    and LiteRT's rounding.
    """

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not isinstance(kernel, Add) or not isinstance(kernel.rounding, SingleRounding):
            return []
        if kernel.shape != kernel.other_shape or constants:
            return []
        elements, rounding = int(np.prod(kernel.shape)), kernel.rounding
        fields = [elements, *rounding.factors, rounding.offset, -rounding.shift]
        constant = np.array([*fields, kernel.low, kernel.high], np.int64).astype(np.int32)
        instructions = 7 + _LOOP_INSTRUCTIONS * -(-elements // 4)
        return [
            Implementation(
                symbol=ADD,
                constants=(constant,),
                cost=Cost(instructions, round(instructions * CYCLES_PER_INSTRUCTION), 0),
                description="mve add, 4 elements",
                assembly=routines(),
                may_overlap_input=0,
                in_place_arguments=(1,),
            )
        ]
