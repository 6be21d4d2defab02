"""The driver of DSP convolutions: lays out a group of pixels' inputs, multiplies, next group.

Each output pixel's window is read in runs of bytes that lie together in memory: a kernel row of the
window, or a single tap where dilation or groups tear a row apart. A run is widened straight from
the input; what lies outside the image is filled with the input's zero point.

    header   the words of `Columns.header`, after the tile's own

With `sums` a group's results stay in scratch until they are added to another tensor, which the
output may lie exactly over. Three more things shape the routine, everything else is data: whether
windows reach outside the image (`bordered`), whether a window has more than one run a row or the
convolution several groups (`torn`), and whether runs are whole words. Those that are not (`ragged`)
are gathered byte by byte into a row of scratch at the image's border, and elsewhere read on up to
3 bytes past their end, which zero weights then cancel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from edgecompress.lower.isa.dsp.add import SUM_WORDS, AddRoutine
from edgecompress.lower.isa.dsp.asm import cycles, instruction_count, routine, written_once
from edgecompress.lower.isa.dsp.tile import Tile
from edgecompress.lower.kernels.conv2d import Conv2D, Window

# stack: 0 input, 4 constants, 8 columns, 12 output, 16 group's pixel, 20 pixel, 24 stream,
# 28 groups left, 32 column, 36 row's start, 40 row, 44 runs left, 48 what is added
_FRAME_BYTES = 52

_FIELDS = [
    "output_width", "row_stride", "top", "column_stride", "left", "width", "channels",
    "taps", "unit", "rows", "height", "row_step", "row_bytes", "fill", "rewind", "last",
    "run_words", "column_bytes",
]  # fmt: skip
_TORN_FIELDS = [
    "groups", "group_inputs", "group_outputs", "per_row", "column_step", "column_step_bytes",
]  # fmt: skip
_SUM_FIELDS = ["results", "skipped_bytes"]


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
    sums: AddRoutine | None = None

    @property
    def symbol(self) -> str:
        kinds = (("bordered", self.bordered), ("torn", self.torn), ("ragged", self.ragged))
        suffix = "".join(f"_{name}" for name, present in kinds if present)
        suffix += "" if self.sums is None else f"_{self.sums.symbol}"
        return f"conv_{self.unroll}{suffix}_{self.tile.symbol}"

    @written_once
    def text(self) -> str:
        lines = [*self._prologue(), "1:", *self._group(), "2:", *self._pixel()]
        lines += ["3:", *self._run(), "4:", *self._row(), "9:", *self._row_end()]
        lines += [*self._pixel_end(), *self._call(), "10:", *self._end()]
        return routine(self.symbol, [*lines, *self._fill()])

    @property
    def _fields(self) -> list[str]:
        return [*_FIELDS, *(_TORN_FIELDS if self.torn else ()), *(_SUM_FIELDS if self.sums else ())]

    def _at(self, field: str) -> str:
        return f"[r11, #{4 * self._fields.index(field)}]"

    def _prologue(self) -> list[str]:
        """r0 input, r1 constants, r2 scratch, r3 output; r11 becomes the header.

        With sums: r0 input, r1 what is added, r2 constants, r3 scratch, and output on the stack.
        """
        words = len(self._fields) + (2 * SUM_WORDS if self.sums else 0)
        lines = ["push {r4-r11, lr}", f"sub sp, #{_FRAME_BYTES}"]
        if self.sums:
            lines += ["str r1, [sp, #48]", "mov r1, r2", "mov r2, r3",
                      f"ldr r3, [sp, #{_FRAME_BYTES + 36}]"]  # fmt: skip
        lines += ["stm sp, {r0-r3}", f"add.w r11, r1, #{4 * self.tile.header_words}",
                  f"add.w r0, r11, #{4 * words}", "str r0, [sp, #24]"]  # fmt: skip
        if self.torn:
            lines += [f"ldr r0, {self._at('groups')}", "str r0, [sp, #28]", "11:"]
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
            lines += [f"ldr r1, {self._at('per_row')}", "str r1, [sp, #44]"]
        return lines

    def _run(self) -> list[str]:
        """r3, r5, r4: words (bytes if ragged) before, in and behind the image; r9 rows."""
        lines = [f"ldr r9, {self._at('rows')}"]
        if self.torn:
            lines = ["str r0, [sp, #32]", "strd r8, r12, [sp, #36]", *lines]
        if not self.bordered:
            return lines
        if self.torn:
            lines.append(f"ldr r5, {self._at('width')}")
        lines += [f"ldrd r1, r2, {self._at('taps')}", "rsbs r3, r0, #0", "usat r3, #15, r3",
                  "cmp r3, r1", "it gt", "movgt r3, r1", "adds r4, r0, r1", "subs r4, r4, r5",
                  "usat r4, #15, r4", "subs r1, r1, r3", "cmp r4, r1", "it gt", "movgt r4, r1",
                  "subs r5, r1, r4", "muls r3, r2, r3", "muls r4, r2, r4",
                  "muls r5, r2, r5"]  # fmt: skip
        scale = "" if self.ragged else ", lsl #2"
        return [*lines, f"add.w r8, r8, r3{scale}"]

    def _row(self) -> list[str]:
        if not self.bordered:
            return ["mov r0, r8", *self._words(), *self._widen()]
        lines = [
            f"ldrd r1, r2, {self._at('height')}",
            "cmp r12, r1",
            "add.w r12, r12, r2",
            "bhs.w 12f",
        ]
        if self.ragged:
            return [*lines, "mov r0, r8", "orrs.w r1, r3, r4", "beq.n 6f", *self._gather(), "6:",
                    *self._words(), *self._widen()]  # fmt: skip
        return [*lines, "mov r0, r8", "cbz r3, 5f", "mov r1, r3", "bl 13f", "5:", "cbz r5, 8f",
                "add.w r1, r0, r5, lsl #2", *self._widen(), "8:", "cbz r4, 9f", "mov r1, r4",
                "bl 13f"]  # fmt: skip

    def _words(self) -> list[str]:
        return [f"ldr r1, {self._at('run_words')}", "add.w r1, r0, r1, lsl #2"]

    def _gather(self) -> list[str]:
        """The run with its border, in bytes, at the end of scratch; r0 becomes its start."""
        return ["ldr r0, [sp, #8]", f"ldr r2, {self._at('column_bytes')}", "add r0, r2",
                "mov r10, r0", f"ldr r6, {self._at('fill')}", "mov r1, r3", "bl 14f",
                "mov r2, r8", "cbz r5, 16f", "add.w r1, r2, r5", "15:", "ldrb lr, [r2], #1",
                "strb lr, [r0], #1", "cmp r2, r1", "bne.n 15b", "16:", "mov r1, r4", "bl 14f",
                "mov r0, r10"]  # fmt: skip

    def _widen(self) -> list[str]:
        """From r0 to r1 into the columns at r7."""
        return ["7:", *self._word() * self.unroll, "cmp r0, r1", "bne.n 7b"]

    def _word(self) -> list[str]:
        step = 4 * self.tile.pixels
        return ["ldr r2, [r0], #4", "sxtb16 lr, r2", "sxtb16 r2, r2, ror #8",
                f"str r2, [r7, #{step}]", f"str lr, [r7], #{2 * step}"]  # fmt: skip

    def _row_end(self) -> list[str]:
        lines = [f"ldr r1, {self._at('row_bytes')}", "add r8, r1", "subs.w r9, r9, #1", "bne.w 4b"]
        if self.torn:
            lines += ["ldr r1, [sp, #44]", "subs r1, #1", "beq.n 17f", "str r1, [sp, #44]",
                      f"ldrd r2, r3, {self._at('column_step')}", "ldr r0, [sp, #32]",
                      "ldrd r8, r12, [sp, #36]", "add r0, r2", "add r8, r3", "b.w 3b",
                      "17:"]  # fmt: skip
        return lines

    def _pixel_end(self) -> list[str]:
        return [f"ldr r1, {self._at('rewind')}", "subs r7, r7, r1", "ldrd r0, r9, [sp, #16]",
                "add.w r9, r9, #1", f"adds r0, #{self.tile.pixels}", "cmp r9, r0",
                "bne.w 2b"]  # fmt: skip

    def _call(self) -> list[str]:
        where = ["ldrd r2, r5, [sp, #12]", "ldr r4, [r3]", "mla r2, r4, r5, r2"]
        if self.sums:
            where = [f"ldr r2, {self._at('results')}", "add r2, r1"]
        lines = ["ldr r0, [sp, #24]", "ldrd r3, r1, [sp, #4]", *where, f"bl {self.tile.symbol}"]
        if self.sums:
            lines += self._add()
        return [*lines, f"ldr r2, {self._at('last')}", "cmp r5, r2", "beq.n 10f",
                f"adds r5, #{self.tile.pixels}", "cmp r5, r2", "it gt", "movgt r5, r2",
                "str r5, [sp, #16]", "b.w 1b"]  # fmt: skip

    def _add(self) -> list[str]:
        """A group's results to the sums; what the last group repeats is left out."""
        assert self.sums is not None
        return ["ldrd r3, r1, [sp, #4]", f"ldr r0, {self._at('results')}", "add r0, r1",
                "ldr r4, [r3]", "ldr r5, [sp, #16]", "muls r4, r5, r4",
                f"add.w r2, r11, #{4 * len(self._fields)}", f"ldr r3, {self._at('last')}",
                "cmp r5, r3", "bne.n 22f", f"ldr r3, {self._at('skipped_bytes')}", "add r0, r3",
                "add r4, r3", f"adds r2, #{4 * SUM_WORDS}", "22:", "ldr r1, [sp, #48]",
                "add r1, r4", "ldr r3, [sp, #12]", "add r3, r4",
                f"bl {self.sums.symbol}"]  # fmt: skip

    def _end(self) -> list[str]:
        """After the last group of pixels, and with several groups of channels the next of them."""
        lines = []
        if self.torn:
            lines = ["str r0, [sp, #24]", "ldr r0, [sp, #28]", "subs r0, #1", "beq.n 18f",
                     "str r0, [sp, #28]", f"ldrd r0, r1, {self._at('group_inputs')}",
                     "ldr r2, [sp]", "add r2, r0", "str r2, [sp]", "ldr r2, [sp, #12]",
                     "add r2, r1", "str r2, [sp, #12]", "b.w 11b", "18:"]  # fmt: skip
        return [*lines, f"add sp, #{_FRAME_BYTES}", "pop {r4-r11, pc}"]

    def _fill(self) -> list[str]:
        """Local routines: 12 a whole run outside, 13 words of padding, 14 bytes of it."""
        if not self.bordered:
            return []
        step = 4 * self.tile.pixels
        lines = ["12:", f"ldr r1, {self._at('run_words')}", "bl 13f", "b.w 9b", "13:",
                 f"ldr r2, {self._at('fill')}", "19:", f"str r2, [r7, #{step}]",
                 f"str r2, [r7], #{2 * step}", "subs r1, #1", "bne.n 19b", "bx lr"]  # fmt: skip
        if self.ragged:
            lines += ["14:", "cbz r1, 21f", "20:", "strb r6, [r0], #1", "subs r1, #1", "bne.n 20b",
                      "21:", "bx lr"]  # fmt: skip
        return lines

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
            pixels - self.tile.pixels, runs.words, column_bytes,
        ]  # fmt: skip
        if self.torn:
            words += [groups, channels // groups, kernel.output_channels // groups, runs.per_row,
                      step, step * channels]  # fmt: skip
        if self.sums:
            repeated = -pixels % self.tile.pixels
            words += [self.results_at(runs, kernel), repeated * kernel.output_channels]
        return np.array(words, np.int64).astype(np.uint32).view(np.int32)

    def results_at(self, runs: Runs, kernel: Conv2D) -> int:
        """Where in scratch a group's results lie, behind the columns and the gathered row."""
        column_bytes = runs.quads(kernel) * self.tile.pixels * 8
        return column_bytes + (4 * runs.words if self.ragged else 0)

    def scratch_bytes(self, runs: Runs, kernel: Conv2D) -> int:
        results = self.tile.pixels * kernel.output_channels if self.sums else 0
        return self.results_at(runs, kernel) + results

    def work(self, kernel: Conv2D, runs: Runs) -> tuple[int, int]:
        """(instructions, cycles) of one layer without the tiles."""
        size, groups = self.tile.pixels, kernel.groups
        calls = -(-math.prod(kernel.window.output_size) // size)
        pixels = calls * size
        rows, inside, touched = _trips(kernel.window, runs, size)
        per_word = self._word() * self.unroll + ["cmp r0, r1", "bne.n 7b"]
        total_words = rows * runs.words
        fill_loop = ["str r2, [r7, #4]", "str r2, [r7], #8", "subs r1, #1", "bne.n 19b"]
        parts = [
            ([*self._prologue(), *self._end()], groups),
            ([*self._group(), *self._call()], groups * calls),
            ([*self._pixel(), *self._pixel_end()], groups * pixels),
            (self._run(), groups * pixels * runs.per_row),
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


@lru_cache(maxsize=1 << 10)
def _trips(window: Window, runs: Runs, size: int) -> tuple[int, int, int]:
    """Over all windows: runs, words of them inside the image, and runs that touch its border."""
    starts = group_starts(math.prod(window.output_size), size)
    pixels = (starts[:, None] + np.arange(size)).reshape(-1)
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
