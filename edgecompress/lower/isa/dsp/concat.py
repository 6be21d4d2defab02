"""Concatenation for Thumb-2: one part after another, sixteen bytes a round.

A part is rows of so many bytes, one for every element of the axes before the joined one; they go
to places one joined row apart. Parts with other parameters pass through a table of 256, turned by
half so that the int8's own bits are the index.

    constants   each part: [bytes from a row's end to the next row's place, bytes to the next
                part's place, bytes from here to its table or 0, rows, rounds, words, bytes]
                [tables]

Example: [16, 16, 24] and [16, 16, 9] on the last axis: 256 rows of 1 round and 2 words, then 256
rows of 2 words and 1 byte. One routine for every number of parts serves all layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.isa.dsp.asm import cycles, instruction_count, routine
from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.kernels.concat import Concat

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

_MOST_PARTS = 200  # so many pointers are within reach of an immediate offset
_PART_BYTES = 28
_SAVED = 36  # bytes of registers under the pushed arguments
_STEP = ["ldr r3, [r5, #-28]", "subs r2, #1", "add r1, r3"]
_FOUR_WORDS = [
    "ldr r7, [r0], #4", "ldr r11, [r0], #4", "ldr r12, [r0], #4", "ldr lr, [r0], #4",
    "str r7, [r1], #4", "str r11, [r1], #4", "str r12, [r1], #4", "str lr, [r1], #4",
]  # fmt: skip
_BYTE = ["ldrb r7, [r0], #1", "strb r7, [r1], #1"]
_THROUGH_TABLE = ["ldrb r7, [r0], #1", "ldrb r7, [r12, r7]", "strb r7, [r1], #1"]


@dataclass(frozen=True)
class _Row:
    """What a row of one part takes: rounds of 16 bytes, words, bytes; 0 words through a table."""

    count: int
    size: int
    table: bool

    @property
    def rounds(self) -> int:
        return self.size // (4 if self.table else 16)

    @property
    def words(self) -> int:
        return 0 if self.table else self.size % 16 // 4

    @property
    def bytes(self) -> int:
        return self.size % 4


@dataclass(frozen=True)
class _Routine:
    """Arguments: the parts, constants, output. r4 arguments, r5 a part's constants, r6 its place,
    r0 source, r1 target, r2 rows left; r8, r9, r10 rounds, words, bytes of a row."""

    parts: int
    tables: bool

    @property
    def symbol(self) -> str:
        return f"concat_{self.parts}{'_tables' if self.tables else ''}"

    @property
    def text(self) -> str:
        lines = [*self.start(), "1:", *self.part(), "2:", *self.row(), "3:", *self.round(), "4:"]
        lines += [*self.words(), "5:", *self.word(), "6:", *self.bytes(), "7:", *self.byte()]
        lines += ["8:", *self.row_end("2b")]
        if self.tables:
            lines += ["b.n 9f", "12:", *self.table_row(), "13:", *self.table_round(), "14:"]
            lines += [*self.table_rest(), "15:", *self.table_one(), "16:", *self.row_end("12b")]
        return routine(self.symbol, [*lines, "9:", *self.part_end(), *self.end()])

    def start(self) -> list[str]:
        return ["push {r0-r3}", "push {r4-r11, lr}", f"add r4, sp, #{_SAVED}",
                f"ldrd r5, r6, [r4, #{4 * self.parts}]"]  # fmt: skip

    def part(self) -> list[str]:
        sizes = ["mov r1, r6", "ldrd r2, r8, [r5, #-16]", "ldrd r9, r10, [r5, #-8]"]
        if not self.tables:
            return ["ldr r0, [r4], #4", f"adds r5, #{_PART_BYTES}", *sizes]
        return ["ldr r0, [r4], #4", "ldr r12, [r5, #8]", "cmp r12, #0", "add r12, r5",
                f"add.w r5, r5, #{_PART_BYTES}", *sizes, "bne.w 12f"]  # fmt: skip

    def row(self) -> list[str]:
        return ["movs r3, r8", "beq.n 4f"]

    def round(self) -> list[str]:
        return [*_FOUR_WORDS, "subs r3, #1", "bne.n 3b"]

    def words(self) -> list[str]:
        return ["movs r3, r9", "beq.n 6f"]

    def word(self) -> list[str]:
        return ["ldr r7, [r0], #4", "str r7, [r1], #4", "subs r3, #1", "bne.n 5b"]

    def bytes(self) -> list[str]:
        return ["movs r3, r10", "beq.n 8f"]

    def byte(self) -> list[str]:
        return [*_BYTE, "subs r3, #1", "bne.n 7b"]

    def row_end(self, label: str) -> list[str]:
        return [*_STEP, f"bne.w {label}"]

    def table_row(self) -> list[str]:
        return ["movs r3, r8", "beq.n 14f"]

    def table_round(self) -> list[str]:
        return [*_THROUGH_TABLE * 4, "subs r3, #1", "bne.n 13b"]

    def table_rest(self) -> list[str]:
        return ["movs r3, r10", "beq.n 16f"]

    def table_one(self) -> list[str]:
        return [*_THROUGH_TABLE, "subs r3, #1", "bne.n 15b"]

    def part_end(self) -> list[str]:
        return ["ldr r3, [r5, #-24]", "add r6, r3", f"add r3, sp, #{_SAVED + 4 * self.parts}",
                "cmp r4, r3", "bne.w 1b"]  # fmt: skip

    def end(self) -> list[str]:
        return ["pop {r4-r11, lr}", "add sp, #16", "bx lr"]

    def cost(self, rows: list[_Row]) -> Cost:
        often = [(1, self.start() + self.end()), (len(rows), self.part() + self.part_end())]
        for row in rows:
            if row.table:
                every = [*self.table_row(), *self.table_rest(), *self.row_end("12b")]
                often += [(row.count, every), (row.count * row.rounds, self.table_round()),
                          (row.count * row.bytes, self.table_one())]  # fmt: skip
            else:
                every = [*self.row(), *self.words(), *self.bytes(), *self.row_end("2b")]
                often += [(row.count, every), (row.count * row.rounds, self.round()),
                          (row.count * row.words, self.word()),
                          (row.count * row.bytes, self.byte())]  # fmt: skip
                often.append((1 if self.tables else 0, ["b.n 9f"]))
        return Cost(
            instructions=sum(times * instruction_count(lines) for times, lines in often),
            cycles=sum(times * cycles(lines) for times, lines in often),
            code_bytes=0,  # all of it shared
        )


class ConcatGenerator:
    """`Concat` along any axis. Refuses empty parts, and more than 200."""

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not isinstance(kernel, Concat) or len(kernel.shapes) > _MOST_PARTS:
            return []
        if any(0 in shape for shape in kernel.shapes):
            return []
        rows = [
            _Row(int(np.prod(shape[: kernel.axis])), int(np.prod(shape[kernel.axis :])), table)
            for shape, table in zip(kernel.shapes, kernel.rescaled, strict=True)
        ]
        code = _Routine(len(rows), any(kernel.rescaled))
        return [
            Implementation(
                symbol=code.symbol,
                constants=(_pack(rows, constants),),
                cost=code.cost(rows),
                description="dsp concat, 16 bytes",
                assembly={code.symbol: code.text},
            )
        ]


def _pack(rows: list[_Row], tables: tuple[np.ndarray, ...]) -> np.ndarray:
    """The routine's one constant, int8."""
    whole, words, used = sum(row.size for row in rows), [], 0
    for index, row in enumerate(rows):
        place = _PART_BYTES * (len(rows) - index) + 256 * used if row.table else 0
        used += row.table
        words += [whole - row.size, row.size, place, row.count, row.rounds, row.words, row.bytes]
    turned = [np.roll(table, 128) for table in tables]
    return np.concatenate([np.array(words, np.int32).view(np.int8), *turned])
