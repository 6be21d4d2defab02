"""The driver of DSP convolutions: lays out a group of pixels' inputs, multiplies, next group.

Each output pixel's window is read in runs of bytes that lie together in memory: a kernel row of the
window, or a single tap where dilation or groups tear a row apart. A run is widened straight from
the input; what lies outside the image is filled with the input's zero point.

    header   the words of `Columns.header`, after the tile's own

Three things shape the routine, everything else is data: whether windows reach outside the image
(`bordered`), whether a window has more than one run a row or the convolution several groups
(`torn`), and whether runs are whole words. Those that are not (`ragged`) are gathered byte by byte
into a row of scratch at the image's border, and elsewhere read on up to 3 bytes past their end,
which zero weights then cancel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.lower.isa.dsp.asm import cycles, instruction_count, routine
from edgecompress.lower.isa.dsp.tile import HEADER_WORDS, Tile
from edgecompress.lower.kernels.conv2d import Conv2D

DRIVER_WORDS = 24
# stack: 0 input, 4 constants, 8 columns, 12 output, 16 group's pixel, 20 pixel, 24 stream,
# 28 groups left, 32 column, 36 row's start, 40 row, 44 runs left
_FRAME_BYTES = 52


@dataclass(frozen=True)
class Runs:
    """How one window is read: `per_row` runs of `taps` pixels, of which each gives `tap_bytes`."""

    per_row: int
    taps: int
    tap_bytes: int

    @property
    def words(self) -> int:
        return -(-self.taps * self.tap_bytes // 4)

    @classmethod
    def of(cls, kernel: Conv2D) -> Runs:
        width = kernel.window.size[1]
        tap_bytes = kernel.window.input_shape[3] // kernel.groups
        if width > 1 and (kernel.groups > 1 or kernel.window.dilation[1] > 1):
            return cls(width, 1, tap_bytes)
        return cls(1, width, tap_bytes)

    def quads(self, kernel: Conv2D) -> int:
        """Inputs of one output in fours, each run padded to whole words."""
        return self.per_row * kernel.window.size[0] * self.words

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """Weights int8 [O, kh, kw, C] as `[O, 4 * quads]` in the order the columns have."""
        outputs, tall = weights.shape[:2]
        runs = weights.reshape(outputs, tall, self.per_row, -1).swapaxes(1, 2)
        spare = 4 * self.words - runs.shape[-1]
        return np.pad(runs, ((0, 0), (0, 0), (0, 0), (0, spare))).reshape(outputs, -1)


@dataclass(frozen=True)
class Columns:
    """One driver routine; `unroll` words a widening loop."""

    tile: Tile
    unroll: int
    bordered: bool
    torn: bool
    ragged: bool

    @property
    def symbol(self) -> str:
        kinds = (("bordered", self.bordered), ("torn", self.torn), ("ragged", self.ragged))
        suffix = "".join(f"_{name}" for name, present in kinds if present)
        return f"conv_{self.unroll}{suffix}_{self.tile.symbol}"

    @property
    def text(self) -> str:
        lines = [*self._prologue(), "1:", *self._group(), "2:", *self._pixel()]
        lines += ["3:", *self._run(), "4:", *self._row(), "9:", *self._row_end()]
        lines += [*self._pixel_end(), *self._call(), "10:", *self._end()]
        return routine(self.symbol, [*lines, *self._fill()])

    def _prologue(self) -> list[str]:
        """r0 input, r1 constants, r2 scratch, r3 output; r11 becomes the header."""
        lines = ["push {r4-r11, lr}", f"sub sp, #{_FRAME_BYTES}", "stm sp, {r0-r3}",
                 f"add.w r11, r1, #{4 * HEADER_WORDS}",
                 f"add.w r0, r11, #{4 * DRIVER_WORDS}", "str r0, [sp, #24]"]  # fmt: skip
        if self.torn:
            lines += ["ldr r0, [r11, #64]", "str r0, [sp, #28]", "11:"]
        return [*lines, "movs r0, #0", "str r0, [sp, #16]"]

    def _group(self) -> list[str]:
        return ["ldr r7, [sp, #8]", "ldr r9, [sp, #16]"]

    def _pixel(self) -> list[str]:
        """r12 row, r0 column and r8 address of the window's corner."""
        lines = ["str r9, [sp, #20]", "ldm r11, {r0-r6}", "udiv r12, r9, r0",
                 "mls r0, r12, r0, r9", "mul r12, r12, r1", "sub r12, r12, r2", "muls r0, r3, r0",
                 "subs r0, r0, r4", "mla r1, r12, r5, r0", "ldr r2, [sp]",
                 "mla r8, r1, r6, r2"]  # fmt: skip
        if self.torn:
            lines += ["ldr r1, [r11, #76]", "str r1, [sp, #44]"]
        return lines

    def _run(self) -> list[str]:
        """r3, r5, r4: words (bytes if ragged) before, in and behind the image; r9 rows."""
        lines = ["ldr r9, [r11, #36]"]
        if self.torn:
            lines = ["str r0, [sp, #32]", "strd r8, r12, [sp, #36]", *lines]
        if not self.bordered:
            return lines
        if self.torn:
            lines.append("ldr r5, [r11, #20]")
        lines += ["ldrd r1, r2, [r11, #28]", "rsbs r3, r0, #0", "usat r3, #15, r3", "cmp r3, r1",
                  "it gt", "movgt r3, r1", "adds r4, r0, r1", "subs r4, r4, r5",
                  "usat r4, #15, r4", "subs r1, r1, r3", "cmp r4, r1", "it gt", "movgt r4, r1",
                  "subs r5, r1, r4", "muls r3, r2, r3", "muls r4, r2, r4",
                  "muls r5, r2, r5"]  # fmt: skip
        scale = "" if self.ragged else ", lsl #2"
        return [*lines, f"add.w r8, r8, r3{scale}"]

    def _row(self) -> list[str]:
        if not self.bordered:
            return ["mov r0, r8", *self._words(), *self._widen()]
        lines = ["ldrd r1, r2, [r11, #40]", "cmp r12, r1", "add.w r12, r12, r2", "bhs.w 12f"]
        if self.ragged:
            return [*lines, "mov r0, r8", "orrs.w r1, r3, r4", "beq.n 6f", *self._gather(), "6:",
                    *self._words(), *self._widen()]  # fmt: skip
        return [*lines, "mov r0, r8", "cbz r3, 5f", "mov r1, r3", "bl 13f", "5:", "cbz r5, 8f",
                "add.w r1, r0, r5, lsl #2", *self._widen(), "8:", "cbz r4, 9f", "mov r1, r4",
                "bl 13f"]  # fmt: skip

    def _words(self) -> list[str]:
        return ["ldr r1, [r11, #88]", "add.w r1, r0, r1, lsl #2"]

    def _gather(self) -> list[str]:
        """The run with its border, in bytes, at the end of scratch; r0 becomes its start."""
        return ["ldr r0, [sp, #8]", "ldr r2, [r11, #92]", "add r0, r2", "mov r10, r0",
                "ldr r6, [r11, #52]", "mov r1, r3", "bl 14f", "mov r2, r8", "cbz r5, 16f",
                "add.w r1, r2, r5", "15:", "ldrb lr, [r2], #1", "strb lr, [r0], #1", "cmp r2, r1",
                "bne.n 15b", "16:", "mov r1, r4", "bl 14f", "mov r0, r10"]  # fmt: skip

    def _widen(self) -> list[str]:
        """From r0 to r1 into the columns at r7."""
        return ["7:", *self._word() * self.unroll, "cmp r0, r1", "bne.n 7b"]

    def _word(self) -> list[str]:
        step = 4 * self.tile.pixels
        return ["ldr r2, [r0], #4", "sxtb16 lr, r2", "sxtb16 r2, r2, ror #8",
                f"str r2, [r7, #{step}]", f"str lr, [r7], #{2 * step}"]  # fmt: skip

    def _row_end(self) -> list[str]:
        lines = ["ldr r1, [r11, #48]", "add r8, r1", "subs.w r9, r9, #1", "bne.w 4b"]
        if self.torn:
            lines += ["ldr r1, [sp, #44]", "subs r1, #1", "beq.n 17f", "str r1, [sp, #44]",
                      "ldrd r2, r3, [r11, #80]", "ldr r0, [sp, #32]", "ldrd r8, r12, [sp, #36]",
                      "add r0, r2", "add r8, r3", "b.w 3b", "17:"]  # fmt: skip
        return lines

    def _pixel_end(self) -> list[str]:
        return ["ldr r1, [r11, #56]", "subs r7, r7, r1", "ldrd r0, r9, [sp, #16]",
                "add.w r9, r9, #1", f"adds r0, #{self.tile.pixels}", "cmp r9, r0",
                "bne.w 2b"]  # fmt: skip

    def _call(self) -> list[str]:
        return ["ldr r0, [sp, #24]", "ldrd r3, r1, [sp, #4]", "ldrd r2, r5, [sp, #12]",
                "ldr r4, [r3]", "mla r2, r4, r5, r2", f"bl {self.tile.symbol}",
                "ldr r2, [r11, #60]", "cmp r5, r2", "beq.n 10f", f"adds r5, #{self.tile.pixels}",
                "cmp r5, r2", "it gt", "movgt r5, r2", "str r5, [sp, #16]", "b.w 1b"]  # fmt: skip

    def _end(self) -> list[str]:
        """After the last group of pixels, and with several groups of channels the next of them."""
        lines = []
        if self.torn:
            lines = ["str r0, [sp, #24]", "ldr r0, [sp, #28]", "subs r0, #1", "beq.n 18f",
                     "str r0, [sp, #28]", "ldrd r0, r1, [r11, #68]", "ldr r2, [sp]", "add r2, r0",
                     "str r2, [sp]", "ldr r2, [sp, #12]", "add r2, r1", "str r2, [sp, #12]",
                     "b.w 11b", "18:"]  # fmt: skip
        return [*lines, f"add sp, #{_FRAME_BYTES}", "pop {r4-r11, pc}"]

    def _fill(self) -> list[str]:
        """Local routines: 12 a whole run outside, 13 words of padding, 14 bytes of it."""
        if not self.bordered:
            return []
        step = 4 * self.tile.pixels
        lines = ["12:", "ldr r1, [r11, #88]", "bl 13f", "b.w 9b", *self._fill_start(), "19:",
                 f"str r2, [r7, #{step}]", f"str r2, [r7], #{2 * step}", "subs r1, #1",
                 "bne.n 19b", "bx lr"]  # fmt: skip
        if self.ragged:
            lines += ["14:", "cbz r1, 21f", "20:", "strb r6, [r0], #1", "subs r1, #1", "bne.n 20b",
                      "21:", "bx lr"]  # fmt: skip
        return lines

    def _fill_start(self) -> list[str]:
        return ["13:", "ldr r2, [r11, #52]"]

    def header(self, kernel: Conv2D, runs: Runs) -> np.ndarray:
        """The words the routine reads, int32, in the order of their offsets."""
        window, groups = kernel.window, kernel.groups
        _, height, width, channels = window.input_shape
        pixels = int(np.prod(window.output_size))
        column_bytes = runs.quads(kernel) * self.tile.pixels * 8
        unit = runs.tap_bytes if self.ragged else runs.tap_bytes // 4
        step = window.dilation[1]
        fill = (kernel.input_zero_point & 0xFFFF) * 0x10001
        words = [
            window.output_size[1], window.strides[0], window.padding[0], window.strides[1],
            window.padding[1], width, channels, runs.taps, unit, window.size[0], height,
            window.dilation[0], window.dilation[0] * width * channels, fill, column_bytes - 4,
            pixels - self.tile.pixels, groups, channels // groups, kernel.output_channels // groups,
            runs.per_row, step, step * channels, runs.words, column_bytes,
        ]  # fmt: skip
        return np.array(words, np.int64).astype(np.uint32).view(np.int32)

    def work(self, kernel: Conv2D, runs: Runs) -> tuple[int, int]:
        """(instructions, cycles) of one layer without the tiles."""
        size, groups = self.tile.pixels, kernel.groups
        starts = group_starts(int(np.prod(kernel.window.output_size)), size)
        pixels = (starts[:, None] + np.arange(size)).reshape(-1)
        rows, inside, touched = _trips(kernel, runs, pixels)
        per_word = self._word() * self.unroll + ["cmp r0, r1", "bne.n 7b"]
        total_words = rows * runs.words
        fill_loop = ["str r2, [r7, #4]", "str r2, [r7], #8", "subs r1, #1", "bne.n 19b"]
        parts = [
            ([*self._prologue(), *self._end()], groups),
            ([*self._group(), *self._call()], groups * len(starts)),
            ([*self._pixel(), *self._pixel_end()], groups * len(pixels)),
            (self._run(), groups * len(pixels) * runs.per_row),
            (self._row_end()[:4], groups * rows),
        ]
        row = [line for line in self._row() if line not in self._word()]
        if self.ragged and self.bordered:
            row = [line for line in row if line not in self._gather()]
            parts.append((self._gather(), groups * touched))
            parts.append((["ldrb lr, [r2], #1"] * 4, groups * touched * runs.words * 4))
            inside = total_words
        parts += [
            (row, groups * rows),
            (per_word, groups * inside // self.unroll),
            (fill_loop, groups * (total_words - inside)),
        ]
        return (
            sum(instruction_count(lines) * int(times) for lines, times in parts),
            sum(cycles(lines) * int(times) for lines, times in parts),
        )


def group_starts(pixels: int, size: int) -> np.ndarray:
    """First pixel of each group; the last overlaps the one before when they do not divide."""
    return np.minimum(np.arange(0, pixels, size), pixels - size)


def _trips(kernel: Conv2D, runs: Runs, pixels: np.ndarray) -> tuple[int, int, int]:
    """Over all windows: runs, words of them inside the image, and runs that touch its border."""
    window = kernel.window
    _, height, width, _ = window.input_shape
    rows = pixels // window.output_size[1] * window.strides[0] - window.padding[0]
    columns = pixels % window.output_size[1] * window.strides[1] - window.padding[1]
    every, inside, touched = 0, 0.0, 0
    for run in range(runs.per_row):
        left = columns + run * window.dilation[1]
        taps = np.clip(np.minimum(left + runs.taps, width) - np.maximum(left, 0), 0, runs.taps)
        for tap in range(window.size[0]):
            row = rows + tap * window.dilation[0]
            valid = (row >= 0) & (row < height)
            every += len(pixels)
            inside += float((valid * taps).sum()) / runs.taps * runs.words
            touched += int((valid & (taps < runs.taps)).sum())
    return every, int(inside), touched
