"""Fully connected layers for Thumb-2 with DSP: four outputs of one input row at a time.

Two channels A and B share a 16-bit half word 256 * B + A. One SMLAD of two such halves sums
256 * B + A over two inputs, SXTB16 leaves A alone for a second SMLAD, and at the end
B = (256 * B + A - A) >> 8. Everything wraps modulo 2^32, so only B itself must stay within 24
bits, bias included. Four weights then cost one load, one extraction and two multiplications: 27
instructions for 32 multiplications.

The inputs become 16-bit pairs once, in scratch of two bytes an input ("pairs"), or anew for each
four outputs without scratch ("stream", 31 instructions for 32). Layers whose sums exceed 24 bits
keep their weights as they are ("plain", 36 for 32).

Widening subtracts a centre from every input at no cost, and the biases are adjusted to it. With
the centre at the input's zero point they are the model's own, most often of 16 bits: half the
bytes. (The layer arrives with its zero point folded in; the centre is whichever makes the biases
smallest.) One multiplier for all outputs stands in the header.

All sizes are in the constants, so every layer of a form shares one routine of about 700 bytes:

    [words of input, outputs, rounding, shift, entry, left shift, low, high, multiplier,
     rows, centre]
    then for each four outputs [4 biases] [weights] [4 multipliers, unless all are equal]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgecompress.lower.isa.dsp.asm import cycles, instruction_count, routine, written_once
from edgecompress.lower.isa.dsp.dense_layer import DenseLayer, fits_pairs, takes
from edgecompress.lower.isa.interface import Cost, Implementation, WeightStream

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

Form = Literal["pairs", "stream", "plain", "packed4"]
# stack: 0 inputs, 4 their end, 8 entry, 12 output, 16 last whole store, 20 rounding, 24 shift,
# 28 left shift, 32 low, 36 high, 40 multiplier, 44 rows left, 48 next row, 52 first group
_FRAME_BYTES = 56
_HEADER_WORDS = 11


@dataclass(frozen=True)
class DenseRoutine:
    """One routine's text in the pieces that run equally often.

    Attributes:
        narrow: biases of 16 bits.
        uniform: one multiplier for all outputs.
        rows: more than one row of inputs.
    """

    form: Form
    unroll: int
    left: bool = False
    clamp: bool = False
    narrow: bool = False
    uniform: bool = False
    rows: bool = False

    @property
    def symbol(self) -> str:
        flags = ("left", "clamp", "narrow", "uniform", "rows")
        chosen = [flag for flag in flags if getattr(self, flag)]
        return "_".join(["dense", self.form, str(self.unroll), *chosen])

    @property
    def words_per_unit(self) -> int:
        return 1 if self.form == "plain" else 2

    @written_once
    def text(self) -> str:
        group, epilogue = self.group_start(), self.epilogue()
        units = [line for number in range(self.unroll) for line in self.unit(number)]
        lines = [*self.prologue(), *self.widen(), *self.setup(), "4:", *group, ".balign 4", "5:"]
        for number in range(self.unroll if self.form != "plain" else 0):
            lines += self.half(number)
        lines += ["6:", *units, *self.loop_end(), *epilogue, *self.tail(), "9:", *self.row_end()]
        lines += [*self.next_row(), *self.end()]
        return routine(self.symbol, lines)

    def prologue(self) -> list[str]:
        output = "r2" if self.form == "stream" else "r3"
        inputs = "r0" if self.form == "stream" else "r2"
        return [
            "push {r4-r11, lr}",
            f"sub sp, #{_FRAME_BYTES}",
            "mov lr, r1",
            f"str {inputs}, [sp]",
            "ldmia lr!, {r4-r11}",  # the header
            "strd r6, r7, [sp, #20]",
            "strd r9, r10, [sp, #28]",
            "str r11, [sp, #36]",
            f"add r5, {output}",
            "subs r5, #4",
            f"strd {output}, r5, [sp, #12]",
            "adr r9, 5f",
            "add r8, r9",
            "str r8, [sp, #8]",
            "ldmia lr!, {r6, r7, r10}",
            "strd r6, r7, [sp, #40]",
            *(["str lr, [sp, #52]"] if self.rows else []),
        ]

    def widen(self) -> list[str]:
        """One word of inputs 0..3 into the pairs (0, 2) and (1, 3)."""
        if self.form == "stream":
            return []
        return ["1:", "ldr r9, [r0], #4", "subs r4, #1", "sxtab16 r8, r10, r9",
                "sxtab16 r9, r10, r9, ror #8", "stmia r2!, {r8, r9}", "bne 1b"]  # fmt: skip

    def setup(self) -> list[str]:
        if self.form == "stream":
            return ["add.w r2, r0, r4, lsl #2", "str r2, [sp, #4]"]
        return ["str r2, [sp, #4]", *(["str r0, [sp, #48]"] if self.rows else [])]

    def group_start(self) -> list[str]:
        if not self.narrow:
            biases = ["ldmia lr!, {r4-r7}"]
        elif self.form == "plain":
            biases = ["ldmia lr!, {r4, r6}", "asrs r5, r4, #16", "sxth r4, r4",
                      "asrs r7, r6, #16", "sxth r6, r6"]  # fmt: skip
        else:  # A and 256 * B + A + (0 to 255), which the shift at the end drops
            biases = ["ldmia lr!, {r4, r6}", "sxth r5, r4", "sxth r7, r6",
                      "add.w r4, r5, r4, asr #8", "add.w r6, r7, r6, asr #8"]  # fmt: skip
        return [*biases, "ldr r11, [sp]", "ldr pc, [sp, #8]"]

    def half(self, number: int) -> list[str]:
        """8 bytes: the way into a unit's second half, for an odd number of words."""
        load = "ldr r12, [r11], #4" if self.form == "stream" else "ldmia r11!, {r10, r12}"
        return [load, f"b.w {10 + number}f"]

    def unit(self, number: int) -> list[str]:
        if self.form == "plain":
            lines = ["ldmia r11!, {r8, r9}", "ldmia lr!, {r0-r3}"]
            for channel in range(4):
                sums = f"r{4 + channel}"
                lines += [f"sxtb16 r12, r{channel}", f"sxtb16 r{channel}, r{channel}, ror #8",
                          f"smlad {sums}, r12, r8, {sums}",
                          f"smlad {sums}, r{channel}, r9, {sums}"]  # fmt: skip
            return lines
        label = f"{10 + number}:"
        if self.form == "pairs":
            return ["ldmia r11!, {r8, r9, r10, r12}", *self._pair_of_words("r8", "r9"),
                    label, *self._pair_of_words("r10", "r12")]  # fmt: skip
        return [
            "ldmia r11!, {r9, r12}", "sxtab16 r8, r10, r9", "sxtab16 r9, r10, r9, ror #8",
            *self._pair_of_words("r8", "r9"), label,
            "sxtab16 r8, r10, r12", "sxtab16 r12, r10, r12, ror #8",
            *self._pair_of_words("r8", "r12"),
        ]  # fmt: skip

    def _pair_of_words(self, even: str, odd: str) -> list[str]:
        """Four inputs by four channels: 256 * B + A in r4 and r6, A in r5 and r7."""
        return [
            "ldmia lr!, {r0-r3}",
            f"smlad r4, r0, {even}, r4", "sxtb16 r0, r0",
            f"smlad r6, r1, {even}, r6", "sxtb16 r1, r1",
            f"smlad r5, r0, {even}, r5", f"smlad r7, r1, {even}, r7",
            f"smlad r4, r2, {odd}, r4", "sxtb16 r2, r2",
            f"smlad r6, r3, {odd}, r6", "sxtb16 r3, r3",
            f"smlad r5, r2, {odd}, r5", f"smlad r7, r3, {odd}, r7",
        ]  # fmt: skip

    def loop_end(self) -> list[str]:
        return ["ldr r0, [sp, #4]", "cmp r11, r0", "bne.w 6b"]

    @property
    def _channels(self) -> tuple[str, str, str, str]:
        return ("r4", "r5", "r6", "r7") if self.form == "plain" else ("r5", "r4", "r7", "r6")

    def apart(self) -> list[str]:
        """Each channel's own sum from what the loop leaves."""
        if self.form == "plain":
            return []
        return ["subs r4, r4, r5", "subs r6, r6, r7", "asrs r4, r4, #8", "asrs r6, r6, #8"]

    def epilogue(self) -> list[str]:
        multipliers = "ldr r0, [sp, #40]" if self.uniform else "ldmia lr!, {r0-r3}"
        lines = [*self.apart(), "ldrd r8, r9, [sp, #20]", multipliers]
        channels = self._channels
        if self.left:
            lines.append("ldr r12, [sp, #28]")
            lines += [f"lsl.w {sums}, {sums}, r12" for sums in channels]
        for number, sums in enumerate(channels):
            multiplier = "r0" if self.uniform else f"r{number}"
            lines.append(f"smmla {sums}, {sums}, {multiplier}, r8")
        for sums in channels:
            lines += [f"asr.w {sums}, {sums}, r9", f"ssat {sums}, #8, {sums}"]
        first = channels[0]
        for number, sums in enumerate(channels[1:], 1):
            lines.append(f"bfi {first}, {sums}, #{8 * number}, #8")
        if self.clamp:
            lines += ["ldrd r2, r3, [sp, #32]",
                      f"ssub8 r8, {first}, r2", f"sel {first}, {first}, r2",
                      f"ssub8 r8, r3, {first}", f"sel {first}, {first}, r3"]  # fmt: skip
        return [*lines, "ldrd r0, r1, [sp, #12]", "cmp r0, r1", "bgt 7f",
                f"str {first}, [r0], #4", "str r0, [sp, #12]", "bne.w 4b"]  # fmt: skip

    def tail(self) -> list[str]:
        first = self._channels[0]
        lines = ["b 9f", "7:", "adds r1, #4", "8:", f"strb {first}, [r0], #1",
                 f"lsrs {first}, {first}, #8", "cmp r0, r1", "bne 8b"]  # fmt: skip
        return [*lines, *(["str r0, [sp, #12]"] if self.rows else [])]

    def row_end(self) -> list[str]:
        if not self.rows:
            return []
        return ["ldr r0, [sp, #44]", "subs r0, #1", "beq 3f"]

    def next_row(self) -> list[str]:
        """The registers as the first row found them; the last whole store one row on."""
        if not self.rows:
            return []
        header = -4 * _HEADER_WORDS
        return [
            "str r0, [sp, #44]", "ldr lr, [sp, #52]", "ldr r1, [sp, #16]",
            f"ldr r3, [lr, #{header + 4}]", "add r1, r3", "str r1, [sp, #16]",
            f"ldr r4, [lr, #{header}]", "ldr r10, [lr, #-4]", "ldr r0, [sp, #48]", "ldr r2, [sp]",
            "b.w 1b",
        ]  # fmt: skip

    def end(self) -> list[str]:
        return ["3:", f"add sp, #{_FRAME_BYTES}", "pop {r4-r11, pc}"]

    def entry(self, words: int) -> int:
        """Where the first pass enters, in bytes from the halves' table; odd as Thumb wants it."""
        units = -(-words // self.words_per_unit)
        first = -units % self.unroll
        if words % self.words_per_unit:
            return 8 * first + 1
        table = 8 * self.unroll if self.form != "plain" else 0
        return table + 4 * instruction_count(self.unit(0)) * first + 1

    def cost(self, words: int, outputs: int, rows: int) -> Cost:
        groups, units = -(-outputs // 4), -(-words // self.words_per_unit)
        passes = -(-units // self.unroll)
        unit = self.unit(0)
        a_row = [
            (1, self.setup() + self.row_end()),
            (words, self.widen()),
            (groups, self.group_start() + self.epilogue()),
            (groups * units, unit),
            (groups * passes, self.loop_end()),
        ]
        if units * self.words_per_unit > words:
            a_row += [(groups, self.half(0)), (-groups, unit[: unit.index("10:")])]
        rest = outputs % 4
        if rest:
            tail = self.tail()
            loop = tail.index("8:")
            a_row += [(1, [*tail[1:loop], *tail[loop + 5 :]]), (rest, tail[loop : loop + 5])]
            a_row.append((-1, self.epilogue()[-3:]))
        else:
            a_row.append((1, ["b 9f"]))
        often = [(rows * times, lines) for times, lines in a_row]
        often += [(1, self.prologue() + self.end()), (rows - 1, self.next_row())]
        return Cost(
            instructions=sum(times * instruction_count(lines) for times, lines in often),
            cycles=sum(times * cycles(lines) for times, lines in often),
            code_bytes=0,  # all of it shared
        )


@dataclass(frozen=True)
class DenseGenerator:
    """`Dense`, where `dense_layer.takes` does."""

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not takes(kernel):
            return []
        layer = DenseLayer(kernel, *constants)
        if fits_pairs(layer.weights, layer.bias):
            forms: tuple[Form, ...] = ("pairs", "stream") if layer.rows == 1 else ("pairs",)
            return [_implementation(layer, form, unroll) for form in forms for unroll in (4, 2, 1)]
        return [_implementation(layer, "plain", 4)]


def _implementation(layer: DenseLayer, form: Form, unroll: int) -> Implementation:
    kernel, requantize = layer.kernel, layer.kernel.requantize
    centre, bias = layer.centred()
    code = DenseRoutine(
        form,
        unroll,
        left=requantize.left_shift > 0,
        clamp=requantize.low > -128 or requantize.high < 127,
        narrow=bool((np.abs(bias) < 1 << 15).all()),
        uniform=layer.uniform,
        rows=layer.rows > 1,
    )
    words = -(-kernel.input_shape[-1] // 4)
    spreads = code.rows and kernel.output_channels > kernel.input_shape[-1]
    once = code.cost(words, 0, 1)
    header = dense_header(code, layer, words, centre)
    packed = np.concatenate([header, _stream(code, layer, words, bias)])
    return Implementation(
        symbol=code.symbol,
        constants=(packed,),
        cost=code.cost(words, kernel.output_channels, layer.rows),
        description=f"dsp dense, 4 outputs x {4 * code.words_per_unit * unroll} inputs, {form}",
        assembly={code.symbol: code.text},
        scratch_bytes=0 if form == "stream" else 8 * words,
        # a row's inputs are widened before its first output is written
        may_overlap_input=None if form == "stream" or spreads else 0,
        stream=WeightStream(
            len(header),
            before=2 if code.narrow else 4,
            weights=4 * words,
            after=0 if code.uniform else 4,
            groups=-(-kernel.output_channels // 4),
            channels=4,
            mixed=form != "plain",
            channels_at=1 if layer.rows == 1 else None,
            once=(once.instructions, once.cycles),
        ),
    )


def dense_header(code: DenseRoutine, layer: DenseLayer, words: int, centre: int) -> np.ndarray:
    requantize = layer.kernel.requantize
    shift = requantize.shift
    rounding = (requantize.zero_point << shift) + (1 << (shift - 1))
    low, high = ((bound & 0xFF) * 0x01010101 for bound in (requantize.low, requantize.high))
    fields = [
        words, layer.kernel.output_channels, rounding, shift, code.entry(words),
        requantize.left_shift, low, high, int(layer.multipliers[0]), layer.rows,
        (-centre & 0xFFFF) * 0x10001,
    ]  # fmt: skip
    return as_words(np.array(fields))


def as_words(values: np.ndarray) -> np.ndarray:
    """int32, modulo 2^32."""
    return (values & 0xFFFFFFFF).astype(np.uint32).view(np.int32)


def _stream(code: DenseRoutine, layer: DenseLayer, words: int, bias: np.ndarray) -> np.ndarray:
    """Everything but the header, int32: each group's biases, weights and multipliers."""
    outputs, inputs = layer.weights.shape
    groups = -(-outputs // 4)
    more = 4 * groups - outputs
    wide = np.pad(layer.weights.astype(np.int64), ((0, more), (0, 4 * words - inputs)))
    wide = wide.reshape(groups, 4, words, 4)
    sums = np.pad(bias, (0, more)).reshape(groups, 4)
    if code.form == "plain":
        packed = wide.astype(np.int8).view(np.int32)[..., 0].transpose(0, 2, 1)
    else:
        # the pairs' order within a word of inputs: (0, 2), then (1, 3)
        ordered = wide[..., [0, 2, 1, 3]].reshape(groups, 2, 2, words, 2, 2)
        pairs = (ordered[:, :, 0] + 256 * ordered[:, :, 1]).astype(np.int16)
        packed = np.ascontiguousarray(pairs.transpose(0, 2, 3, 1, 4)).view(np.int32)
        if not code.narrow:
            first, second = sums[:, 0::2], sums[:, 1::2]
            sums = np.stack([first + 256 * second, first], 2).reshape(groups, 4)
    biases = sums.astype(np.int16).view(np.int32) if code.narrow else as_words(sums)
    parts = [biases, np.ascontiguousarray(packed).reshape(groups, 4 * words)]
    if not code.uniform:
        factors = np.pad(layer.multipliers.astype(np.int32), (0, more))
        parts.append(factors.reshape(groups, 4))
    return np.concatenate(parts, 1).reshape(-1)
