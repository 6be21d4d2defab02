"""The multiply-accumulate core: one or two rows of int8 inputs by all output channels.

`edge_mve_rows2(x0, x1, pack, out)`: out[0..C) from the row at x0, out[C..2C) from that at x1.
`edge_mve_rows1(x0, pack, out)`: the same for one row.
`edge_mve_rows2_add`, `edge_mve_rows1_add`: each result is added to the int8 that lies r12 bytes
after its place in out, with the addition's parameters in the eight words before the stream. Names
ending in `_lift` first shift the accumulators left.

A row is `blocks` times 16 bytes; see `packing.interleave` for the stream. Eight accumulators (two
rows by four channels) are the eight even registers, which is what VMLADAVA can add to: six loads
serve eight times sixteen multiplications.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgecompress.lower.isa.dsp.asm import instruction_count, routine

ROWS1, ROWS2 = "edge_mve_rows1", "edge_mve_rows2"

_LOAD_VECTORS = [
    "ldrd r0, r1, [r2, #8]",
    "vdup.32 q7, r0",  # -shift
    "vdup.32 q6, r1",  # rounding constant
    "ldrd r0, r1, [r2, #16]",
    "vdup.32 q4, r0",  # low
    "vdup.32 q5, r1",  # high
    "ldrd r0, r1, [r2, #24]",
    "str r0, [sp, #16]",  # left shift
    "add r5, r2, r1",  # the stream
]
# r12: from out to the other operand
_LOAD_ADD = ["sub r0, r5, #32", "strd r12, r0, [sp, #20]"]

_LOAD_FACTORS = ["ldr r0, [sp, #24]", "ldm r0, {r0, r1, r2, r4, r6, r8}"]


def _addition(results: tuple[str, ...], others: tuple[str, ...]) -> list[str]:
    """(result * r0 + other * r1 + r2) >> -r4, from r6 to r8; the others' registers are lost."""
    pairs = list(zip(results, others, strict=True))
    return [
        *(f"vmul.i32 {result}, {result}, r0" for result in results),
        *(f"vmla.i32 {result}, {other}, r1" for result, other in pairs),
        *(f"vadd.i32 {result}, {result}, r2" for result in results),
        *(f"vshl.s32 {result}, r4" for result in results),
        f"vdup.32 {others[0]}, r6",
        *(f"vmax.s32 {result}, {result}, {others[0]}" for result in results),
        f"vdup.32 {others[0]}, r8",
        *(f"vmin.s32 {result}, {result}, {others[0]}" for result in results),
    ]


_SETUP2 = [
    "push {r4-r11, lr}",
    "vpush {d8-d15}",
    "sub sp, #28",
    "strd r0, r1, [sp]",
    "mov r7, r3",
    "ldrd r0, r9, [r2]",
    "strd r0, r9, [sp, #8]",
    *_LOAD_VECTORS,
]

# one block of 16 inputs: x in q0 and q1, the weights of two channels in turn in q2 and q3
_BLOCK2 = [
    "vldrb.u8 q0, [r1], #16",
    "vldrb.u8 q2, [r5], #16",
    "vmladava.s8 r0, q0, q2",
    "vldrb.u8 q1, [r3], #16",
    "vmladava.s8 r8, q1, q2",
    "vldrb.u8 q3, [r5], #16",
    "vmladava.s8 r2, q0, q3",
    "vldrb.u8 q2, [r5], #16",
    "vmladava.s8 r10, q1, q3",
    "vldrb.u8 q3, [r5], #16",
    "vmladava.s8 r4, q0, q2",
    "vmladava.s8 r12, q1, q2",
    "vmladava.s8 r6, q0, q3",
    "vmladava.s8 lr, q1, q3",
]

_GROUP2 = [
    "1:",
    "ldm r5!, {r0, r2, r4, r6}",
    "ldm sp, {r1, r3, r11}",
    "mov r8, r0",
    "mov r10, r2",
    "mov r12, r4",
    "mov lr, r6",
    "tst r11, #1",
    "bne 3f",  # an odd count enters in the middle
    "2:",
    *_BLOCK2,
    "3:",
    *_BLOCK2,
    "subs r11, #2",
    "bgt 2b",
    "vmov d0, r0, r2",
    "vmov d1, r4, r6",
    "vmov d2, r8, r10",
    "vmov d3, r12, lr",
    "vldrw.u32 q2, [r5], #16",
]
_LIFT2 = ["ldr r0, [sp, #16]", "vshl.s32 q0, r0", "vshl.s32 q1, r0"]
_REQUANTIZE2 = [
    "vmulh.s32 q0, q0, q2",
    "vmulh.s32 q1, q1, q2",
    "vadd.i32 q0, q0, q6",
    "vadd.i32 q1, q1, q6",
    "vshl.s32 q0, q0, q7",
    "vshl.s32 q1, q1, q7",
    "vmax.s32 q0, q0, q4",
    "vmax.s32 q1, q1, q4",
    "vmin.s32 q0, q0, q5",
    "vmin.s32 q1, q1, q5",
    "ldr r3, [sp, #12]",
    "vctp.32 r9",  # the last group may have fewer than four channels
    "add r3, r7",
]
_ADD2 = [
    "ldr r0, [sp, #20]",
    "add r1, r7, r0",
    "add r2, r3, r0",
    "vpstt",
    "vldrbt.s32 q2, [r1]",
    "vldrbt.s32 q3, [r2]",
    *_LOAD_FACTORS,
    *_addition(("q0", "q1"), ("q2", "q3")),
]
_STORE2 = [
    "vpstt",
    "vstrbt.32 q1, [r3]",
    "vstrbt.32 q0, [r7], #4",
    "subs r9, #4",
    "bgt 1b",
]
_END = ["add sp, #28", "vpop {d8-d15}", "pop {r4-r11, pc}"]

_SETUP1 = [
    "push {r4-r11, lr}",
    "vpush {d8-d15}",
    "sub sp, #28",
    "mov r3, r2",
    "mov r2, r1",
    "str r0, [sp]",
    "ldrd r7, r9, [r2]",
    *_LOAD_VECTORS,
]

_GROUP1 = [
    "1:",
    "ldm r5!, {r0, r2, r4, r6}",
    "ldr r1, [sp]",
    "dls lr, r7",
    "2:",
    "vldrb.u8 q0, [r1], #16",
    "vldrb.u8 q1, [r5], #16",
    "vmladava.s8 r0, q0, q1",
    "vldrb.u8 q2, [r5], #16",
    "vmladava.s8 r2, q0, q2",
    "vldrb.u8 q3, [r5], #16",
    "vmladava.s8 r4, q0, q3",
    "vldrb.u8 q1, [r5], #16",
    "vmladava.s8 r6, q0, q1",
    "le lr, 2b",
    "vmov d0, r0, r2",
    "vmov d1, r4, r6",
    "vldrw.u32 q2, [r5], #16",
]
_LIFT1 = ["ldr r8, [sp, #16]", "vshl.s32 q0, r8"]
_REQUANTIZE1 = [
    "vmulh.s32 q0, q0, q2",
    "vctp.32 r9",
    "vadd.i32 q0, q0, q6",
    "vshl.s32 q0, q0, q7",
    "vmax.s32 q0, q0, q4",
    "vmin.s32 q0, q0, q5",
]
_ADD1 = [
    "ldr r0, [sp, #20]",
    "adds r0, r0, r3",
    "vpst",
    "vldrbt.s32 q1, [r0]",
    *_LOAD_FACTORS,
    *_addition(("q0",), ("q1",)),
]
_STORE1 = [
    "vpst",
    "vstrbt.32 q0, [r3], #4",
    "subs r9, #4",
    "bgt 1b",
]


@dataclass(frozen=True)
class Variant:
    """What a layer's rows do besides: a residual addition; accumulators shifted left first."""

    added: bool = False
    lifted: bool = False

    @property
    def suffix(self) -> str:
        return ("_add" if self.added else "") + ("_lift" if self.lifted else "")

    @property
    def names(self) -> dict[str, str]:
        """What an outer loop's text calls them."""
        return {"rows1": ROWS1 + self.suffix, "rows2": ROWS2 + self.suffix}

    @property
    def group1(self) -> list[str]:
        lines = [*_GROUP1, *(_LIFT1 if self.lifted else []), *_REQUANTIZE1]
        return [*lines, *(_ADD1 if self.added else []), *_STORE1]

    @property
    def group2(self) -> list[str]:
        lines = [*_GROUP2, *(_LIFT2 if self.lifted else []), *_REQUANTIZE2]
        return [*lines, *(_ADD2 if self.added else []), *_STORE2]

    def rows(self) -> dict[str, str]:
        """The two routines by name."""
        load = _LOAD_ADD if self.added else []
        texts = {
            ROWS1 + self.suffix: [*_SETUP1, *load, *self.group1, *_END],
            ROWS2 + self.suffix: [*_SETUP2, *load, *self.group2, *_END],
        }
        return {name: routine(name, lines, alignment=8) for name, lines in texts.items()}

    def rows1_instructions(self, blocks: int, groups: int) -> int:
        """Executed by one call, counted from its text."""
        loop = 10 * blocks
        each = instruction_count(self.group1) - 10 + loop
        return instruction_count([*_SETUP1, *_END]) + groups * each

    def rows2_instructions(self, blocks: int, groups: int) -> int:
        """Executed by one call, counted from its text."""
        loop = 14 * blocks + 2 * -(-blocks // 2)
        each = instruction_count(self.group2) - 30 + loop
        return instruction_count([*_SETUP2, *_END]) + groups * each
