"""Pooling and mean on MVE: lanes are channels, four 32-bit sums or sixteen 8-bit maxima at a time.

The window of each output pixel is clipped to the image. What a clipped average means depends only
on how many elements were left, so the constants hold one entry for each count (one in all where
nothing is clipped): where the sum starts, the multiplier, and what is added before dividing.

Rounded half away from zero, sum / n is sign(sum) * ((|sum| + n / 2) * ceil(2^32 / n) >> 32), exact
while (|sum| + n / 2) * n < 2^32 (Granlund and Montgomery, Division by invariant integers, 4.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgecompress.lower.isa.dsp.asm import instruction_count, routine
from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.isa.mve.packing import CYCLES_PER_INSTRUCTION, pack, requantize_words
from edgecompress.lower.isa.mve.text import filled
from edgecompress.lower.kernels.average_pool2d import AveragePool2d
from edgecompress.lower.kernels.max_pool2d import MaxPool2d
from edgecompress.lower.kernels.mean import Mean
from edgecompress.lower.kernels.pooling import Window
from edgecompress.lower.kernels.requant import Requantize

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

Form = Literal["divide", "requantize", "maximum"]
_LANES: dict[Form, int] = {"divide": 4, "requantize": 4, "maximum": 16}
_MOST_COUNT = 4096  # keeps (128 n + n / 2) * n below 2^32
_MOST_ENTRIES = 257

# Header words from word 8, by their byte offset.
_WORDS = (
    "rows", "columns", "first_row", "row_stride", "first_column", "column_stride", "kernel_rows",
    "height", "kernel_columns", "width", "entry_bytes",
)  # fmt: skip
_AT = {name: 32 + 4 * index for index, name in enumerate(_WORDS)}

# r4, r5: row and column of the window; r6 pack; r7 out. Stack: 0 x, 4 columns left, 8 rows left,
# 12 window's rows, 16 clipped window in x, 20 entry, 24 from a row's end to the next
_START = [
    "push {r4-r11, lr}",
    "sub sp, #28",
    "str r0, [sp]",
    "mov r6, r1",
    "mov r7, r2",
    "ldrd r0, r1, [r6, #{rows}]",
    "strd r1, r0, [sp, #4]",
    "ldr r4, [r6, #{first_row}]",
    "ldr r5, [r6, #{first_column}]",
]
_PIXEL = [
    "1:",
    "ldrd r0, r1, [r6, #{kernel_rows}]",
    "add r0, r4",
    "cmp r0, r1",
    "it gt",
    "movgt r0, r1",
    "bic r2, r4, r4, asr #31",  # first row, not below 0
    "subs r0, r0, r2",
    "it mi",
    "movmi r0, #0",
    "ldrd r1, r3, [r6, #{kernel_columns}]",
    "add r1, r5",
    "cmp r1, r3",
    "it gt",
    "movgt r1, r3",
    "bic r8, r5, r5, asr #31",
    "subs r11, r1, r8",
    "it mi",
    "movmi r11, #0",
    "str r0, [sp, #12]",
    "mla r8, r2, r3, r8",
    "sub r3, r3, r11",
    "ldr r2, [r6, #4]",  # channels
    "ldr r1, [sp]",
    "mla r9, r8, r2, r1",
    "mul r3, r3, r2",
    "str r3, [sp, #24]",
    "mul r0, r0, r11",
    "ldr r1, [r6, #{entry_bytes}]",
    "ldr r8, [r6, #28]",
    "add r8, r6",
    "mla r0, r0, r1, r8",
    "str r0, [sp, #20]",
    "mov r8, r2",
]
_SUM = {
    "start": ["ldr r0, [sp, #20]", "ldr r0, [r0]", "vctp.32 r8", "vdup.32 q0, r0"],
    "tap": ["vpst", "vldrbt.s32 q1, [r1]", "vadd.i32 q0, q0, q1"],
}
_MAXIMUM = {
    "start": ["mvn r0, #127", "vctp.8 r8", "vdup.8 q0, r0"],
    "tap": ["vpst", "vldrbt.u8 q1, [r1]", "vmax.s8 q0, q0, q1"],
}


def _block(form: Form) -> list[str]:
    """The window's reduction for one block of channels at r9."""
    code = _MAXIMUM if form == "maximum" else _SUM
    return [
        "2:",
        *code["start"],
        "mov r1, r9",
        "ldr r10, [sp, #12]",
        "ldr r3, [r6, #4]",
        "ldr r2, [sp, #24]",
        "cmp r10, #0",
        "beq 5f",
        "3:",
        "wls lr, r11, 5f",
        "4:",
        *code["tap"],
        "add r1, r3",
        "le lr, 4b",
        "add r1, r2",
        "subs r10, #1",
        "bne 3b",
        "5:",
    ]


_DIVIDE = [
    "ldr r0, [sp, #20]",
    "ldrd r0, r1, [r0, #4]",  # multiplier, half
    "vabs.s32 q1, q0",
    "vdup.32 q2, r0",
    "vadd.i32 q1, q1, r1",
    "vmulh.u32 q1, q1, q2",
    "vshr.s32 q0, q0, #31",  # negated where this is -1
    "veor q1, q1, q0",
    "vsub.i32 q0, q1, q0",
]
_REQUANTIZE = [
    "ldr r0, [sp, #20]",
    "ldr r0, [r0, #4]",
    "ldr r1, [r6, #24]",
    "vdup.32 q1, r0",
    "vshl.s32 q0, r1",
    "vmulh.s32 q0, q0, q1",
    "ldrd r0, r1, [r6, #8]",  # -shift, rounding constant
    "vadd.i32 q0, q0, r1",
    "vshl.s32 q0, r0",
]


def _bounded(size: int) -> list[str]:
    return [
        "ldrd r0, r1, [r6, #16]",
        f"vdup.{size} q1, r0",
        f"vdup.{size} q2, r1",
        f"vmax.s{size} q0, q0, q1",
        f"vmin.s{size} q0, q0, q2",
        "vpst",
    ]


_EPILOGUE: dict[Form, list[str]] = {
    "divide": [*_DIVIDE, *_bounded(32), "vstrbt.32 q0, [r7]"],
    "requantize": [*_REQUANTIZE, *_bounded(32), "vstrbt.32 q0, [r7]"],
    "maximum": [*_bounded(8), "vstrbt.8 q0, [r7]"],
}


def _advance(lanes: int) -> list[str]:
    return [
        f"add r9, #{lanes}",
        f"adds r7, #{lanes}",
        f"subs r8, #{lanes}",
        "bgt 2b",
        "add r7, r8",  # what the last block went too far
    ]


_NEXT = [
    "ldrd r0, r1, [sp, #4]",
    "ldr r2, [r6, #{column_stride}]",
    "add r5, r2",
    "subs r0, #1",
    "bne 6f",
    "ldr r0, [r6, #{columns}]",
    "ldrd r2, r5, [r6, #{row_stride}]",
    "add r4, r2",
    "subs r1, #1",
    "beq 7f",
    "6:",
    "strd r0, r1, [sp, #4]",
    "b 1b",
    "7:",
    "add sp, #28",
    "pop {r4-r11, pc}",
]


def _symbol(form: Form) -> str:
    return f"edge_mve_pool_{form}"


def routines() -> dict[str, str]:
    """One for each form."""
    texts = {}
    for form, lanes in _LANES.items():
        lines = [*_START, *_PIXEL, *_block(form), *_EPILOGUE[form], *_advance(lanes), *_NEXT]
        texts[_symbol(form)] = routine(_symbol(form), filled(lines, _AT))
    return texts


@dataclass(frozen=True)
class PoolGenerator:
    """AveragePool2d, MaxPool2d, and Mean over axes that follow axes of length 1; batch 1.

    Refuses windows of more than 4096 elements (256 with padding) where it averages, means over the
    last axes, and rounding forms other than "smmla".
    """

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if isinstance(kernel, MaxPool2d):
            bounds = Requantize("smmla", 0, kernel.low, kernel.high, shift=1)
            return _offer("maximum", kernel.window, bounds, np.zeros((1, 4), np.int64))
        if isinstance(kernel, Mean):
            return _mean(kernel, constants)
        if not isinstance(kernel, AveragePool2d) or kernel.window.size > _MOST_COUNT:
            return []
        window = kernel.window
        clipped = any(window.padding)
        if clipped and window.size >= _MOST_ENTRIES:
            return []
        counts = range(window.size + 1) if clipped else [window.size]
        if kernel.requantize is None:
            entries = [_divisor(kernel, count) for count in counts]
            bounds = Requantize("smmla", 0, kernel.low, kernel.high, shift=1)
            return _offer("divide", window, bounds, np.array(entries))
        whole = window.size if kernel.count_include_pad else None
        zero_point = kernel.input_zero_point
        entries = [
            [-count * zero_point, constants[0][count if whole is None else whole], 0, 0]
            for count in counts
        ]
        return _offer("requantize", window, kernel.requantize, np.array(entries, np.int64))


def _divisor(kernel: AveragePool2d, count: int) -> list[int]:
    """Start, multiplier and half of a window with `count` elements inside the image."""
    start, divisor = 0, count
    if kernel.count_include_pad:
        divisor = kernel.window.size
        start = (divisor - count) * kernel.input_zero_point
    if divisor <= 1:  # 2^32 / 1 is too large: (n + 1) * (2^32 - 1) >> 32 is n
        return [start, 2**32 - 1, 1, 0]
    return [start, -(-(2**32) // divisor), divisor // 2, 0]


def _mean(kernel: Mean, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
    """A mean over rows of the same length is an average pooling over a column of pixels."""
    first, last = kernel.axes[0], kernel.axes[-1]
    if int(np.prod(kernel.shape[:first])) != 1 or last == len(kernel.shape) - 1:
        return []
    channels = int(np.prod(kernel.shape[last + 1 :]))
    window = Window((1, kernel.count, 1, channels), (kernel.count, 1), (1, 1))
    entry = [-kernel.count * kernel.input_zero_point, constants[0][0], 0, 0]
    return _offer("requantize", window, kernel.requantize, np.array([entry], np.int64))


def _offer(
    form: Form, window: Window, requantize: Requantize, entries: np.ndarray
) -> list[Implementation]:
    """`entries`: int64 `[counts, 4]`, one row if the window is never clipped."""
    batch, height, width, channels = window.input_shape
    if requantize.form != "smmla" or batch != 1:
        return []
    _, rows, columns, _ = window.output_shape
    words = {
        "rows": rows,
        "columns": columns,
        "first_row": -window.padding[0],
        "row_stride": window.strides[0],
        "first_column": -window.padding[1],
        "column_stride": window.strides[1],
        "kernel_rows": window.kernel[0],
        "height": height,
        "kernel_columns": window.kernel[1],
        "width": width,
        "entry_bytes": 16 if len(entries) > 1 else 0,
    }
    stream = (entries & 0xFFFFFFFF).astype(np.uint32).reshape(-1)
    header = requantize_words(0, channels, requantize)
    constant = pack(header, [words[name] for name in _WORDS], stream)
    lanes = _LANES[form]
    blocks = -(-channels // lanes)
    lines: Callable[[list[str]], int] = instruction_count
    taps = (lines(_block(form)) - 8) + 6 * window.kernel[0] + 5 * window.size
    block = taps + lines(_EPILOGUE[form]) + 4
    instructions = rows * columns * (lines(_PIXEL) + lines(_NEXT) + blocks * block)
    symbol = _symbol(form)
    return [
        Implementation(
            symbol=symbol,
            constants=(constant,),
            cost=Cost(instructions, round(instructions * CYCLES_PER_INSTRUCTION), 0),
            description=f"mve {form} pool, {lanes} channels",
            assembly={symbol: routines()[symbol]},
        )
    ]
