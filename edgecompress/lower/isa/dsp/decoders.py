"""Routines that decode a stretch of weights into scratch, one for each codec of `lower.codec`.

    r0 codes, r1 where the weights go, r2 units of eight weights, r3 table (bitmap: nonzero bytes)

leave r0, r1 and r3 behind what they read and wrote, and may change r4 to r12. Weights come out
either as bytes or `mixed`, as the kernels want them that keep two channels in a half word:
256 * B + A, which differs from the bytes (A, B) by a borrow where A is negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.lower.codec import UNIT, Bitmap, Codec, Lut, Packed4
from edgecompress.lower.codec.interface import padded, units
from edgecompress.lower.isa.dsp.asm import cycles, instruction_count, routine

_PAIR_TABLE_BYTES = 512
# How four bits of a bitmap become a word of weights: r3 reads on, r6 is the word.
_SCATTER: tuple[tuple[str, ...], ...] = (
    ("movs r6, #0",),
    ("ldrb r6, [r3], #1",),
    ("ldrb r6, [r3], #1", "lsls r6, r6, #8"),
    ("ldrh r6, [r3], #2",),
    ("ldrb r6, [r3], #1", "lsls r6, r6, #16"),
    ("ldrh r6, [r3], #2", "orr.w r6, r6, r6, lsl #8", "uxtb16 r6, r6"),
    ("ldrh r6, [r3], #2", "lsls r6, r6, #8"),
    ("ldr r6, [r3], #3", "bic r6, r6, #0xff000000"),
    ("ldrb r6, [r3], #1", "lsls r6, r6, #24"),
    ("ldrh r6, [r3], #2", "lsrs r7, r6, #8", "uxtb r6, r6", "orr.w r6, r6, r7, lsl #24"),
    ("ldrh r6, [r3], #2", "orr.w r6, r6, r6, lsl #8", "uxtb16 r6, r6", "lsls r6, r6, #8"),
    ("ldr r6, [r3], #3", "ubfx r7, r6, #16, #8", "uxth r6, r6", "orr.w r6, r6, r7, lsl #24"),
    ("ldrh r6, [r3], #2", "lsls r6, r6, #16"),
    ("ldr r6, [r3], #3", "uxtb r7, r6", "lsrs r6, r6, #8", "orr.w r6, r7, r6, lsl #16"),
    ("ldr r6, [r3], #3", "lsls r6, r6, #8"),
    ("ldr r6, [r3], #4",),
)


@dataclass(frozen=True)
class Decoder:
    """One codec's routine and its data in the image."""

    codec: Codec
    mixed: bool

    @property
    def symbol(self) -> str:
        return f"decode_{self.codec.name}" + ("_mixed" if self.mixed else "")

    @property
    def prepare_symbol(self) -> str:
        """Of the routine that makes the table in scratch, if there is one."""
        return f"{self.symbol}_table" if self.scratch_bytes else ""

    @property
    def scratch_bytes(self) -> int:
        """Of the table of pairs that 16 shared values are looked up in."""
        return _PAIR_TABLE_BYTES if self.codec == Lut(16) else 0

    @property
    def moves_table(self) -> bool:
        """True if r3 moves on with the weights."""
        return isinstance(self.codec, Bitmap)

    @property
    def assembly(self) -> dict[str, str]:
        texts = {self.symbol: routine(self.symbol, [*self._start(), *self._loop(), "bx lr"])}
        if self.prepare_symbol:
            texts[self.prepare_symbol] = routine(self.prepare_symbol, self._prepare())
        return texts

    def data(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(codes, what r3 points at first), uint8; both end with whole words.

        A bitmap's last nonzero bytes are read as a word.
        """
        encoded = self.codec.encode(values)
        if isinstance(self.codec, Lut):
            table, codes = self.codec.table(values), encoded[self.codec.entries :]
            first = table.view(np.uint8) if self.scratch_bytes else self._pairs(table)
        elif isinstance(self.codec, Bitmap):
            codes, first = np.split(encoded, [units(values)])
            first = np.pad(first, (0, 3))
        else:
            codes, first = encoded, np.zeros(0, np.uint8)
        return _whole_words(codes), _whole_words(first)

    def _pairs(self, table: np.ndarray) -> np.ndarray:
        """Half words of two values, by two codes of two bits."""
        first, second = np.tile(table, 4), np.repeat(table, 4)
        low = first.astype(np.int16) if self.mixed else first.view(np.uint8).astype(np.int16)
        return (256 * second.astype(np.int16) + low).astype(np.int16).view(np.uint8)

    def work(self, values: np.ndarray, calls: int) -> tuple[int, int]:
        """(instructions, cycles) of decoding all values in so many calls."""
        parts = [([*self._start(), "bx lr"], calls)]
        if isinstance(self.codec, Bitmap):
            parts += self._bitmap_parts(values)
        else:
            parts.append((self._loop(), units(values)))
        if self.prepare_symbol:
            lines = self._prepare()
            outer, inner, after = lines.index("1:"), lines.index("2:"), lines.index("cmp r5, r4")
            parts += [([*lines[:outer], lines[-1]], 1), (lines[inner:after], 64)]
            parts.append(([*lines[outer:inner], *lines[after:-1]], 16))
        return (
            sum(instruction_count(lines) * times for lines, times in parts),
            sum(cycles(lines) * times for lines, times in parts),
        )

    def _start(self) -> list[str]:
        if isinstance(self.codec, Packed4):
            return ["mov.w r8, #0x08080808"]
        if isinstance(self.codec, Bitmap) and self.mixed:
            return ["mov.w r8, #0x00800080"]
        return []

    def _loop(self) -> list[str]:
        end = ["subs r2, #1", "bne.w 1b"]
        if isinstance(self.codec, Packed4):
            subtract = "ssub16" if self.mixed else "ssub8"
            return ["1:", "ldr r4, [r0], #4", "and r5, r4, #0x0f0f0f0f", "lsrs r4, r4, #4",
                    "and r6, r4, #0x0f0f0f0f", f"{subtract} r5, r5, r8",
                    f"{subtract} r6, r6, r8", "stmia r1!, {r5, r6}", *end]  # fmt: skip
        if isinstance(self.codec, Bitmap):
            return [*self._mask(), *self._nibble(), *self._scatter(), *self._word(), *end]
        if self.codec == Lut(16):
            codes = [f"ldrb r{number}, [r0], #1" for number in range(4, 8)]
        else:
            codes = ["ldrh r7, [r0], #2", "and r4, r7, #15", "ubfx r5, r7, #4, #4",
                     "ubfx r6, r7, #8, #4", "lsrs r7, r7, #12"]  # fmt: skip
        pairs = [f"ldrh.w r{number}, [r3, r{number}, lsl #1]" for number in range(4, 8)]
        return ["1:", *codes, *pairs, "pkhbt r4, r4, r5, lsl #16", "pkhbt r5, r6, r7, lsl #16",
                "stmia r1!, {r4, r5}", *end]  # fmt: skip

    def _prepare(self) -> list[str]:
        """r0 16 values, r1 where the 256 pairs go: the first value's code is the low one."""
        load = "ldrsb" if self.mixed else "ldrb"
        pair = [f"{load} r7, [r2], #1", "adds r7, r7, r6", "strh r7, [r1], #2"]
        return ["add.w r4, r0, #16", "mov r5, r0", "1:", "ldrsb r6, [r5], #1", "lsls r6, r6, #8",
                "mov r2, r0", "2:", *pair * 4, "cmp r2, r4", "bne.n 2b", "cmp r5, r4", "bne.n 1b",
                "bx lr"]  # fmt: skip

    def _mask(self) -> list[str]:
        """The bit above tells when both halves are done."""
        return ["1:", "ldrb r4, [r0], #1", "orr r4, r4, #0x100"]

    def _nibble(self) -> list[str]:
        table = [f".byte ({20 + case}f - 4b) / 2" for case in range(16)]
        return ["2:", "and r5, r4, #15", "lsrs r4, r4, #4", "tbb [pc, r5]", "4:", *table]

    def _scatter(self) -> list[str]:
        lines = []
        for case, steps in enumerate(_SCATTER):
            lines += [f"{20 + case}:", *steps, "b.n 3f"]
        return [*lines[:-1], "3:"]

    def _word(self) -> list[str]:
        mix = ["eor.w r6, r6, r8", "ssub16 r6, r6, r8"] if self.mixed else []
        return [*mix, "str r6, [r1], #4", "cmp r4, #1", "bne.n 2b"]

    def _bitmap_parts(self, values: np.ndarray) -> list[tuple[list[str], int]]:
        masks = np.packbits(padded(values).reshape(-1, UNIT) != 0, bitorder="little")
        nibbles = np.concatenate([masks & 15, masks >> 4])
        parts = [([*self._mask(), "subs r2, #1", "bne.w 1b"], len(masks))]
        parts.append(([*self._nibble(), *self._word()], len(nibbles)))
        for case, count in enumerate(np.bincount(nibbles, minlength=16).tolist()):
            leave = ["b.n 3f"] if case < 15 else []
            parts.append(([*_SCATTER[case], *leave], count))
        return parts


def _whole_words(data: np.ndarray) -> np.ndarray:
    return np.pad(data, (0, -len(data) % 4))
