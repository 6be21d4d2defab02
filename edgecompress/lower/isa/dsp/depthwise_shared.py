"""The depthwise routine with all sizes in its constants: one for every layer of a window's size.

It works as `depthwise_text.py` says, with pairs along the width, and reads from its stack what
stands in the other routine's instructions: a tenth more of them, but a network of many shapes has
one or two such routines instead of one a shape.

Strips are as wide as registers allow, and up to three narrower ones make up the rest of a row: 15
outputs are strips of 8, 6 and 1.

    constants: [the words of `parameters`] [chunks] [bias, multiplier] a channel, weights as bytes
"""

from __future__ import annotations

import numpy as np

from edgecompress.lower.isa.dsp.depthwise_sums import VARIABLES
from edgecompress.lower.isa.dsp.depthwise_text import DepthwiseText
from edgecompress.lower.isa.dsp.text import offset_of, transpose

_PARAMETERS = (
    "rounding", "shift", "zero", "channels", "scratch_bytes", "table_bytes", "chunk_bytes",
    "row_bytes", "left_bytes", "pair_bytes", "row_tail", "source_tail", "halves", "output_row",
    "rest_of_row", "row_step", "kept_bytes", "whole_bytes", "rests", "unused",
)  # fmt: skip


class SharedDepthwiseText(DepthwiseText):
    """Writes the routine, and counts what it does for one plan."""

    header_bytes = 4 * len(_PARAMETERS)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.chunked = True
        others = [name for name in VARIABLES[1:] if name not in _PARAMETERS]
        names = (VARIABLES[0], *_PARAMETERS, *others, "bias")
        words = self.row_words * self.plan.across.taps
        self.at = offset_of(names, 4 * words)
        self.frame_bytes = 4 * (words + len(names))
        # at odd strides a strip must begin at an even place: only the last may be odd
        rests = (6, 3, 2, 1) if self.plan.along.stride % 2 == 0 else (6, 4, 2, 1)
        self.rest_widths = [width for width in rests if width < self.strip]

    @property
    def symbol(self) -> str:
        plan = self.plan
        a, b = plan.along, plan.across
        parts = [a.taps, b.taps, a.stride, b.stride, plan.shift]
        if (plan.low, plan.high) != (-128, 127):
            parts += [plan.low & 0xFF, plan.high & 0xFF]
        return "depthwise_shared_" + "_".join(map(str, parts))

    def parameters(self, zero_point: int, rounding: int, left_shift: int) -> np.ndarray:
        """The constant's first words, int64."""
        plan = self.plan
        along, across = plan.along, plan.across
        left, pairs, right = self._halves()
        whole, flags = self._rests()
        consumed = (left + 2 * pairs) * plan.channels
        zero = zero_point & 0xFFFF
        words = [
            rounding, left_shift, zero << 16 | zero, plan.channels, plan.scratch_bytes,
            8 * plan.channels, 8 * len(plan.chunks), plan.row_bytes, 16 * (along.before // 2),
            16 * pairs, plan.row_bytes - 16 * (left + pairs + right),
            across.input_step - consumed, left | right << 1, across.output_step,
            across.output_step - 4 * plan.channels, across.stride * plan.row_bytes,
            max(plan.kept, 0) * plan.row_bytes, 8 * self.strip * along.stride * whole, flags, 0,
        ]  # fmt: skip
        return np.array(words, np.int64)

    def _halves(self) -> tuple[int, int, int]:
        """Pairs of border and image on the left (0 or 1), of image, and on the right."""
        along = self.plan.along
        left = along.before % 2
        pairs, right = divmod(along.inside - left, 2)
        return left, pairs, right

    def _rests(self) -> tuple[int, int]:
        """Whole strips of a row, and a bit for each narrower one that follows."""
        whole, rest = divmod(self.plan.along.outputs, self.strip)
        flags = 0
        for bit, width in enumerate(self.rest_widths):
            if rest >= width:
                flags, rest = flags | 1 << bit, rest - width
        return whole, flags

    def _prologue(self) -> None:
        text, plan = self.text, self.plan
        text.emit("push {r4-r11, lr}", f"sub sp, #{self.frame_bytes}", self.store("r0", "x"),
                  self.store("r3", "y"), self.store("r1", "header"),
                  f"add.w r12, sp, #{self.at['rounding']}",
                  *["ldmia r1!, {r4-r11}", "stmia r12!, {r4-r11}"] * 2,
                  "ldmia r1!, {r4-r7}", "stmia r12!, {r4-r7}",
                  self.load("r4", "channels"), "subs r4, #4", "add r4, r0",
                  self.store("r4", "last_x"), self.store("r2", "scratch"),
                  self.load("r4", "chunk_bytes"), "add r1, r4", self.store("r1", "chunks_end"),
                  self.load("r7", "table_bytes"), "add r7, r1",
                  f"strd r1, r7, [sp, #{self.at['table']}]", "movs r3, #0",
                  self.store("r3", "skipped"), *self._zeros(),
                  self.load("r12", "scratch_bytes"), "add r12, r2")  # fmt: skip
        label = text.new_label()
        with text.running(plan.scratch_bytes // 16):
            text.emit(f"{label}:", "stmia r2!, {r4-r7}", "cmp r2, r12", f"bne {label}b")

    def _zeros(self) -> list[str]:
        return [self.load("r4", "zero"), "mov r5, r4", "mov r6, r4", "mov r7, r4"]

    def _copy_rows(self, total: int) -> None:
        """r0 source, r1 target, lr rows; r8 the pairs' end, r9 halves, r10 channels, r11 pairs."""
        text = self.text
        left, pairs, right = self._halves()
        row, pair, no_left, no_right = (text.new_label() for _ in range(4))
        text.emit(self.load("r12", "zero"), "uxtb r12, r12", "orr r12, r12, r12, lsl #8",
                  "orr r12, r12, r12, lsl #16", self.load("r2", "left_bytes"), "add r1, r2",
                  self.load("r11", "pair_bytes"), self.load("r9", "halves"),
                  self.load("r10", "channels"))  # fmt: skip
        with text.running(total):
            text.emit(f"{row}:", "lsls r2, r9, #31", f"beq {no_left}f")
            with text.running(total * left):
                text.emit("ldr r3, [r0]", "add r0, r10", *transpose("r12", "r3"))
            text.emit(f"{no_left}:", "adds.w r8, r1, r11", "cmp r8, r1", f"beq {no_right}f")
            with text.running(total * pairs):
                text.emit(f"{pair}:", "ldr r2, [r0]", "ldr r3, [r0, r10]",
                          "add.w r0, r0, r10, lsl #1", *transpose("r2", "r3"), "cmp r1, r8",
                          f"bne {pair}b")  # fmt: skip
            text.emit(f"{no_right}:")
            end = text.new_label()
            text.emit("lsls r2, r9, #30", f"bpl {end}f")
            with text.running(total * right):
                text.emit("ldr r2, [r0]", *transpose("r2", "r12"))
            text.emit(f"{end}:", self.load("r2", "source_tail"), "add r0, r2",
                      self.load("r2", "row_tail"), "add r1, r2", "subs.w lr, lr, #1",
                      f"bne {row}b")  # fmt: skip
        text.emit(self.load("r2", "left_bytes"), "subs r1, r1, r2")

    def _row_end(self) -> None:
        self.text.emit(self.load("r8", "row_bytes"), "add r8, r1")

    def _row_step(self) -> list[str]:
        return [self.load("r1", "row_step")]

    def _output_step(self) -> list[str]:
        return [self.load("r1", "output_row")]

    def _kept_end(self) -> None:
        self.text.emit(self.load("r8", "kept_bytes"), "add r8, r0")

    def _widen_weights(self) -> None:
        super()._widen_weights()
        self.text.emit(self.store("r2", "bias"))

    def _all_strips(self) -> None:
        """Those of full width, then one of each narrower width the row still needs."""
        text, calls = self.text, self.plan.channels * len(self.plan.chunks)
        whole, flags = self._rests()
        skip = text.new_label()
        text.emit(self.load("r3", "whole_bytes"), "cmp r3, #0", f"beq.w {skip}f")
        with text.running(calls * bool(whole)):
            text.emit("add r3, r0", self.store("r3", "last_strip"))
            self._strips(self.strip, whole)
        text.emit(f"{skip}:")
        for bit, width in enumerate(self.rest_widths):
            skip = text.new_label()
            text.emit(self.load("r3", "rests"), f"lsls r3, r3, #{31 - bit}", f"bpl.w {skip}f")
            self._strips(width, flags >> bit & 1)
            text.emit(f"{skip}:")

    def _strips(self, width: int, count: int) -> None:
        text, plan = self.text, self.plan
        strip, row = text.new_label(), text.new_label()
        with text.running(plan.channels * len(plan.chunks) * count):
            text.emit(f"{strip}:", f"strd r0, r1, [sp, #{self.at['strip']}]",
                      self.load("r3", "span"), "add r3, r0", self.store("r3", "end"))  # fmt: skip
            with text.running(plan.channels * count * plan.across.outputs):
                text.emit(f"{row}:", self.load("r2", "bias"))
                self._sum_strip(width)
                self._store_strip()
                text.emit(self.load("r3", "end"), "cmp r0, r3", f"bne.w {row}b")
            text.emit(f"ldrd r0, r1, [sp, #{self.at['strip']}]", self.load("r2", "channels"))
            text.add("r0", 8 * width * plan.along.stride, "r3")
            text.emit(*_add_multiple("r1", "r2", width))
            if width == self.strip:
                text.emit(self.load("r3", "last_strip"), "cmp r0, r3", f"bne.w {strip}b")

    def _sum_strip(self, width: int) -> int:
        """Rows of the kernel one after another; r0 ends at the next output's first."""
        text, plan = self.text, self.plan
        self._begin_sums(width)
        for row in range(plan.across.taps):
            if row == 1:
                text.emit(self.load("r2", "row_bytes"))
            if row:
                text.emit("add r0, r2")
            self._sum_row(row, width, 0)
        if plan.across.taps == 1:
            text.emit(self.load("r2", "row_step"), "add r0, r2")
        else:
            back = plan.across.stride - (plan.across.taps - 1)
            text.emit(*_add_multiple("r0", "r2", back))
        return 0

    def _store_strip(self) -> int:
        text = self.text
        sums = self._requantize()
        text.emit(self.load("r2", "channels"))
        if len(sums) > 3:
            text.emit("add.w r3, r2, r2, lsl #1")
        places = ["[r1]", "[r1, r2]", "[r1, r2, lsl #1]", "[r1, r3]", "[r1, r2, lsl #2]"]
        for output, name in enumerate(sums):
            if output == 5:
                text.emit("add.w r1, r1, r2, lsl #2")
            text.emit(f"strb.w {name}, {places[output if output < 5 else output - 4]}")
        text.emit(self.load("r3", "rest_of_row" if len(sums) > 5 else "output_row"), "add r1, r3")
        return 0


def _add_multiple(register: str, step: str, times: int) -> list[str]:
    """`register += times * step`, a bit of `times` at a time."""
    name = "add" if times > 0 else "sub"
    bits = [bit for bit in range(abs(times).bit_length()) if abs(times) >> bit & 1]
    return [f"{name}.w {register}, {register}, {step}, lsl #{bit}" for bit in bits]
