"""Depthwise convolution on MVE: lanes are channels, sixteen at a time.

Two taps at once: VMULLB and VMULLT give 16-bit products of the even and odd channels, the two
taps' products still fit 16 bits when added (128 * (127 + 128) < 2^15), and VMOVLB/VMOVLT widen the
sums into four accumulators of four channels each:

    q0: channels 0 4 8 12    q1: 2 6 10 14    q2: 1 5 9 13    q3: 3 7 11 15

Biases and multipliers are stored in that order. Narrowing twice, bottom then top, undoes it.

Where a tap lies relative to its pixel's window is a table in the constants. A window that reaches
over the border gets a table of its own in scratch, whose outside taps lead to a row of zero points.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.isa.dsp.asm import instruction_count, routine
from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.isa.mve.packing import (
    BLOCK,
    CYCLES_PER_INSTRUCTION,
    pack,
    padded,
    requantize_words,
)
from edgecompress.lower.isa.mve.text import filled
from edgecompress.lower.kernels.depthwise_conv2d import DepthwiseConv2D

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

DEPTHWISE, TAIL = "edge_mve_depthwise", "_tail"

# Header words from word 8, by their byte offset; the table of taps follows them.
_WORDS = (
    "rows", "columns", "column_bytes", "row_bytes", "first_column", "column_stride", "first_row",
    "row_stride", "last_column", "last_row", "kernel_rows", "kernel_columns", "row_step",
    "column_step", "height", "width", "fill", "pairs",
)  # fmt: skip
_AT = {name: 32 + 4 * index for index, name in enumerate(_WORDS)}
_TABLE = 32 + 4 * len(_WORDS)
_LANES = np.array([0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15])

# stack: 0 window in x, 4 pack, 8 row of zero points, 12 table in scratch, 16 row and 20 column of
# the window, 24 columns left, 28 rows left, 32 window in x of the row's first pixel
_START = [
    "push {r4-r11, lr}",
    "vpush {d8-d15}",
    "sub sp, #36",
    "mov r11, r3",
    "strd r0, r1, [sp]",
    "mov r7, r1",
    "ldr r4, [r7, #{fill}]",
    "vdup.8 q0, r4",
    "ldr r4, [r7]",  # blocks of 16 channels
    "mov r5, r2",
    "1:",
    "vstrb.8 q0, [r5], #16",
    "subs r4, #1",
    "bne 1b",
    "strd r2, r5, [sp, #8]",
    "ldr r4, [r7, #{first_row}]",
    "ldr r5, [r7, #{width}]",
    "ldr r8, [r7, #4]",
    "ldr r6, [r7, #{first_column}]",
    "mul r9, r4, r5",
    "add r9, r6",
    "mla r0, r9, r8, r0",
    "str r0, [sp]",
    "strd r4, r6, [sp, #16]",
    "ldrd r4, r5, [r7, #{rows}]",
    "strd r5, r4, [sp, #24]",
    "str r0, [sp, #32]",
]

_PIXEL = [
    "2:",
    "ldr r10, [sp, #4]",
    "ldrd r4, r5, [sp, #16]",
    "ldrd r2, r3, [r10, #{last_column}]",
    "cmp r5, #0",
    "blt 20f",
    "cmp r5, r2",
    "bgt 20f",
    "cmp r4, #0",
    "blt 20f",
    "cmp r4, r3",
    "bgt 20f",
    f"add r7, r10, #{_TABLE}",
    "3:",
    "ldr r9, [r10, #{pairs}]",
    "ldr r1, [sp]",
    "ldrd r12, r0, [r10, #4]",  # channels, -shift
    "mov r6, r0",
    "ldr r5, [r10, #28]",
    "add r5, r10",
    "ldrd r4, r8, [r10, #12]",  # rounding constant, low
    "ldr r10, [r10, #20]",  # high
]

# one block of 16 channels; the tail routine leaves out what lies beyond the last channel
_BLOCK_START = [
    "4:",
    "mov r3, r7",
    "vldrw.u32 q0, [r5], #16",
    "vldrw.u32 q1, [r5], #16",
    "vldrw.u32 q2, [r5], #16",
    "vldrw.u32 q3, [r5], #16",
    "dls lr, r9",
]
_TAPS = [
    "5:",
    "ldrd r0, r2, [r3], #8",
    "add r0, r1",
    "add r2, r1",
    "LOAD q4, [r0]",
    "vldrb.u8 q5, [r5], #16",
    "vmullb.s8 q6, q4, q5",
    "vmullt.s8 q4, q4, q5",
    "LOAD q5, [r2]",
    "vldrb.u8 q7, [r5], #16",
    "vmullb.s8 q5, q5, q7",
    "vadd.i16 q6, q6, q5",
    "LOAD q5, [r2]",
    "vmullt.s8 q5, q5, q7",
    "vadd.i16 q4, q4, q5",
    "vmovlb.s16 q5, q6",
    "vmovlt.s16 q6, q6",
    "vadd.i32 q0, q0, q5",
    "vmovlb.s16 q7, q4",
    "vadd.i32 q1, q1, q6",
    "vmovlt.s16 q4, q4",
    "vadd.i32 q2, q2, q7",
    "vadd.i32 q3, q3, q4",
    "le lr, 5b",
]
_REQUANTIZE = [
    "ldr r0, [sp, #4]",
    "ldr r0, [r0, #24]",
    "cbz r0, 6f",
    *(f"vshl.s32 q{index}, r0" for index in range(4)),
    "6:",
    *(line for index in range(4) for line in (f"vldrw.u32 q{4 + index}, [r5], #16",)),
    *(f"vmulh.s32 q{index}, q{index}, q{4 + index}" for index in range(4)),
    *(f"vadd.i32 q{index}, q{index}, r4" for index in range(4)),
    *(f"vshl.s32 q{index}, r6" for index in range(4)),
    "vqmovnb.s32 q0, q0",
    "vqmovnb.s32 q2, q2",
    "vqmovnt.s32 q0, q1",
    "vqmovnt.s32 q2, q3",
    "vdup.8 q4, r8",
    "vqmovnb.s16 q0, q0",
    "vdup.8 q5, r10",
    "vqmovnt.s16 q0, q2",
    "vmax.s8 q0, q0, q4",
    "vmin.s8 q0, q0, q5",
]
_BLOCK_END = [
    "adds r1, #16",
    "subs r12, #16",
    "bgt 4b",
]

_NEXT = [
    "ldr r10, [sp, #4]",
    "ldr r0, [sp, #24]",
    "ldr r5, [sp, #20]",
    "ldr r1, [sp]",
    "subs r0, #1",
    "beq 7f",
    "ldr r2, [r10, #{column_stride}]",
    "ldr r3, [r10, #{column_bytes}]",
    "add r5, r2",
    "add r1, r3",
    "b 8f",
    "7:",
    "ldrd r4, r0, [sp, #28]",  # rows left, then below the window of the row's first pixel
    "mov r1, r0",
    "subs r4, #1",
    "beq 9f",
    "ldr r3, [r10, #{row_bytes}]",
    "add r1, r3",
    "strd r4, r1, [sp, #28]",
    "ldr r4, [sp, #16]",
    "ldr r2, [r10, #{row_stride}]",
    "add r4, r2",
    "str r4, [sp, #16]",
    "ldr r0, [r10, #{columns}]",
    "ldr r5, [r10, #{first_column}]",
    "8:",
    "str r1, [sp]",
    "strd r5, r0, [sp, #20]",
    "b 2b",
    "9:",
    "add sp, #36",
    "vpop {d8-d15}",
    "pop {r4-r11, pc}",
]

# r4, r5: row and column of the window, r10: pack; makes the table in scratch
_TABLE_IN_SCRATCH = [
    "20:",
    "ldr r7, [sp, #12]",
    "ldr r0, [sp]",
    "ldr r2, [sp, #8]",
    f"add r1, r10, #{_TABLE}",
    "subs r2, r2, r0",  # from the window to the zero points
    "ldr r3, [r10, #{kernel_rows}]",
    "21:",
    "ldr r6, [r10, #{kernel_columns}]",
    "ldr r0, [r10, #{height}]",
    "mov r8, r5",
    "cmp r4, r0",
    "bhs 24f",
    "ldr r9, [r10, #{width}]",
    "ldr r12, [r10, #{column_step}]",
    "22:",
    "ldr r0, [r1], #4",
    "cmp r8, r9",
    "it hs",
    "movhs r0, r2",
    "str r0, [r7], #4",
    "add r8, r12",
    "subs r6, #1",
    "bne 22b",
    "b 25f",
    "24:",
    "str r2, [r7], #4",
    "adds r1, #4",
    "subs r6, #1",
    "bne 24b",
    "25:",
    "ldr r0, [r10, #{row_step}]",
    "add r4, r0",
    "subs r3, #1",
    "bne 21b",
    "str r2, [r7]",  # an odd count's last pair
    "ldr r7, [sp, #12]",
    "b 3b",
]


def _loads(lines: list[str], tail: bool) -> list[str]:
    result = []
    for line in lines:
        if line.startswith("LOAD"):
            result += ["vpst"] if tail else []
            line = line.replace("LOAD", "vldrbt.u8" if tail else "vldrb.u8")
        result.append(line)
    return result


def _lines(tail: bool) -> dict[str, list[str]]:
    predicate = ["vctp.8 r12"] if tail else []
    store = ["vpst", "vstrbt.8 q0, [r11], #16"] if tail else ["vstrb.8 q0, [r11], #16"]
    advance = ["it mi", "addmi r11, r12"] if tail else []  # what the last block went too far
    return {
        "start": _START,
        "pixel": _PIXEL,
        "block": [*_BLOCK_START, *predicate],
        "taps": _loads(_TAPS, tail),
        "requantize": [*_REQUANTIZE, *store, *_BLOCK_END],
        "next": [*advance, *_NEXT],
        "table": _TABLE_IN_SCRATCH,
    }


def routines() -> dict[str, str]:
    """For channel counts that are multiples of 16, and for any."""
    texts = {}
    for name, tail in ((DEPTHWISE, False), (DEPTHWISE + TAIL, True)):
        lines = [line for part in _lines(tail).values() for line in part]
        texts[name] = routine(name, filled(lines, _AT))
    return texts


@dataclass(frozen=True)
class DepthwiseGenerator:
    """DepthwiseConv2D with one filter a channel, batch 1.

    Refuses multipliers above 1, two weights of -128 in one channel's neighbouring taps, and
    rounding forms other than "smmla".
    """

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not isinstance(kernel, DepthwiseConv2D) or kernel.multiplier != 1:
            return []
        if kernel.requantize.form != "smmla" or kernel.window.input_shape[0] != 1:
            return []
        channels = kernel.window.input_shape[3]
        taps = constants[0].reshape(-1, channels)
        pairs, blocks = -(-len(taps) // 2), -(-channels // BLOCK)
        weights = np.zeros((2 * pairs, blocks * BLOCK), np.int8)
        weights[: len(taps), :channels] = taps
        magnitudes = np.abs(weights.astype(np.int32)).reshape(pairs, 2, -1).sum(1)
        if magnitudes.max() * 128 >= 1 << 15:
            return []
        tail = channels % BLOCK != 0
        symbol = DEPTHWISE + (TAIL if tail else "")
        constant = pack(
            requantize_words(blocks, channels, kernel.requantize),
            _header(kernel, pairs),
            _stream(weights, constants[1], constants[2]),
        )
        lines = {part: instruction_count(text) for part, text in _lines(tail).items()}
        block = lines["block"] + pairs * lines["taps"] + lines["requantize"] - 4
        pixel = lines["pixel"] + blocks * block + 15
        pixels = int(np.prod(kernel.window.output_size))
        instructions = lines["start"] + pixels * pixel + _border_pixels(kernel) * 10 * len(taps)
        return [
            Implementation(
                symbol=symbol,
                constants=(constant,),
                cost=Cost(instructions, round(instructions * CYCLES_PER_INSTRUCTION), 0),
                description="mve depthwise, 16 channels",
                assembly={symbol: routines()[symbol]},
                scratch_bytes=blocks * BLOCK + 8 * (pairs + 1),
                may_overlap_input=min(kernel.window.overlap_distance(channels), 0),
            )
        ]


def _header(kernel: DepthwiseConv2D, pairs: int) -> list[int]:
    """The routine's own words and the table of taps."""
    window = kernel.window
    _, height, width, channels = window.input_shape
    (tall, wide), (down, across) = window.size, window.dilation
    rows, columns = window.output_size
    words = {
        "rows": rows,
        "columns": columns,
        "column_bytes": window.strides[1] * channels,
        "row_bytes": window.strides[0] * width * channels,
        "first_column": -window.padding[1],
        "column_stride": window.strides[1],
        "first_row": -window.padding[0],
        "row_stride": window.strides[0],
        "last_column": width - 1 - across * (wide - 1),
        "last_row": height - 1 - down * (tall - 1),
        "kernel_rows": tall,
        "kernel_columns": wide,
        "row_step": down,
        "column_step": across,
        "height": height,
        "width": width,
        "fill": kernel.input_zero_point,
        "pairs": pairs,
    }
    table = [
        (row * down * width + column * across) * channels
        for row in range(tall)
        for column in range(wide)
    ]
    return [words[name] for name in _WORDS] + table + [0] * (len(table) % 2)


def _stream(weights: np.ndarray, bias: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    """For each 16 channels: biases, the weights of each tap, multipliers; `_LANES` order."""
    taps, channels = weights.shape
    blocks = channels // BLOCK
    parts = []
    for values in (bias, multiplier):
        lanes = padded(values, channels).reshape(blocks, BLOCK)[:, _LANES]
        parts.append(np.ascontiguousarray(lanes).view(np.uint8))
    ordered = weights.reshape(taps, blocks, BLOCK).transpose(1, 0, 2)
    middle = np.ascontiguousarray(ordered).reshape(blocks, -1).view(np.uint8)
    return np.concatenate([parts[0], middle, parts[1]], axis=1).reshape(-1)


def _border_pixels(kernel: DepthwiseConv2D) -> int:
    """Output pixels whose window reaches over the border."""
    window = kernel.window
    inside = 1
    for axis, count in enumerate(window.output_size):
        first = np.arange(count) * window.strides[axis] - window.padding[axis]
        last = first + window.dilation[axis] * (window.size[axis] - 1)
        extent = window.input_shape[1 + axis]
        inside *= int(((first >= 0) & (last < extent)).sum())
    return int(np.prod(window.output_size)) - inside
