"""The outer loop of a convolution: over output pixels, two at a time.

`edge_mve_conv2d(x, pack, scratch, out)` copies each pixel's window into scratch, the border filled
with the input's zero point, and takes any kernel size, stride, padding and dilation. What one copy
can take of a kernel row is a segment: all its taps when neighbours in x are neighbours in the row
(no dilation), else one tap. Weights lie as [segment, kernel row, tap, channel].

`edge_mve_conv2d_add(x, other, pack, scratch, out)` adds `other` to what it computes.
"""

from __future__ import annotations

from edgecompress.lower.isa.dsp.asm import routine
from edgecompress.lower.isa.mve.rows import Variant
from edgecompress.lower.isa.mve.text import filled

CONV2D = "edge_mve_conv2d"

# Header words of the convolution from word 8, by their byte offset.
_WORDS = (
    "pixels", "columns", "column_stride", "first_column", "row_stride", "first_row", "segments",
    "taps", "last_inside", "segment_step", "width", "channels", "segment_bytes", "kernel_rows",
    "height", "row_step", "row_step_bytes", "fill",
)  # fmt: skip
AT = {name: 32 + 4 * index for index, name in enumerate(_WORDS)}

# stack: 0 x, 4 first row of scratch, 8 out, 12 pixels left, 16 columns left, 20 and 24 row and
# column of the window's first tap, 28 the return address, 32 second row of scratch, 36 r12
# x, other, pack, scratch and out on the stack become x, pack, scratch, out and r12
_CONV2D_ADDED = ["mov r12, r1", "mov r1, r2", "mov r2, r3", "ldr r3, [sp]", "sub r12, r12, r3"]
_CONV2D = [
    "push {r4-r11, lr}",
    "vpush {d14-d15}",
    "sub sp, #44",
    "str r12, [sp, #36]",
    "mov r5, r1",
    "strd r0, r2, [sp]",
    "ldr r0, [r5, #{fill}]",
    "str r3, [sp, #8]",
    "vdup.8 q7, r0",
    "ldr r0, [r5]",
    "lsls r0, r0, #4",
    "add r1, r2, r0",
    "str r1, [sp, #32]",
    "add r0, r1",
    "vmov.i32 q0, #0",  # what is left of the last block multiplies nothing
    "subs r1, #16",
    "subs r0, #16",
    "vstrb.8 q0, [r1]",
    "vstrb.8 q0, [r0]",
    "ldrd r0, r1, [r5, #{pixels}]",
    "strd r0, r1, [sp, #12]",
    "ldr r0, [r5, #{first_row}]",
    "ldr r1, [r5, #{first_column}]",
    "strd r0, r1, [sp, #20]",
    "1:",
    "ldr r4, [sp, #4]",
    "bl 50f",
    "ldr r0, [sp, #12]",
    "cmp r0, #1",
    "beq 2f",
    "ldr r4, [sp, #32]",
    "bl 50f",
    "ldr r0, [sp, #4]",
    "ldr r1, [sp, #32]",
    "mov r2, r5",
    "ldr r3, [sp, #8]",
    "ldr r12, [sp, #36]",
    "bl {rows2}",
    "ldr r0, [r5, #4]",
    "ldr r3, [sp, #8]",
    "add r3, r3, r0, lsl #1",
    "ldr r0, [sp, #12]",
    "str r3, [sp, #8]",
    "subs r0, #2",
    "str r0, [sp, #12]",
    "bne 1b",
    "b 3f",
    "2:",
    "ldr r0, [sp, #4]",
    "mov r1, r5",
    "ldr r2, [sp, #8]",
    "ldr r12, [sp, #36]",
    "bl {rows1}",
    "3:",
    "add sp, #44",
    "vpop {d14-d15}",
    "pop {r4-r11, pc}",
]

# r4: where to; r6: column of the segment's first tap; r7: segments left
_GATHER = [
    "50:",
    "str lr, [sp, #28]",
    "ldr r6, [sp, #24]",
    "ldr r7, [r5, #{segments}]",
    "51:",
    "ldr r3, [r5, #{last_inside}]",
    "ldr r1, [sp, #20]",  # row
    "ldr r0, [r5, #{width}]",
    "ldr r2, [r5, #{channels}]",
    "mla r12, r1, r0, r6",
    "ldr r0, [sp]",
    "mla r12, r12, r2, r0",  # the segment in x, in the window's first row
    "ldr r2, [r5, #{kernel_rows}]",
    "ldr r10, [r5, #{segment_bytes}]",
    "cmp r6, #0",
    "blt 60f",
    "cmp r6, r3",
    "bgt 60f",
    "ldr r3, [r5, #{height}]",
    "ldrd r8, r0, [r5, #{row_step}]",
    # all columns inside
    "52:",
    "cmp r1, r3",
    "bhs 55f",
    "mov r9, r12",
    "mov r11, r4",
    "dlstp.8 lr, r10",
    "53:",
    "vldrb.u8 q0, [r9], #16",
    "vstrb.8 q0, [r11], #16",
    "letp lr, 53b",
    "54:",
    "add r4, r10",
    "add r12, r0",
    "add r1, r8",
    "subs r2, #1",
    "bne 52b",
    "b 70f",
    # a row outside
    "55:",
    "mov r11, r4",
    "dlstp.8 lr, r10",
    "56:",
    "vstrb.8 q7, [r11], #16",
    "letp lr, 56b",
    "b 54b",
]

# r9 and r11: bytes of the segment to the left and to the right of the image
_BORDER = [
    "60:",
    "ldr r0, [r5, #{taps}]",
    "rsbs r9, r6, #0",
    "it mi",
    "movmi r9, #0",
    "cmp r9, r0",
    "it gt",
    "movgt r9, r0",
    "subs r11, r6, r3",  # column - (width - taps)
    "it mi",
    "movmi r11, #0",
    "cmp r11, r0",
    "it gt",
    "movgt r11, r0",
    "ldr r0, [r5, #{channels}]",
    "mul r9, r9, r0",
    "mul r11, r11, r0",
    "add r12, r9",
    "sub r10, r10, r9",
    "sub r10, r10, r11",
    "61:",
    "ldr r3, [r5, #{height}]",
    "cmp r1, r3",
    "bhs 68f",
    "mov r0, r4",
    "wlstp.8 lr, r9, 63f",
    "62:",
    "vstrb.8 q7, [r0], #16",
    "letp lr, 62b",
    "63:",
    "add r4, r9",
    "mov r0, r4",
    "mov r3, r12",
    "wlstp.8 lr, r10, 65f",
    "64:",
    "vldrb.u8 q0, [r3], #16",
    "vstrb.8 q0, [r0], #16",
    "letp lr, 64b",
    "65:",
    "add r4, r10",
    "mov r0, r4",
    "wlstp.8 lr, r11, 67f",
    "66:",
    "vstrb.8 q7, [r0], #16",
    "letp lr, 66b",
    "67:",
    "add r4, r11",
    "b 69f",
    "68:",
    "ldr r3, [r5, #{segment_bytes}]",
    "mov r0, r4",
    "add r4, r3",
    "dlstp.8 lr, r3",
    "681:",
    "vstrb.8 q7, [r0], #16",
    "letp lr, 681b",
    "69:",
    "ldrd r3, r0, [r5, #{row_step}]",
    "add r1, r3",
    "add r12, r0",
    "subs r2, #1",
    "bne 61b",
]

# the next segment, or the next pixel
_ADVANCE = [
    "70:",
    "ldr r0, [r5, #{segment_step}]",
    "add r6, r0",
    "subs r7, #1",
    "bne 51b",
    "ldrd r2, r0, [sp, #16]",
    "ldr r3, [r5, #{column_stride}]",
    "ldr r1, [sp, #24]",
    "add r1, r3",
    "subs r2, #1",
    "bne 71f",
    "ldr r2, [r5, #{columns}]",
    "ldr r1, [r5, #{first_column}]",
    "ldr r3, [r5, #{row_stride}]",
    "add r0, r3",
    "71:",
    "strd r2, r0, [sp, #16]",
    "str r1, [sp, #24]",
    "ldr pc, [sp, #28]",
]


def convolution(variant: Variant) -> dict[str, str]:
    """The routine and the rows it calls."""
    symbol = CONV2D + variant.suffix
    start = _CONV2D_ADDED if variant.added else []
    lines = [*start, *_CONV2D, *_GATHER, *_BORDER, *_ADVANCE]
    return {symbol: routine(symbol, filled(lines, AT | variant.names)), **variant.rows()}


def convolution_words(**words: int) -> list[int]:
    """The convolution's own header words; every name of `AT`."""
    return [words[name] for name in _WORDS]


def gather_instructions(segments: int, kernel_rows: int, segment_bytes: int) -> int:
    """For one pixel with its window inside the image, counted from the text above."""
    row = 10 + 3 * -(-segment_bytes // 16)
    return 28 + segments * (20 + kernel_rows * row)
