"""Residual addition for Thumb-2 with DSP: eight elements a round.

(x * factor0 + y * factor1 + offset) >> shift is an extraction and an MLA for each operand and one
SSAT that shifts and saturates; four results are gathered in a word. Bounds other than int8's own
are four byte-wise comparisons a word (SSUB8, SEL). The shift stands in the instructions, so a
shift has one routine of about 300 bytes; everything else is in the constants:

    [rounds of eight, elements left over, factor0, factor1, offset, low, high]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.isa.dsp.asm import cycles, instruction_count, routine
from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.kernels.add import Add, SingleRounding

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel


SUM_WORDS = 7


@dataclass(frozen=True)
class AddRoutine:
    """x r0, y r1, output r3; factors r6, r7; offset r8; words r9-r12; r2, r5, lr free."""

    shift: int
    clamp: bool

    @property
    def symbol(self) -> str:
        return f"add_shift{self.shift}{'_clamp' if self.clamp else ''}"

    @property
    def text(self) -> str:
        lines = [*self.start(), "1:", *self.round(), "2:", *self.between(), "3:", *self.single()]
        return routine(self.symbol, [*lines, *self.end()])

    def start(self) -> list[str]:
        return ["push {r4-r11, lr}", "sub sp, #12", "ldmia r2, {r4-r10}", "str r5, [sp]",
                "strd r9, r10, [sp, #4]", "cmp r4, #0", "beq.w 2f"]  # fmt: skip

    def round(self) -> list[str]:
        return [
            "ldmia r0!, {r9, r10}", "ldmia r1!, {r11, r12}",
            *self._word("r9", "r11", "r2"), *self._word("r10", "r12", "r9"),
            "subs r4, #1", "strd r2, r9, [r3], #8", "bne.w 1b",
        ]  # fmt: skip

    def _word(self, x: str, y: str, output: str) -> list[str]:
        lines = []
        for lane in range(4):
            sums = "lr" if lane else output
            lines += [
                _extract("r5", x, lane), f"mla {sums}, r5, r6, r8",
                _extract("r5", y, lane), f"mla {sums}, r5, r7, {sums}",
                f"ssat {sums}, #8, {sums}, asr #{self.shift}",
            ]  # fmt: skip
            if lane:
                lines.append(f"bfi {output}, lr, #{8 * lane}, #8")
        return lines + (self._bounded(output, y) if self.clamp else [])

    def _bounded(self, value: str, spare: str) -> list[str]:
        return ["ldr r5, [sp, #4]", "ldr lr, [sp, #8]", f"ssub8 {spare}, {value}, r5",
                f"sel {value}, {value}, r5", f"ssub8 {spare}, lr, {value}",
                f"sel {value}, {value}, lr"]  # fmt: skip

    def between(self) -> list[str]:
        return ["ldr r4, [sp]", "cbz r4, 4f"]

    def single(self) -> list[str]:
        bounded = self._bounded("r2", "r9") if self.clamp else []
        return [
            "ldrsb r2, [r0], #1", "ldrsb r5, [r1], #1", "mla r2, r2, r6, r8",
            "mla r2, r5, r7, r2", f"ssat r2, #8, r2, asr #{self.shift}", *bounded,
            "subs r4, #1", "strb r2, [r3], #1", "bne 3b",
        ]  # fmt: skip

    def end(self) -> list[str]:
        return ["4:", "add sp, #12", "pop {r4-r11, pc}"]

    def cost(self, elements: int) -> Cost:
        often = [
            (1, self.start() + self.between() + self.end()),
            (elements // 8, self.round()),
            (elements % 8, self.single()),
        ]
        return Cost(
            instructions=sum(times * instruction_count(lines) for times, lines in often),
            cycles=sum(times * cycles(lines) for times, lines in often),
            code_bytes=0,  # all of it shared
        )


def _extract(output: str, word: str, lane: int) -> str:
    if lane == 3:
        return f"asr.w {output}, {word}, #24"
    return f"sxtb.w {output}, {word}" + (f", ror #{8 * lane}" if lane else "")


@dataclass(frozen=True)
class AddGenerator:
    """`Add` of two tensors of one size, rounded once. Refuses broadcasts and LiteRT's rounding.

    The output may lie exactly on either operand.
    """

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not isinstance(kernel, Add) or not isinstance(kernel.rounding, SingleRounding):
            return []
        elements = int(np.prod(kernel.shape))
        if elements != int(np.prod(kernel.other_shape)) or not 1 <= kernel.rounding.shift <= 31:
            return []
        code = add_routine(kernel)
        parameters = sum_parameters(kernel, elements)
        return [
            Implementation(
                symbol=code.symbol,
                constants=(*constants, parameters),
                cost=code.cost(elements),
                description="dsp add, 8 elements",
                assembly={code.symbol: code.text},
                in_place_arguments=(0,) if constants else (0, 1),
            )
        ]


def add_routine(kernel: Add) -> AddRoutine:
    assert isinstance(kernel.rounding, SingleRounding)
    return AddRoutine(kernel.rounding.shift, kernel.low > -128 or kernel.high < 127)


def sum_parameters(
    kernel: Add, elements: int, *, aligned: bool = True, swapped: bool = False
) -> np.ndarray:
    """The routine's constants for so many elements, int32 `[SUM_WORDS]`.

    Args:
        aligned: both operands and the output begin at multiples of 4 bytes.
        swapped: the routine is given the second operand first.
    """
    rounding = kernel.rounding
    assert isinstance(rounding, SingleRounding)
    rounds = elements // 8 if aligned else 0
    low, high = ((bound & 0xFF) * 0x01010101 for bound in (kernel.low, kernel.high))
    factors = rounding.factors[::-1] if swapped else rounding.factors
    fields = [rounds, elements - 8 * rounds, *factors, rounding.offset, low, high]
    return np.array([field & 0xFFFFFFFF for field in fields], np.uint32).view(np.int32)
