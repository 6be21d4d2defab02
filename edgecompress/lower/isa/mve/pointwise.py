"""The outer loop of a 1x1 convolution without padding, and of a dense layer: two pixels at a time.

`edge_mve_pointwise(x, pack, out)` reads pixels where they lie: channels are a multiple of 16.

`edge_mve_ragged(x, pack, scratch, out)` does so for any channel count: what a pixel's last block
reads of the next pixels is multiplied by zero weights. Only pixels at the very end of x, where such
a block would reach beyond it, are copied into scratch.

With `_add`, `other` follows x and is added to what the routine computes.
"""

from __future__ import annotations

from edgecompress.lower.isa.dsp.asm import routine
from edgecompress.lower.isa.mve.rows import Variant
from edgecompress.lower.isa.mve.text import filled

POINTWISE, RAGGED = "edge_mve_pointwise", "edge_mve_ragged"

# Header words from word 8: 32 pixels, 36 columns, 40 bytes from column to column, 44 bytes from
# row to row; ragged: 48 channels, 52 bytes of x less those of a row of blocks.
_NEXT_PIXEL = [
    "add r4, r10",
    "subs r6, #1",
    "bne {label}f",
    "ldr r2, [r5, #44]",
    "add r7, r2",
    "mov r4, r7",
    "ldr r6, [r5, #36]",
    "{label}:",
]


def _next_pixel(label: int) -> list[str]:
    return [line.format(label=label) for line in _NEXT_PIXEL]


# other after x becomes r12, from out to other
_ADDED = {
    POINTWISE: ["sub r12, r1, r3", "mov r1, r2", "mov r2, r3"],
    RAGGED: ["mov r12, r1", "mov r1, r2", "mov r2, r3", "ldr r3, [sp]", "sub r12, r12, r3"],
}

# stack: 0 r12; ragged: 4 the last pixel that can be read in place, 8 and 12 the rows in scratch
_START = {
    POINTWISE: ["mov r8, r2"],  # out
    RAGGED: [
        "mov r8, r3",
        "ldr r9, [r5, #52]",
        "add r9, r0",
        "str r9, [sp, #4]",
        "ldr r9, [r5]",
        "add r3, r2, r9, lsl #4",
        "strd r2, r3, [sp, #8]",
        "vmov.i32 q0, #0",  # what is left of the last block multiplies nothing
        "add r9, r3, r9, lsl #4",
        "sub r3, #16",
        "sub r9, #16",
        "vstrb.8 q0, [r3]",
        "vstrb.8 q0, [r9]",
    ],
}
_BOTH_IN_PLACE = [
    "ldr r2, [sp, #4]",
    "cmp r1, r2",  # both addresses lie in RAM: unsigned
    "bls 6f",
    "mov r2, r0",
    "ldr r3, [sp, #8]",
    "bl 60f",
    "mov r2, r1",
    "ldr r3, [sp, #12]",
    "bl 60f",
    "ldrd r0, r1, [sp, #8]",
    "6:",
]
_LAST_COPIED = ["mov r2, r4", "ldr r3, [sp, #8]", "bl 60f", "ldr r4, [sp, #8]"]
_COPY = [
    "60:",
    "mov r12, lr",
    "ldr lr, [r5, #48]",
    "dlstp.8 lr, lr",
    "61:",
    "vldrb.u8 q0, [r2], #16",
    "vstrb.8 q0, [r3], #16",
    "letp lr, 61b",
    "bx r12",
]


def _lines(symbol: str) -> list[str]:
    ragged = symbol == RAGGED
    return [
        "push {r4-r11, lr}",
        "sub sp, #20",
        "str r12, [sp]",
        "mov r5, r1",
        "mov r4, r0",  # the pixel
        "mov r7, r0",  # the first of its row
        *_START[symbol],
        "ldrd r9, r6, [r5, #32]",  # pixels left, columns left
        "ldr r10, [r5, #40]",
        "ldr r11, [r5, #4]",
        "1:",
        "cmp r9, #1",
        "beq 4f",
        "mov r0, r4",
        *_next_pixel(2),
        "mov r1, r4",
        *_next_pixel(3),
        *(_BOTH_IN_PLACE if ragged else []),
        "mov r2, r5",
        "mov r3, r8",
        "ldr r12, [sp]",
        "bl {rows2}",
        "add r8, r8, r11, lsl #1",
        "subs r9, #2",
        "bne 1b",
        "b 5f",
        "4:",
        *(_LAST_COPIED if ragged else []),
        "mov r0, r4",
        "mov r1, r5",
        "mov r2, r8",
        "ldr r12, [sp]",
        "bl {rows1}",
        "5:",
        "add sp, #20",
        "pop {r4-r11, pc}",
        *(_COPY if ragged else []),
    ]


def pointwise(symbol: str, variant: Variant) -> dict[str, str]:
    """The routine, POINTWISE or RAGGED, and the rows it calls."""
    lines = [*(_ADDED[symbol] if variant.added else []), *_lines(symbol)]
    name = symbol + variant.suffix
    return {name: routine(name, filled(lines, variant.names)), **variant.rows()}


def pointwise_instructions(symbol: str) -> int:
    """For two pixels, without the rows; counted from the text above."""
    return 15 + (3 if symbol == RAGGED else 0)
