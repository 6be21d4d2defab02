"""1x1 convolutions of 4, 8 or 12 inputs for Thumb-2 with DSP: weights stay, pixels pass by.

With so few inputs `tile.py` spends more on each group of sums than on its products. Here one
output channel's weights, bias and multiplier stay in registers while the pixels of a chunk pass,
widened once for all channels: at 8 inputs a result takes a load, four products, the requantization
and a store, 8 instructions for 8 MACs, where the tile takes 13.

    constants   [rounding] [bias, multiplier, weights as bytes] a channel

Chunks of pixels divide the map evenly. Sizes stand in the instructions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.isa.dsp.asm import load_constant
from edgecompress.lower.isa.dsp.pointwise import is_pointwise, overlap_distance
from edgecompress.lower.isa.dsp.text import Text
from edgecompress.lower.isa.interface import Implementation
from edgecompress.lower.kernels.conv2d import Conv2D

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

_INPUTS = (4, 8, 12)
_MOST_PIXELS = (64, 24)  # of a chunk: fast, and with little scratch
_LEAST_PIXELS = 8  # below, setting up a channel costs more than it saves
_ROUNDING_LIMIT = 1 << 30
_REACH = 4095  # of an immediate offset
# stack: 0 input, 4 stream, 8 scratch, 12 output, 16 the stream's begin, 20 its end, 24 chunks left,
# 28 end of the columns
_FRAME_BYTES = 36


@dataclass(frozen=True)
class NarrowGenerator:
    """`Conv2D` with a 1x1 window, stride 1, one group and 4, 8 or 12 inputs.

    Refuses requantizations other than "smmla" and maps that no chunk of 8 to 64 pixels divides.
    """

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not isinstance(kernel, Conv2D) or not _takes(kernel):
            return []
        pixels = int(np.prod(kernel.output_shape[:3]))
        sizes = {_chunk(pixels, most) for most in _MOST_PIXELS} - {0}
        return [_implementation(_Routine(kernel, size), constants) for size in sorted(sizes)]


def _takes(kernel: Conv2D) -> bool:
    requantize = kernel.requantize
    return (
        is_pointwise(kernel)
        and requantize.form == "smmla"
        and kernel.window.input_shape[3] in _INPUTS
        and kernel.output_channels <= _REACH // 4
        and 1 <= requantize.shift <= 31
        and requantize.low <= requantize.high
        and abs(_rounding(kernel)) < _ROUNDING_LIMIT
    )


def _rounding(kernel: Conv2D) -> int:
    requantize = kernel.requantize
    return (requantize.zero_point << requantize.shift) + (1 << (requantize.shift - 1))


def _chunk(pixels: int, most: int) -> int:
    """The divisor of `pixels` up to `most` with the cheapest loop; 0 if all are too small."""
    found = [size for size in range(_LEAST_PIXELS, min(most, pixels) + 1) if pixels % size == 0]
    return max(found, key=lambda size: (size * _unroll(size), size), default=0)


def _unroll(size: int) -> int:
    return next(times for times in (4, 3, 2, 1) if size % times == 0)


@dataclass(frozen=True)
class _Routine:
    """r0 columns, r1 output, r2 bias, r3 multiplier, r12 rounding; weights from r4 on."""

    kernel: Conv2D
    size: int

    @property
    def symbol(self) -> str:
        requantize = self.kernel.requantize
        numbers = [self.inputs, self.outputs, self.chunks, self.size, requantize.shift,
                   requantize.left_shift]  # fmt: skip
        if (requantize.low, requantize.high) != (-128, 127):
            numbers += [requantize.low & 0xFF, requantize.high & 0xFF]
        return "narrow_" + "_".join(map(str, numbers))

    @property
    def inputs(self) -> int:
        return self.kernel.window.input_shape[3]

    @property
    def outputs(self) -> int:
        return self.kernel.output_channels

    @property
    def chunks(self) -> int:
        return int(np.prod(self.kernel.output_shape[:3])) // self.size

    @property
    def scratch_bytes(self) -> int:
        """The columns, in whole pairs of words."""
        return -(-2 * self.size * self.inputs // 8) * 8

    def text(self) -> Text:
        text, stream_bytes = Text(), self.outputs * (8 + self.inputs)
        chunk, channel = text.new_label(), text.new_label()
        text.emit("push {r4-r11, lr}", f"sub sp, #{_FRAME_BYTES}", "ldr r12, [r1], #4",
                  "stm sp, {r0-r3}", "str r1, [sp, #16]")  # fmt: skip
        text.add("r1", stream_bytes, "r4")
        text.emit("str r1, [sp, #20]")
        text.add("r2", self.size * self.inputs * 2, "r4")
        text.emit("str r2, [sp, #28]", *load_constant("r4", self.chunks), "str r4, [sp, #24]")
        with text.running(self.chunks):
            text.emit(f"{chunk}:", "ldr r0, [sp]", "ldr r2, [sp, #8]")
            self._widen(text)
            text.emit("str r0, [sp]", "ldr r1, [sp, #16]")
            with text.running(self.chunks * self.outputs):
                text.emit(f"{channel}:")
                self._begin_channel(text)
                self._pixels(text)
                text.emit("ldr r0, [sp, #12]", "adds r0, #1", "str r0, [sp, #12]",
                          "ldr r1, [sp, #4]", "ldr r2, [sp, #20]", "cmp r1, r2",
                          f"bne.w {channel}b")  # fmt: skip
            text.add("r0", (self.size - 1) * self.outputs, "r2")
            text.emit("str r0, [sp, #12]", "ldr r4, [sp, #24]", "subs r4, #1", "str r4, [sp, #24]",
                      f"bne.w {chunk}b")  # fmt: skip
        text.emit(f"add sp, #{_FRAME_BYTES}", "pop {r4-r11, pc}")
        return text

    def _widen(self, text: Text) -> None:
        """The chunk's inputs k .. k + 3 from r0 as the pairs (k, k + 2), (k + 1, k + 3) to r2."""
        times, words = text.times, self.size * self.inputs // 4
        pair = ["ldr r6, [r0, #4]", "ldr r4, [r0], #8", "sxtb16 r5, r4, ror #8", "sxtb16 r4, r4",
                "sxtb16 r7, r6, ror #8", "sxtb16 r6, r6", "stmia r2!, {r4-r7}"]  # fmt: skip
        unroll = next(count for count in (4, 3, 2, 1) if words // 2 % count == 0)
        loops = words // 2 // unroll
        label = text.new_label()
        text.emit("ldr r8, [sp, #28]")
        if words % 2:
            text.emit("subs.w r8, r8, #8")
        with text.running(times * loops):
            text.emit(f"{label}:", *pair * unroll, "cmp r2, r8", f"bne.n {label}b")
        if words % 2:
            text.emit("ldr r4, [r0], #4", "sxtb16 r5, r4, ror #8", "sxtb16 r4, r4",
                      "stmia r2!, {r4, r5}")  # fmt: skip

    def _begin_channel(self, text: Text) -> None:
        """r1 is where the channel's constants stand."""
        quads = self.inputs // 4
        packed = [f"r{4 + 2 * quad}" for quad in range(quads)]
        text.emit(f"ldmia r1!, {{r2, r3, {', '.join(packed)}}}", "str r1, [sp, #4]")
        for quad in range(quads):
            low, high = packed[quad], f"r{5 + 2 * quad}"
            text.emit(f"sxtb16 {high}, {low}, ror #8", f"sxtb16 {low}, {low}")
        text.emit("ldrd r0, r1, [sp, #8]")

    def _pixels(self, text: Text) -> None:
        times, unroll = text.times, _unroll(self.size)
        label = text.new_label()
        with text.running(times * (self.size // unroll)):
            text.emit(f"{label}:")
            for pixel in range(unroll):
                self._pixel(text, pixel * self.outputs)
            text.add("r1", unroll * self.outputs, "r10")
            text.emit("ldr r10, [sp, #28]", "cmp r0, r10", f"bne.w {label}b")

    def _pixel(self, text: Text, offset: int) -> None:
        requantize, weight, before = self.kernel.requantize, 4, "r2"
        loads = {4: ["r8 r9"], 8: ["r8 r9 r10 r11"], 12: ["r10 r11", "r11 lr", "r11 lr"]}
        total = loads[self.inputs][0].split()[0]
        for columns in map(str.split, loads[self.inputs]):
            text.emit(f"ldmia r0!, {{{', '.join(columns)}}}")
            for column in columns:
                text.emit(f"smlad {total}, r{weight}, {column}, {before}")
                weight, before = weight + 1, total
        text.emit(*[f"lsl.w {total}, {total}, #{requantize.left_shift}"][: requantize.left_shift])
        text.emit(f"smmla {total}, {total}, r3, r12", f"ssat {total}, #8, {total}, "
                  f"asr #{requantize.shift}")  # fmt: skip
        for bound, limit, worse in ((requantize.low, -128, "lt"), (requantize.high, 127, "gt")):
            if bound != limit:
                text.emit(f"cmp {total}, #{bound}", f"it {worse}",
                          f"mov{worse} {total}, #{bound}")  # fmt: skip
        text.emit(f"strb.w {total}, [r1, #{offset}]")


def _implementation(routine: _Routine, constants: tuple[np.ndarray, ...]) -> Implementation:
    weights, bias, multiplier = constants
    kernel, text = routine.kernel, routine.text()
    rows = np.ascontiguousarray(weights.reshape(routine.outputs, -1)).view(np.int32)
    stream = np.concatenate([bias[:, None], multiplier[:, None], rows], axis=1).reshape(-1)
    packed = np.concatenate([np.array([_rounding(kernel)]), stream]).astype(np.int32)
    size, chunks = routine.size, routine.chunks
    return Implementation(
        symbol=routine.symbol,
        constants=(packed,),
        cost=text.cost(),
        description=f"dsp pointwise, {routine.inputs} inputs in registers, chunks of {size} pixels",
        assembly={routine.symbol: text.assembly(routine.symbol)},
        scratch_bytes=routine.scratch_bytes,
        may_overlap_input=overlap_distance(
            chunks, size, size * chunks, routine.inputs, routine.outputs
        ),
    )
