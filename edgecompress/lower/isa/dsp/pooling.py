"""Maximum and average pooling and mean for Thumb-2 with DSP, four channels at a time.

Averages add four int8 at once to 16-bit sums (SXTAB16), which hold 255 elements; larger windows
empty them into 32-bit sums after each row. A maximum is SSUB8 and SEL. One routine of 250 to 420
bytes walks over every output pixel and clips its window to the image, so padding costs nothing; it
reads all sizes from the constants (`_FIELDS`) and serves every layer of its kind. Channel counts
that are not multiples of 4 do their last four again, overlapping; fewer than 4 are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgecompress.lower.isa.dsp.asm import cycles, instruction_count, routine
from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.kernels.average_pool2d import AveragePool2d
from edgecompress.lower.kernels.max_pool2d import MaxPool2d
from edgecompress.lower.kernels.mean import Mean
from edgecompress.lower.kernels.pooling import Window

if TYPE_CHECKING:
    from edgecompress.lower.kernels.requant import Requantize
    from edgecompress.lower.program import Kernel

Form = Literal["maximum", "divide", "requantize"]
_MOST_16_BIT = 255
_FIELDS = (
    "kernel_rows", "rows", "kernel_columns", "columns", "channels", "row_stride", "column_stride",
    "first_row", "end_row", "first_column", "end_column", "low", "high",
    "count_factor", "offset", "rounding", "shift", "left_shift", "divisor",
)  # fmt: skip
_AT = {name: 4 * number for number, name in enumerate(_FIELDS)}
# stack: 0 x, 4 constants, 8 window's row, 12 and column, 16 rows inside, 20 columns inside,
# 24 bytes to the next row, 28 divisor or multiplier, 32 what is added to every sum
_FRAME_BYTES = 36
_SUMS = ("r7", "r8", "r9", "r10")


@dataclass(frozen=True)
class _Routine:
    """One routine's text in the pieces that run equally often.

    Attributes:
        per_count: the divisor or multiplier depends on how much of a window is inside.
        offset: something is added to every sum.
        wide: sums of more than 255 elements.
    """

    form: Form
    per_count: bool = False
    offset: bool = False
    wide: bool = False
    left: bool = False
    clamp: bool = False

    @property
    def symbol(self) -> str:
        flags = ("per_count", "offset", "wide", "left", "clamp")
        chosen = [flag for flag in flags if getattr(self, flag)]
        return "_".join(["pool", self.form, *chosen])

    @property
    def text(self) -> str:
        lines = [*self.start(), "1:", *self.output_row(), "2:", *self.pixel(), "3:"]
        lines += [*self.four(), "4:", *self.row(), "5:", *self.element(), *self.row_end()]
        lines += [*self.finish(), *self.store(), *self.next_four(), "6:", *self.pixel_end()]
        return routine(self.symbol, [*lines, *self.output_row_end(), *self.end()])

    def start(self) -> list[str]:
        return ["push {r4-r11, lr}", f"sub sp, #{_FRAME_BYTES}", "strd r0, r1, [sp]",
                "mov r12, r2", f"ldr r4, [r1, #{_AT['first_row']}]"]  # fmt: skip

    def output_row(self) -> list[str]:
        return ["str r4, [sp, #8]", f"ldr r5, [r1, #{_AT['first_column']}]"]

    def pixel(self) -> list[str]:
        """Clips the window: r3 rows, r6 columns inside, r11 its first element, lr channels."""
        lines = [
            "str r5, [sp, #12]", "ldr r2, [sp, #8]",
            f"ldrd r3, r4, [r1, #{_AT['kernel_rows']}]", "add r3, r2", "bic r2, r2, r2, asr #31",
            "cmp r3, r4", "it gt", "movgt r3, r4", "subs r3, r3, r2",
            f"ldrd r6, r7, [r1, #{_AT['kernel_columns']}]", "add r6, r5",
            "bic r5, r5, r5, asr #31", "cmp r6, r7", "it gt", "movgt r6, r7", "subs r6, r6, r5",
            "strd r3, r6, [sp, #16]", "mla r5, r2, r7, r5", f"ldr lr, [r1, #{_AT['channels']}]",
            "ldr r11, [sp]", "mla r11, r5, lr, r11", "subs r7, r7, r6", "mul r7, r7, lr",
            "str r7, [sp, #24]",
        ]  # fmt: skip
        if self.per_count or self.offset:
            lines.append("mul r8, r3, r6")
        if self.form == "requantize" and self.per_count:
            lines += ["add.w r9, r1, r8, lsl #2", f"ldr r9, [r9, #{_AT['divisor']}]"]
        elif self.per_count:
            lines.append("mov r9, r8")
        elif self.form != "maximum":
            lines.append(f"ldr r9, [r1, #{_AT['divisor']}]")
        if self.form != "maximum":
            lines.append("str r9, [sp, #28]")
        if self.offset:
            lines += [f"ldrd r9, r10, [r1, #{_AT['count_factor']}]", "mla r9, r8, r9, r10",
                      "str r9, [sp, #32]"]  # fmt: skip
        return [*lines, "mov r1, lr"]

    def four(self) -> list[str]:
        lines = ["mov r0, r11", "ldr r3, [sp, #16]"]
        if self.form == "maximum":
            return [*lines, "mov.w r5, #0x80808080"]
        lines += ["movs r5, #0", "movs r6, #0"]
        return lines + ([f"mov.w {sums}, #0" for sums in _SUMS] if self.wide else [])

    def row(self) -> list[str]:
        return ["ldr r2, [sp, #20]"]

    def element(self) -> list[str]:
        lines = ["ldr r4, [r0]", "add r0, r1", "subs r2, #1"]
        if self.form == "maximum":
            lines += ["ssub8 r6, r5, r4", "sel r5, r5, r4"]
        else:
            lines += ["sxtab16 r5, r5, r4", "sxtab16 r6, r6, r4, ror #8"]
        return [*lines, "bne 5b"]

    def row_end(self) -> list[str]:
        lines = []
        if self.wide:
            lines += ["sxtah r7, r7, r5", "sxtah r8, r8, r6", "sxtah r9, r9, r5, ror #16",
                      "sxtah r10, r10, r6, ror #16", "movs r5, #0", "movs r6, #0"]  # fmt: skip
        return [*lines, "ldr r4, [sp, #24]", "subs r3, #1", "add r0, r4", "bne 4b"]

    def finish(self) -> list[str]:
        """Four results in r7, or r5 for a maximum."""
        if self.form == "maximum":
            return []
        lines = []
        if not self.wide:
            lines += ["sxth r7, r5", "sxth.w r8, r6", "asr.w r9, r5, #16", "asr.w r10, r6, #16"]
        lines += self._requantize() if self.form == "requantize" else self._divide()
        return [*lines, "bfi r7, r8, #8, #8", "bfi r7, r9, #16, #8", "bfi r7, r10, #24, #8"]

    def _divide(self) -> list[str]:
        """Half the divisor is added away from zero; the quotient truncates towards it."""
        lines = ["ldr r4, [sp, #28]", "lsrs r5, r4, #1", "lsls r6, r5, #1"]
        if self.offset:
            lines += ["ldr r3, [sp, #32]", *(f"add {sums}, r3" for sums in _SUMS)]
        for sums in _SUMS:
            lines += [f"and.w r2, r6, {sums}, asr #31", f"add {sums}, r5",
                      f"sub.w {sums}, {sums}, r2", f"sdiv {sums}, {sums}, r4"]  # fmt: skip
        return lines

    def _requantize(self) -> list[str]:
        lines = ["ldr r0, [sp, #4]", f"ldrd r5, r6, [r0, #{_AT['rounding']}]",
                 "ldrd r4, r3, [sp, #28]"]  # fmt: skip
        if self.left:
            lines.append(f"ldr r2, [r0, #{_AT['left_shift']}]")
        for sums in _SUMS:
            lines.append(f"add {sums}, r3")
            if self.left:
                lines.append(f"lsl.w {sums}, {sums}, r2")
            lines += [f"smmla {sums}, {sums}, r4, r5", f"asr.w {sums}, {sums}, r6",
                      f"ssat {sums}, #8, {sums}"]  # fmt: skip
        return lines

    def store(self) -> list[str]:
        value = "r5" if self.form == "maximum" else "r7"
        lines = []
        if self.clamp:
            lines += ["ldr r0, [sp, #4]", f"ldrd r2, r3, [r0, #{_AT['low']}]",
                      f"ssub8 r4, {value}, r2", f"sel {value}, {value}, r2",
                      f"ssub8 r4, r3, {value}", f"sel {value}, {value}, r3"]  # fmt: skip
        return [*lines, f"str {value}, [r12]", "subs.w lr, lr, #4", "beq 6f"]

    def next_four(self) -> list[str]:
        return ["movs r4, #4", "cmp lr, #4", "itt lt", "movlt r4, lr", "movlt lr, #4",
                "add r11, r4", "add r12, r4", "b 3b"]  # fmt: skip

    def pixel_end(self) -> list[str]:
        return ["add r12, #4", "ldr r1, [sp, #4]", "ldr r5, [sp, #12]",
                f"ldr r4, [r1, #{_AT['column_stride']}]", "add r5, r4",
                f"ldr r4, [r1, #{_AT['end_column']}]", "cmp r5, r4", "bne.w 2b"]  # fmt: skip

    def output_row_end(self) -> list[str]:
        return ["ldr r4, [sp, #8]", f"ldr r6, [r1, #{_AT['row_stride']}]", "add r4, r6",
                f"ldr r6, [r1, #{_AT['end_row']}]", "cmp r4, r6", "bne.w 1b"]  # fmt: skip

    def end(self) -> list[str]:
        return [f"add sp, #{_FRAME_BYTES}", "pop {r4-r11, pc}"]

    def cost(self, window: Window) -> Cost:
        _, rows, columns, channels = window.output_shape
        inside = window.valid_counts()
        fours, pixels = -(-channels // 4), rows * columns
        window_rows = int(_rows_inside(window).sum()) * columns
        often = [
            (1, self.start() + self.end()),
            (rows, self.output_row() + self.output_row_end()),
            (pixels, self.pixel() + self.pixel_end()),
            (pixels * fours, self.four() + self.finish() + self.store()),
            (pixels * (fours - 1), self.next_four()),
            (fours * window_rows, self.row() + self.row_end()),
            (fours * int(inside.sum()), self.element()),
        ]
        return Cost(
            instructions=sum(times * instruction_count(lines) for times, lines in often),
            cycles=sum(times * cycles(lines) for times, lines in often),
            code_bytes=0,  # all of it shared
        )


def _rows_inside(window: Window) -> np.ndarray:
    """How many rows of each output row's windows lie inside the input."""
    start = np.arange(window.output_shape[1]) * window.strides[0] - window.padding[0]
    end = np.minimum(start + window.kernel[0], window.input_shape[1])
    return end - np.maximum(start, 0)


@dataclass(frozen=True)
class PoolGenerator:
    """`MaxPool2d`, `AveragePool2d` and `Mean` of one image.

    Refuses fewer than 4 channels, more than one image, requantizations other than "smmla", windows
    that lie in the padding alone, and sums over more than 255 columns with no divisor.
    """

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if isinstance(kernel, MaxPool2d):
            return _maximum(kernel)
        if isinstance(kernel, AveragePool2d):
            return _average(kernel, constants)
        return _mean(kernel, constants) if isinstance(kernel, Mean) else []


def _maximum(kernel: MaxPool2d) -> list[Implementation]:
    if not _takes(kernel.window):
        return []
    code = _Routine("maximum", clamp=_clamps(kernel.low, kernel.high))
    return [_implementation(code, kernel.window, {"low": kernel.low, "high": kernel.high})]


def _average(kernel: AveragePool2d, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
    window, requantize = kernel.window, kernel.requantize
    merged = _merged(window)
    if not _takes(window) or merged is None:
        return []
    wide = window.size > _MOST_16_BIT
    padded = any(window.padding)
    per_count = padded and not kernel.count_include_pad
    if requantize is None:
        included = padded and kernel.count_include_pad
        zero = kernel.input_zero_point
        clamp = _clamps(kernel.low, kernel.high)
        code = _Routine("divide", per_count, offset=included, wide=wide, clamp=clamp)
        values = {"low": kernel.low, "high": kernel.high, "divisor": window.size}
        if included:
            values |= {"count_factor": -zero, "offset": window.size * zero}
        return [_implementation(code, merged, values)]
    table = constants[0] if per_count else constants[0][window.size :]
    return _requantized(merged, requantize, kernel.input_zero_point, table, per_count, wide)


def _mean(kernel: Mean, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
    """The axes' product as the columns of one-row windows."""
    before = int(np.prod(kernel.shape[: kernel.axes[0]]))
    channels = int(np.prod(kernel.shape[kernel.axes[-1] + 1 :]))
    count = kernel.count
    window = Window((1, before, count, channels), (1, count), (1, count))
    merged = _split_columns(window)
    if not _takes(window) or merged is None:
        return []
    wide = count > _MOST_16_BIT
    return _requantized(
        merged, kernel.requantize, kernel.input_zero_point, constants[0], False, wide
    )


def _requantized(
    window: Window,
    requantize: Requantize,
    input_zero_point: int,
    table: np.ndarray,
    per_count: bool,
    wide: bool,
) -> list[Implementation]:
    """`table` holds the multipliers by count, or one."""
    if requantize.form != "smmla":
        return []
    shift, clamp = requantize.shift, _clamps(requantize.low, requantize.high)
    left = requantize.left_shift > 0
    code = _Routine("requantize", per_count, offset=True, wide=wide, left=left, clamp=clamp)
    values = {
        "low": requantize.low,
        "high": requantize.high,
        "count_factor": -input_zero_point,
        "rounding": (requantize.zero_point << shift) + (1 << (shift - 1)),
        "shift": shift,
        "left_shift": requantize.left_shift,
    }
    table = table if per_count else table[:1]
    return [_implementation(code, window, values, table)]


def _clamps(low: int, high: int) -> bool:
    return low > -128 or high < 127


def _takes(window: Window) -> bool:
    batch, rows, columns, channels = window.output_shape
    if batch != 1 or channels < 4 or rows < 1 or columns < 1:
        return False
    return bool(window.valid_counts().min() > 0)


def _merged(window: Window) -> Window | None:
    """The same sums with fewer, longer rows where a window is the whole image."""
    _, height, width, channels = window.input_shape
    if window.kernel == (height, width) and not any(window.padding):
        size = height * width
        return _split_columns(Window((1, 1, size, channels), (1, size), (1, size)))
    if window.size > _MOST_16_BIT and window.kernel[1] > _MOST_16_BIT:
        return None
    return window


def _split_columns(window: Window) -> Window | None:
    """One-row windows as several rows of at most 255 columns; None when no divisor fits."""
    _, before, count, channels = window.input_shape
    for columns in range(min(count, _MOST_16_BIT), 0, -1):
        if count % columns == 0:
            rows = count // columns
            if columns < 8 and rows > 1:
                return None
            return Window((1, before * rows, columns, channels), (rows, columns), (rows, columns))
    return None


def _implementation(
    code: _Routine, window: Window, values: dict[str, int], table: np.ndarray | None = None
) -> Implementation:
    """`values` by `_FIELDS`; `table` takes the place of the divisor."""
    _, rows, columns, channels = window.output_shape
    top, left, _, _ = window.padding
    fields = dict.fromkeys(_FIELDS, 0) | values
    fields |= {
        "kernel_rows": window.kernel[0], "kernel_columns": window.kernel[1],
        "rows": window.input_shape[1], "columns": window.input_shape[2], "channels": channels,
        "row_stride": window.strides[0], "column_stride": window.strides[1],
        "first_row": -top, "end_row": rows * window.strides[0] - top,
        "first_column": -left, "end_column": columns * window.strides[1] - left,
        "low": (values["low"] & 0xFF) * 0x01010101,
        "high": (values["high"] & 0xFF) * 0x01010101,
    }  # fmt: skip
    words = [fields[name] & 0xFFFFFFFF for name in _FIELDS]
    if table is not None:
        words = [*words[:-1], *(int(factor) & 0xFFFFFFFF for factor in table)]
    if code.form == "maximum":
        words = words[: _FIELDS.index("count_factor")]
    return Implementation(
        symbol=code.symbol,
        constants=(np.array(words, np.uint32).view(np.int32),),
        cost=code.cost(window),
        description=f"dsp {code.form} pool, 4 channels",
        assembly={code.symbol: code.text},
    )
