"""Weights decoded into scratch, some output channels at a time, for the kernels of plain weights.

What a kernel streams (header, biases, weights, multipliers) is rebuilt in scratch, the weights by a
decoder, and the kernel runs on it:

    for each tile of channels: copy the header, for each group copy, decode, copy; call the kernel

All channels at once cost least time and most scratch. In tiles a layer widens its inputs anew for
each of them, and reads its input after it began to write, so the two may not share memory.

    constants   [tiles, kernel's scratch, codes, table (offsets in bytes), header, before, units of
                a group, after (counts)], for each tile [bytes of output, groups] [header] and for
                each group [before] [after]; then codes, then the table or the nonzero bytes
    scratch     [table of pairs] [the kernel's constants] [the kernel's scratch]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.codec import CODECS, UNIT, Codec
from edgecompress.lower.isa.dsp.asm import cycles, instruction_count, routine, written_once
from edgecompress.lower.isa.dsp.decoders import Decoder
from edgecompress.lower.isa.interface import Cost, Generator, Implementation, WeightStream
from edgecompress.lower.kernels.conv2d import Conv2D
from edgecompress.lower.kernels.conv2d_add import Conv2DAdd
from edgecompress.lower.kernels.dense import Dense

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

# stack: 0 input, 4 copied next, 8 kernel's constants, 12 its scratch, 16 output, 20 tiles,
# 24 codes, 28 table, 32 header, 36 before, 40 units, 44 after, 48 output bytes, 52 groups,
# 56 second input
_FRAME_BYTES = 60
_ON_STACK = _FRAME_BYTES + 36
_PARAMETER_WORDS = 8
_TILE_GROUPS = (4, 8, 16)
_KERNELS_TRIED = 3


@dataclass(frozen=True)
class _Driver:
    """Decodes and calls one kernel; `inputs` activations, `scratch` if the kernel takes any."""

    kernel: str
    decoder: Decoder
    inputs: int
    scratch: bool

    @property
    def symbol(self) -> str:
        return f"{self.decoder.symbol}_{self.kernel}"

    @written_once
    def text(self) -> str:
        lines = [*self._prologue(), "1:", *self._tile(), *self._copy("2"), "3:", *self._before()]
        lines += [*self._copy("4"), *self._decode(), *self._copy("5"), "6:", *self._group_end()]
        return routine(self.symbol, [*lines, *self._call(), *self._end()])

    def _prologue(self) -> list[str]:
        lines = ["push {r4-r11, lr}", f"sub sp, #{_FRAME_BYTES}"]
        if self.inputs == 2:
            lines += [
                "str r1, [sp, #56]",
                "mov r1, r2",
                "mov r2, r3",
                f"ldr r3, [sp, #{_ON_STACK}]",
            ]
        lines += ["mov r12, r1", "ldmia r1!, {r4-r11}", "add r5, r2", "add r6, r12",
                  "add r7, r12", "strd r0, r1, [sp]", "strd r5, r3, [sp, #12]",
                  "strd r4, r6, [sp, #20]", "strd r7, r8, [sp, #28]",
                  "strd r9, r10, [sp, #36]", "str r11, [sp, #44]"]  # fmt: skip
        if not self.decoder.prepare_symbol:
            return [*lines, "str r2, [sp, #8]"]
        return [*lines, "str r2, [sp, #28]", f"add.w r0, r2, #{self.decoder.scratch_bytes}",
                "str r0, [sp, #8]", "mov r1, r2", "mov r0, r7",
                f"bl {self.decoder.prepare_symbol}"]  # fmt: skip

    def _tile(self) -> list[str]:
        return ["ldrd r4, r1, [sp, #4]", "ldmia r4!, {r5, r6}", "strd r5, r6, [sp, #48]",
                "ldr r5, [sp, #32]"]  # fmt: skip

    def _copy(self, label: str) -> list[str]:
        """r5 words from r4 to r1."""
        return [f"{label}:", "ldr r6, [r4], #4", "str r6, [r1], #4", "subs r5, #1",
                f"bne.n {label}b"]  # fmt: skip

    def _before(self) -> list[str]:
        return ["ldr r5, [sp, #36]"]

    def _decode(self) -> list[str]:
        moved = ["strd r0, r3, [sp, #24]"] if self.decoder.moves_table else ["str r0, [sp, #24]"]
        return ["str r4, [sp, #4]", "ldrd r0, r3, [sp, #24]", "ldr r2, [sp, #40]",
                f"bl {self.decoder.symbol}", *moved, "ldr r4, [sp, #4]", "ldr r5, [sp, #44]",
                "cbz r5, 6f"]  # fmt: skip

    def _group_end(self) -> list[str]:
        return ["ldr r5, [sp, #52]", "subs r5, #1", "str r5, [sp, #52]", "bne.w 3b"]

    def _call(self) -> list[str]:
        call = [f"bl {self.kernel}"]
        if self.inputs == 2 and self.scratch:
            given = ["ldr r4, [sp, #16]", "ldr r0, [sp]", "ldr r1, [sp, #56]",
                     "ldrd r2, r3, [sp, #8]", "sub sp, #8", "str r4, [sp]"]  # fmt: skip
            call.append("add sp, #8")
        elif self.inputs == 2:
            given = ["ldr r0, [sp]", "ldr r1, [sp, #56]", "ldr r2, [sp, #8]", "ldr r3, [sp, #16]"]
        elif self.scratch:
            given = ["ldr r0, [sp]", "ldrd r1, r2, [sp, #8]", "ldr r3, [sp, #16]"]
        else:
            given = ["ldr r0, [sp]", "ldr r1, [sp, #8]", "ldr r2, [sp, #16]"]
        return ["str r4, [sp, #4]", *given, *call, "ldrd r3, r4, [sp, #16]", "ldr r5, [sp, #48]",
                "add r3, r5", "subs r4, #1", "strd r3, r4, [sp, #16]", "bne.w 1b"]  # fmt: skip

    def _end(self) -> list[str]:
        return [f"add sp, #{_FRAME_BYTES}", "pop {r4-r11, pc}"]

    def work(self, stream: WeightStream, tiles: int, groups: int) -> tuple[int, int]:
        """(instructions, cycles) without the decoder and the kernel; groups of all tiles."""
        copied = stream.header * tiles + (stream.before + stream.after) * groups
        parts = [
            ([*self._prologue(), *self._end()], 1),
            ([*self._tile(), *self._call()], tiles),
            ([*self._before(), *self._decode(), *self._group_end()], groups),
            (self._copy("2"), copied),
        ]
        return (
            sum(instruction_count(lines) * times for lines, times in parts),
            sum(cycles(lines) * times for lines, times in parts),
        )


class DecodedGenerator:
    """Convolutions and dense layers whose weights a codec takes, on other generators' kernels."""

    def __init__(self, *generators: Generator) -> None:
        self._generators = generators

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not isinstance(kernel, Conv2D | Conv2DAdd | Dense):
            return []
        codecs = [codec for codec in CODECS if codec.takes(constants[0])]
        if not codecs:
            return []
        offers = [offer for one in self._generators for offer in one.implement(kernel, constants)]
        kernels = sorted(
            (offer for offer in offers if offer.stream is not None),
            key=lambda offer: offer.cost.cycles,
        )
        return [
            _implementation(offer, stream, codec, values, groups)
            for offer in kernels[:_KERNELS_TRIED]
            for stream, values in [_taken_apart(offer, constants[0])]
            for codec in codecs
            if codec.takes(values) and codec.encoded_bytes(values) < values.size
            for groups in _tilings(stream)
        ]


def _taken_apart(kernel: Implementation, weights: np.ndarray) -> tuple[WeightStream, np.ndarray]:
    """The stream's place and its weights as int8, in the order of the stream.

    Channels that only fill up a group may have any weights: where the layer itself has no zeros,
    theirs become a value it has, so that no table needs a place for them.
    """
    stream = kernel.stream
    assert stream is not None
    packed = _groups(kernel, stream)[:, stream.before : stream.before + stream.weights]
    data = np.ascontiguousarray(packed).reshape(-1)
    if stream.mixed:
        halves = data.view(np.int16).astype(np.int32)
        first = halves.astype(np.int8)
        second = (halves - first) >> 8
        values = np.stack([first, second], axis=-1).astype(np.int8).reshape(-1)
    else:
        values = data.view(np.int8)
    whole_inputs = values.size == stream.groups * stream.channels * weights[0].size
    if whole_inputs and weights.all():
        values = np.where(values == 0, weights.flat[0], values)
    return stream, values


def _groups(kernel: Implementation, stream: WeightStream) -> np.ndarray:
    return kernel.constants[0][stream.header :].reshape(stream.groups, -1)


def _tilings(stream: WeightStream) -> list[int]:
    """Groups decoded at a time: all of them, and a few where the kernel can do with a few."""
    few = _TILE_GROUPS if stream.channels_at is not None else ()
    return [*(groups for groups in few if groups < stream.groups), stream.groups]


def _implementation(
    kernel: Implementation, stream: WeightStream, codec: Codec, values: np.ndarray, groups: int
) -> Implementation:
    decoder = Decoder(codec, stream.mixed)
    inputs = 1 + len(kernel.in_place_arguments)
    driver = _Driver(kernel.symbol, decoder, inputs, kernel.scratch_bytes > 0)
    tiles = -(-stream.groups // groups)
    rebuilt = 4 * (stream.header + groups * (stream.before + stream.weights + stream.after))
    kernel_scratch = -(-(decoder.scratch_bytes + rebuilt) // 8) * 8
    parameters = _Parameters(kernel, stream, groups, kernel_scratch)
    own = driver.work(stream, tiles, stream.groups), decoder.work(values, stream.groups)
    again = [(tiles - 1) * once for once in stream.once]
    cost = Cost(
        kernel.cost.instructions + again[0] + own[0][0] + own[1][0],
        kernel.cost.cycles + again[1] + own[0][1] + own[1][1],
        0,
    )
    whole = tiles == 1
    where = "" if whole else f" in {tiles} parts"
    return Implementation(
        symbol=driver.symbol,
        constants=(parameters.packed(decoder.data(values)),),
        cost=cost,
        description=f"{kernel.description}, {codec.name} decoded{where}",
        assembly={**kernel.assembly, **decoder.assembly, driver.symbol: driver.text},
        scratch_bytes=kernel_scratch + kernel.scratch_bytes,
        may_overlap_input=kernel.may_overlap_input if whole else None,
        in_place_arguments=kernel.in_place_arguments,
        codec=codec.name,
    )


@dataclass(frozen=True)
class _Parameters:
    """The driver's constant: `groups` of the kernel's stream at a time."""

    kernel: Implementation
    stream: WeightStream
    groups: int
    kernel_scratch: int

    def packed(self, data: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """int32: parameters, what is copied, codes, table."""
        stream, copied = self.stream, self._copied()
        codes_at = 4 * (_PARAMETER_WORDS + len(copied))
        codes, table = data
        fields = [
            -(-stream.groups // self.groups), self.kernel_scratch, codes_at, codes_at + len(codes),
            stream.header, stream.before, 4 * stream.weights // UNIT, stream.after,
        ]  # fmt: skip
        words = [np.array(fields, np.int32), copied, codes.view(np.int32), table.view(np.int32)]
        return np.concatenate(words)

    def _copied(self) -> np.ndarray:
        """Each tile's output bytes, groups, header and what stands around its weights."""
        stream = self.stream
        header = self.kernel.constants[0][: stream.header].copy()
        rows = _groups(self.kernel, stream)
        around = np.delete(rows, np.s_[stream.before : stream.before + stream.weights], axis=1)
        parts: list[np.ndarray] = []
        left = 0 if stream.channels_at is None else int(header[stream.channels_at])
        channels = self.groups * stream.channels
        for first in range(0, stream.groups, self.groups):
            some = around[first : first + self.groups]
            if stream.channels_at is not None:
                header[stream.channels_at] = min(left, channels)
                left -= channels
            parts += [np.array([channels, len(some)], np.int32), header.copy(), some.reshape(-1)]
        return np.concatenate(parts)
