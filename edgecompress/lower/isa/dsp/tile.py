"""The multiplication at the heart of DSP convolutions: P pixels by every output channel.

The pixels' inputs stand ready as 16-bit pairs ("columns"), four inputs k .. k+3 of all P pixels
after one another: P words of the pairs (k, k + 2), then P words of (k + 1, k + 3). The weights
stream by once for each group of pixels, two channels A and B at a time, in one of three forms:

`pairs`   16-bit halves 256 * B + A. One SMLAD sums 256 * B + A over two inputs, SXTB16 leaves A for
          a second one, and the end tells them apart: (256 * B + A) - A. Everything wraps modulo
          2^32, so only B itself must stay within 24 bits. 17 instructions for 24 multiplications
          at 3 pixels.
`plain`   A and B in alternate bytes, two SXTB16 for each word: 19 for 24, and any sums.
`single`  one channel at a time: 11 for 12.

An odd number of channels in pairs ends in one whose partner is all zeros and is not stored.

The requantization is `lower/kernels/requant.py`'s: SMMLA, ASR, SSAT. 256 * B goes through with a
shift that is 8 larger and comes out the same.

    stream   for each channel or pair [initial sums] [weights] [multipliers]
    header   [output stride, column bytes, entry, channels, rounding, shift, rounding and shift of
              256 * B] and for left shifts and bounds [left shift, room above, high + 1]

Sizes are data, so layers of one form share one routine; the number of inputs need not be a multiple
of the unrolled loop, which is entered in the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgecompress.lower.isa.dsp.asm import cycles, instruction_count, routine, written_once
from edgecompress.lower.isa.interface import WeightStream

if TYPE_CHECKING:
    from edgecompress.lower.kernels.requant import Requantize

Form = Literal["pairs", "plain", "single", "packed4"]
MOST_PIXELS = 3

_PAIR_LIMIT = 1 << 23
_ROUNDING_LIMIT = 1 << 30
# stack: 0 columns, 4 output, 8 stride, 12 columns' end, 16 entry, 20 output's end, 24 rounding,
# 28 shift, 32 and 36 those of 256 * B, 40 left shift, 44 room, 48 high + 1
_FRAME_BYTES = 52
_COLUMNS = ("r0", "r2", "r3")


@dataclass(frozen=True)
class Tile:
    """One routine: `pixels` by one or two channels, `unroll` times four inputs a loop.

    `left` shifts the sums left before requantization, `clamp` bounds them more narrowly than int8,
    `odd` leaves out the last pair's second channel.
    """

    form: Form
    pixels: int
    unroll: int
    left: bool = False
    clamp: bool = False
    odd: bool = False

    @property
    def symbol(self) -> str:
        kinds = (("left", self.left), ("clamp", self.clamp), ("odd", self.odd))
        suffix = "".join(f"_{name}" for name, present in kinds if present)
        return f"tile_{self.form}_{self.pixels}x{self.unroll}{suffix}"

    @property
    def codec(self) -> str:
        """How the stream stores its weights, for `Implementation.codec`."""
        return ""

    @property
    def channels(self) -> int:
        return 1 if self.form == "single" else 2

    @property
    def header_words(self) -> int:
        return 11 if self.left or self.clamp else 8

    @written_once
    def text(self) -> str:
        units = self._unit() * self.unroll
        lines = [*self._prologue(), "4:", *self._start(), ".balign 4", "5:", *units]
        lines += [*self._loop_end(), *self._epilogue(), "6:", *self._end()]
        return routine(self.symbol, lines)

    @property
    def unit_bytes(self) -> int:
        """Of the code for four inputs: everything wide but the loads of columns."""
        narrow = sum(1 for line in self._unit() if line.startswith("ldmia r1!"))
        return 4 * len(self._unit()) - 2 * narrow

    def work(self, quads: int, channels: int) -> tuple[int, int]:
        """(instructions, cycles) of one call with 4 * quads inputs."""
        return _work(self, quads, channels)

    def parts(self, quads: int, channels: int) -> list[tuple[list[str], int]]:
        """What one such call runs: lines, and how often."""
        loops, turns = -(-quads // self.unroll), -(-channels // self.channels)
        parts = [
            ([*self._prologue(), *self._end()], 1),
            ([*self._start(), *self._epilogue()], turns),
            (self._unit(), quads * turns),
            (self._loop_end(), loops * turns),
        ]
        if self.odd:  # the last pair leaves before its second stores
            stores = self._stores()
            parts.append((stores[stores.index("beq.n 6f") + 1 :], -1))
        return parts

    @property
    def _first(self) -> list[str]:
        """Sums of A."""
        return [f"r{4 + self.channels * pixel}" for pixel in range(self.pixels)]

    @property
    def _second(self) -> list[str]:
        """Sums of B, or of 256 * B + A."""
        if self.channels == 1:
            return []
        return [f"r{5 + 2 * pixel}" for pixel in range(self.pixels)]

    @property
    def _end_register(self) -> str:
        """Holds the columns' end throughout, where a register is left for it."""
        return "" if self.form == "plain" else "r12"

    def _prologue(self) -> list[str]:
        """r0 stream, r1 columns, r2 output, r3 header."""
        lines = ["push {r4-r11, lr}", f"sub sp, #{_FRAME_BYTES}", "mov lr, r0"]
        lines += ["ldmia r3!, {r4-r11}"]
        if self.left or self.clamp:
            lines += ["ldmia r3, {r0, r3, r12}", "strd r0, r3, [sp, #40]", "str r12, [sp, #48]"]
        lines += ["add r5, r1", "add r7, r2", "adr r0, 5f", "add r6, r0"]
        if self._end_register:
            lines.append("mov r12, r5")
        return [*lines, "stm sp, {r1, r2, r4-r11}"]

    def _start(self) -> list[str]:
        lines = ["ldr r4, [lr], #4"] if self.channels == 1 else ["ldmia lr!, {r4, r5}"]
        for sums in (self._first, self._second):
            lines += [f"mov {register}, {sums[0]}" for register in sums[1:]]
        return [*lines, "ldr r1, [sp]", "ldr pc, [sp, #16]"]

    def _unit(self) -> list[str]:
        load, multiply = self._load_columns(), self._multiply
        if self.form == "single":
            return ["ldr r10, [lr], #4", load, "sxtb16 r11, r10, ror #8", "sxtb16 r10, r10",
                    *multiply(self._first, "r10"), load, *multiply(self._first, "r11")]  # fmt: skip
        lines = ["ldmia lr!, {r10, r11}"]
        for weights in ("r10", "r11"):
            lines.append(load)
            if self.form == "pairs":
                lines += multiply(self._second, weights)
            else:
                lines.append(f"sxtb16 r12, {weights}, ror #8")
                lines += multiply(self._second, "r12")
            lines.append(f"sxtb16 {weights}, {weights}")
            lines += multiply(self._first, weights)
        return lines

    def _load_columns(self) -> str:
        if self.pixels == 1:
            return "ldr r0, [r1], #4"
        return f"ldmia r1!, {{{', '.join(_COLUMNS[: self.pixels])}}}"

    def _multiply(self, sums: list[str], weights: str) -> list[str]:
        """A word of weights by each pixel's column, onto its sum."""
        columns = _COLUMNS[: self.pixels]
        return [
            f"smlad {total}, {weights}, {column}, {total}"
            for total, column in zip(sums, columns, strict=True)
        ]

    def _loop_end(self) -> list[str]:
        if self._end_register:
            return ["cmp r1, r12", "bne.w 5b"]
        return ["ldr r0, [sp, #12]", "cmp r1, r0", "bne.w 5b"]

    def _epilogue(self) -> list[str]:
        """Sums to bytes, and the bytes to the output."""
        first, second = self._first, self._second
        lines = ["ldr r10, [lr], #4"] if self.channels == 1 else ["ldmia lr!, {r10, r11}"]
        if self.form == "pairs":
            lines += [f"sub.w {b}, {b}, {a}" for a, b in zip(first, second, strict=True)]
        if self.left:
            lines += ["ldr r0, [sp, #40]"]
            lines += [f"lsl.w {total}, {total}, r0" for total in (*first, *second)]
        lines += ["ldrd r2, r3, [sp, #24]"]
        rounding, shift = "r2", "r3"
        if self.form == "pairs":
            lines += ["ldrd r0, r1, [sp, #32]"]
            rounding, shift = "r0", "r1"
        lines += [f"smmla {total}, {total}, r10, r2" for total in first]
        lines += [f"smmla {total}, {total}, r11, {rounding}" for total in second]
        lines += [f"asr.w {total}, {total}, r3" for total in first]
        lines += [f"asr.w {total}, {total}, {shift}" for total in second]
        if not self.clamp:
            lines += [f"ssat {total}, #8, {total}" for total in (*first, *second)]
            return lines + self._stores()
        lines += ["ldrd r10, r11, [sp, #44]"]
        for total in (*first, *second):
            # from the low bound up, saturating at 2^31 - 1; the low byte is what counts
            lines += [f"usat {total}, #16, {total}", f"qadd {total}, {total}, r10",
                      f"add.w {total}, {total}, r11"]  # fmt: skip
        return lines + self._stores()

    def _stores(self) -> list[str]:
        places = ["[r0]", "[r0, r1]", "[r0, r1, lsl #1]"][: self.pixels]
        if self.odd:
            first, second = (
                [f"strb.w {total}, {place}" for total, place in zip(sums, places, strict=True)]
                for sums in (self._first, self._second)
            )
            return ["ldrd r0, r1, [sp, #4]", *first, "adds r0, #1", "ldr r2, [sp, #20]",
                    "cmp r0, r2", "beq.n 6f", *second, "adds r0, #1", "str r0, [sp, #4]",
                    "b.w 4b"]  # fmt: skip
        lines = [f"bfi {a}, {b}, #8, #24" for a, b in zip(self._first, self._second, strict=False)]
        store = "strb.w" if self.channels == 1 else "strh.w"
        lines += ["ldrd r0, r1, [sp, #4]"]
        lines += [
            f"{store} {total}, {place}" for total, place in zip(self._first, places, strict=True)
        ]
        return [*lines, f"adds r0, #{self.channels}", "str r0, [sp, #4]", "ldr r1, [sp, #20]",
                "cmp r0, r1", "bne.w 4b"]  # fmt: skip

    def _end(self) -> list[str]:
        """Returns where the stream goes on."""
        return ["mov r0, lr", f"add sp, #{_FRAME_BYTES}", "pop {r4-r11, pc}"]

    def header(self, requantize: Requantize, quads: int, channels: int, stride: int) -> np.ndarray:
        """The words `_prologue` reads, int32.

        Args:
            quads: inputs of a pixel in fours; a multiple of 4 with zeros behind.
            channels: output channels this call computes, `stride` bytes from pixel to pixel.
        """
        rounding, wide_rounding = _roundings(requantize)
        skipped = -quads % self.unroll
        room = (1 << 31) - 1 - (requantize.high - requantize.low)
        return np.array(
            [
                stride, quads * self.pixels * 8, skipped * self.unit_bytes + 1, channels,
                rounding, requantize.shift, wide_rounding, requantize.shift + 8,
                requantize.left_shift, room, requantize.high + 1,
            ],
            np.int64,
        ).astype(np.int32)[: self.header_words]  # fmt: skip

    def layout(
        self, header_words: int, quads: int, turns: int, driver: tuple[int, int], calls: int
    ) -> WeightStream | None:
        """How `stream` lies behind a header; None for other forms than pairs and plain.

        Args:
            turns: pairs of channels, of all groups.
            driver: what calling this takes, as (instructions, cycles).
            calls: how often a driver of some channels calls this; 0 if it can only do all.
        """
        if self.form not in ("pairs", "plain"):
            return None
        once = [own + calls * each for own, each in zip(driver, self.work(quads, 0), strict=True)]
        return WeightStream(
            header_words, 2, 2 * quads, 2, turns, channels=2, mixed=self.form == "pairs",
            channels_at=None if self.odd or not calls else 3, once=(once[0], once[1]),
        )  # fmt: skip

    def stream(
        self, weights: np.ndarray, bias: np.ndarray, multiplier: np.ndarray, groups: int = 1
    ) -> np.ndarray:
        """Weights as they are read, int32.

        Args:
            weights: int8 `[channels, inputs]`, inputs a multiple of 4.
            bias, multiplier: int32 `[channels]`.
            groups: of channels, each computed by a call of its own.
        """
        if self.odd:
            weights, bias, multiplier = (
                with_partners(array, groups) for array in (weights, bias, multiplier)
            )
        outputs = weights.shape[0]
        quads = weights.astype(np.int64).reshape(outputs // self.channels, self.channels, -1, 4)
        bias = bias.astype(np.int64).reshape(-1, self.channels)
        if self.form == "single":
            words = words_of_bytes(quads[:, 0])
        else:
            a, b = quads[:, 0], quads[:, 1]
            # bytes or halves of inputs (0, 2) in one word, of (1, 3) in the next
            a, b = (x.reshape(len(x), -1, 2, 2).swapaxes(2, 3) for x in (a, b))
            if self.form == "pairs":
                halves = 256 * b + a
                words = (halves[..., 0] & 0xFFFF) | (halves[..., 1] & 0xFFFF) << 16
                bias = np.stack([bias[:, 0], 256 * bias[:, 1] + bias[:, 0]], axis=1)
            else:
                words = words_of_bytes(
                    np.stack([a[..., 0], b[..., 0], a[..., 1], b[..., 1]], axis=-1)
                )
        words = words.reshape(len(quads), -1)
        rows = np.concatenate([bias, words, multiplier.reshape(-1, self.channels)], axis=1)
        return (rows & 0xFFFFFFFF).astype(np.uint32).view(np.int32).reshape(-1)


@lru_cache(maxsize=1 << 12)
def _work(tile: Tile, quads: int, channels: int) -> tuple[int, int]:
    parts = tile.parts(quads, channels)
    return (
        sum(instruction_count(lines) * times for lines, times in parts),
        sum(cycles(lines) * times for lines, times in parts),
    )


def with_partners(array: np.ndarray, groups: int) -> np.ndarray:
    """A channel of zeros behind each group's channels."""
    grouped = array.reshape(groups, -1, *array.shape[1:])
    spare = np.zeros((groups, 1, *array.shape[1:]), array.dtype)
    return np.concatenate([grouped, spare], axis=1).reshape(-1, *array.shape[1:])


def words_of_bytes(values: np.ndarray) -> np.ndarray:
    """`[..., 4]` int8 values as little-endian words, int64."""
    low, second, third, high = ((values[..., lane] & 0xFF) << 8 * lane for lane in range(4))
    return low | second | third | high


def _roundings(requantize: Requantize) -> tuple[int, int]:
    """What is added to a sum's product, and to that of 256 times a sum."""
    offset = requantize.zero_point
    if clamps(requantize):
        offset -= requantize.low

    def rounding(shift: int) -> int:
        return (offset << shift) + (1 << (shift - 1))

    return rounding(requantize.shift), rounding(requantize.shift + 8)


def clamps(requantize: Requantize) -> bool:
    """True if the outputs are bounded more narrowly than int8."""
    return (requantize.low, requantize.high) != (-128, 127)


def rounding_fits(requantize: Requantize) -> bool:
    """True if the epilogue computes this requantization."""
    if requantize.form != "smmla" or requantize.low > requantize.high:
        return False
    return abs(_roundings(requantize)[0]) < _ROUNDING_LIMIT


def forms(requantize: Requantize, weights: np.ndarray, bias: np.ndarray) -> list[Form]:
    """The forms that compute these channels exactly; empty when none does.

    Args:
        weights: int8 `[channels, inputs]`.
        bias: int32 `[channels]`.
    """
    if not rounding_fits(requantize):
        return []
    wide_rounding = _roundings(requantize)[1]
    wide = weights.astype(np.int64)
    most = np.maximum(wide * 127, wide * -128).sum(axis=1) + bias
    least = np.minimum(wide * 127, wide * -128).sum(axis=1) + bias
    fits = bool((most < _PAIR_LIMIT).all() and (least >= -_PAIR_LIMIT).all())
    if fits and not requantize.left_shift and abs(wide_rounding) < _ROUNDING_LIMIT:
        return ["pairs", "plain", "single"]
    return ["plain", "single"]


def tiles(form: Form, requantize: Requantize, pixels: int, channels: int) -> list[Tile]:
    """The routines worth trying for so many output pixels and channels of a group."""
    left, clamp = requantize.left_shift > 0, clamps(requantize)
    odd = form != "single" and channels % 2 == 1
    return [Tile(form, min(pixels, MOST_PIXELS), unroll, left, clamp, odd) for unroll in (1, 2, 4)]
