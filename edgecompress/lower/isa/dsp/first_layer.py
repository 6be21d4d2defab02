"""First layers for Thumb-2 with DSP: convolutions of one to four input channels.

Their windows are short runs of bytes, one a kernel row, that fill no whole words: 9 bytes for three
channels under a 3x3 window. For each row of outputs the input rows under it are copied into a
padded strip of scratch. Then a pixel's column is built by straight code at fixed offsets from the
pixel's place in the strip: whole words widen four inputs in 5 instructions, and the bytes left over
at the ends of the runs make up words of their own. The order of a column is free, because the
weights are packed in the same order: a 3x3x3 window takes 28 products, not 36.

`tile.py` multiplies three pixels' columns by all channels.

    constants   [tile header] [four zero points] [stream]

Example, 3x3x3: six words (bytes 0..3 and 4..7 of each run), then bytes 8 of the three runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgecompress.lower.isa.dsp.asm import load_constant
from edgecompress.lower.isa.dsp.text import Text
from edgecompress.lower.isa.dsp.tile import Tile, forms, tiles
from edgecompress.lower.isa.interface import Cost, Implementation
from edgecompress.lower.kernels.conv2d import Conv2D

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

_MOST_CHANNELS = 4
_MOST_QUADS = 40  # straight code of up to 800 bytes
_REACH = 4095  # of an immediate offset
# stack: 0 input, 4 strip, 8 the column being built
_FRAME_BYTES = 12

Place = tuple[int, int]
"""(kernel row, byte of its run)."""


@dataclass(frozen=True)
class Strip:
    """The geometry of one layer; sizes in bytes unless said otherwise."""

    kernel: Conv2D

    @property
    def run(self) -> int:
        """Of one kernel row's window."""
        return self.kernel.window.size[1] * self.channels

    @property
    def channels(self) -> int:
        return self.kernel.window.input_shape[3]

    @property
    def left(self) -> int:
        return self.kernel.window.padding[1] * self.channels

    @property
    def pitch(self) -> int:
        """From one row of the strip to the next: all inputs some window reads."""
        window = self.kernel.window
        return window.strides[1] * (window.output_size[1] - 1) * self.channels + self.run

    @property
    def inside(self) -> int:
        """Of a row that comes from the image."""
        width = self.kernel.window.input_shape[2] * self.channels
        return max(0, min(width, self.pitch - self.left))

    @property
    def size(self) -> int:
        """Whole words, and one that a padded run may read past the end."""
        return -(-self.kernel.window.size[0] * self.pitch // 4) * 4 + 4

    def quads(self) -> list[list[Place | None]]:
        """Four places a word of the column; None is multiplied by zero."""
        tall, words, rest = self.kernel.window.size[0], self.run // 4, self.run % 4
        padded = rest and tall <= -(-tall * rest // 4)
        whole = words + 1 if padded else words
        found: list[list[Place | None]] = []
        for row in range(tall):
            for word in range(whole):
                bytes_ = range(4 * word, 4 * word + 4)
                found.append([(row, byte) if byte < self.run else None for byte in bytes_])
        if rest and not padded:
            ends: list[Place | None] = [
                (row, byte) for row in range(tall) for byte in range(4 * words, self.run)
            ]
            ends += [None] * (-len(ends) % 4)
            found += [ends[first : first + 4] for first in range(0, len(ends), 4)]
        return found

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """Weights int8 [O, kh, kw, C] as `[O, 4 * quads]` in the column's order."""
        outputs, tall = weights.shape[:2]
        flat = np.pad(weights.reshape(outputs, -1), ((0, 0), (0, 1)))
        zero = tall * self.run
        order = [
            zero if place is None else place[0] * self.run + place[1]
            for quad in self.quads()
            for place in quad
        ]
        return flat[:, order]

    def rows_inside(self) -> int:
        """Rows of all strips together that come from the image."""
        window = self.kernel.window
        first = np.arange(window.output_size[0])[:, None] * window.strides[0] - window.padding[0]
        rows = first + np.arange(window.size[0])
        return int(((rows >= 0) & (rows < window.input_shape[1])).sum())


class FirstLayerGenerator:
    """`Conv2D` of one group and up to four input channels, undilated.

    Refuses windows of more than 160 inputs, strips beyond the reach of an immediate offset, maps
    narrower than a group of pixels, and requantizations other than "smmla".
    """

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        if not isinstance(kernel, Conv2D) or not _takes(kernel):
            return []
        strip = Strip(kernel)
        quads = len(strip.quads())
        pixels = int(np.prod(kernel.window.output_size))
        if not 0 < quads <= _MOST_QUADS or strip.inside == 0 or strip.size > _REACH:
            return []
        packed, bias, multiplier = strip.pack(constants[0]), constants[1], constants[2]
        return [
            _implementation(strip, tile, (packed, bias, multiplier))
            for form in forms(kernel.requantize, packed, bias)
            for tile in tiles(form, kernel.requantize, pixels, kernel.output_channels)
            if pixels % tile.pixels == 0 or kernel.window.output_size[1] > tile.pixels
        ]


def _takes(kernel: Conv2D) -> bool:
    window = kernel.window
    batch, _, _, channels = window.input_shape
    return (
        batch == 1
        and kernel.groups == 1
        and channels <= _MOST_CHANNELS
        and window.dilation == (1, 1)
        and min(window.output_size) > 0
    )


@dataclass(frozen=True)
class _Driver:
    """Writes the driver: r4 the pixel in the strip, r5 pixels left in its row, r6 output, r7
    columns, r8 groups left, r9 constants, r11 the next strip's first row."""

    strip: Strip
    tile: Tile

    @property
    def symbol(self) -> str:
        kernel = self.strip.kernel
        window = kernel.window
        numbers = [*window.input_shape[1:], *window.size, *window.strides, *window.padding[:2],
                   *kernel.output_shape[1:]]  # fmt: skip
        return f"first_layer_{'_'.join(map(str, numbers))}_{self.tile.symbol}"

    @property
    def pixels(self) -> int:
        return int(np.prod(self.strip.kernel.window.output_size))

    @property
    def groups(self) -> int:
        return -(-self.pixels // self.tile.pixels)

    @property
    def column_bytes(self) -> int:
        return 8 * self.tile.pixels * len(self.strip.quads())

    def text(self) -> Text:
        text, size = Text(), self.tile.pixels
        self._prologue(text)
        group, slot, ready = text.new_label(), text.new_label(), text.new_label()
        with text.running(self.groups):
            text.emit(f"{group}:", "mov r1, r7")
            with text.running(self.groups * size):
                text.emit(f"{slot}:", "cmp r5, #0", f"bne.w {ready}f")
                with text.running(self.strip.kernel.window.output_size[0]):
                    self._load_strip(text)
                text.emit(f"{ready}:")
                self._column(text)
                step = self.strip.kernel.window.strides[1] * self.strip.channels
                text.add("r4", step, "r0")
                text.emit("subs r5, #1", "adds r1, #4", "subs r0, r1, r7", f"cmp r0, #{4 * size}",
                          f"bne.w {slot}b")  # fmt: skip
            self._multiply(text, group)
        text.emit(f"add sp, #{_FRAME_BYTES}", "pop {r4-r11, pc}")
        return text

    def _prologue(self, text: Text) -> None:
        """r0 input, r1 constants, r2 scratch, r3 output. The strip's sides are filled once."""
        window = self.strip.kernel.window
        text.emit("push {r4-r11, lr}", f"sub sp, #{_FRAME_BYTES}", "str r0, [sp]", "mov r9, r1",
                  "mov r7, r2", "mov r6, r3")  # fmt: skip
        text.add("r2", self.column_bytes, "r3")
        text.emit("str r2, [sp, #4]")
        if self.strip.inside < self.strip.pitch:
            label = text.new_label()
            text.emit(f"ldr r3, [r9, #{4 * self.tile.header_words}]")
            text.add("r12", self.strip.size, "r12", source="r2")
            with text.running(self.strip.size // 4):
                text.emit(f"{label}:", "str r3, [r2], #4", "cmp r2, r12", f"bne.n {label}b")
        text.emit("movs r5, #0", *load_constant("r11", -window.padding[0]),
                  *load_constant("r8", self.groups))  # fmt: skip

    def _load_strip(self, text: Text) -> None:
        """The input rows under the next row of outputs; zero points for those outside."""
        strip, window = self.strip, self.strip.kernel.window
        _, height, width, channels = window.input_shape
        row, outside, after = text.new_label(), text.new_label(), text.new_label()
        rows = window.size[0] * window.output_size[0]
        text.emit("str r1, [sp, #8]", "ldrd r0, r2, [sp]", *load_constant("r3", width * channels),
                  "mla r5, r11, r3, r0", "mov r4, r11",
                  *load_constant("lr", window.size[0]))  # fmt: skip
        text.add("r2", strip.left, "r3")
        with text.running(rows):
            text.emit(f"{row}:", *load_constant("r12", height), "cmp r4, r12", f"bhs.w {outside}f")
            with text.running(strip.rows_inside()):
                text.emit("mov r0, r5")
                _transfer(text, strip.inside, ("ldr r3, [r0], #4", "str r3, [r2], #4"),
                          ("ldrb r3, [r0], #1", "strb r3, [r2], #1"))  # fmt: skip
                text.emit(f"b.w {after}f")
            with text.running(rows - strip.rows_inside()):
                text.emit(f"{outside}:", f"ldr r3, [r9, #{4 * self.tile.header_words}]")
                _transfer(text, strip.inside, ("str r3, [r2], #4",), ("strb r3, [r2], #1",))
            text.emit(f"{after}:")
            text.add("r2", strip.pitch - strip.inside, "r3")
            text.add("r5", width * channels, "r3")
            text.emit("adds r4, #1", "subs.w lr, lr, #1", f"bne.w {row}b")
        text.emit("ldrd r4, r1, [sp, #4]", *load_constant("r5", window.output_size[1]))
        text.add("r11", window.strides[0], "r3")

    def _column(self, text: Text) -> None:
        """One pixel's inputs from r4 to the column at r1."""
        step = 4 * self.tile.pixels
        words = []
        for index, quad in enumerate(self.strip.quads()):
            if self._is_word(quad):
                words.append((self._offset(quad[0]), 2 * step * index))
            else:
                self._scattered(text, quad, 2 * step * index)
        for first in range(0, len(words), 2):
            chosen = list(zip(words[first : first + 2], ("r0", "r3"), ("r2", "r12"), strict=False))
            text.emit(*(f"ldr {low}, [r4, #{source}]" for (source, _), low, _ in chosen))
            for _, low, high in chosen:
                text.emit(f"sxtb16 {high}, {low}, ror #8", f"sxtb16 {low}, {low}")
            for (_, target), low, high in chosen:
                text.emit(f"str {low}, [r1, #{target}]", f"str {high}, [r1, #{target + step}]")

    @staticmethod
    def _is_word(quad: list[Place | None]) -> bool:
        """Consecutive bytes of one run, or of one run and past its end."""
        places = [place for place in quad if place is not None]
        first = places[0]
        return first[1] % 4 == 0 and places == [
            (first[0], first[1] + index) for index in range(len(places))
        ]

    def _offset(self, place: Place | None) -> int:
        assert place is not None
        return place[0] * self.strip.pitch + place[1]

    def _scattered(self, text: Text, quad: list[Place | None], target: int) -> None:
        """Single bytes k .. k+3 to the pairs (k, k + 2) and (k + 1, k + 3)."""
        for half, (low, high) in enumerate(((quad[0], quad[2]), (quad[1], quad[3]))):
            if low is None:
                continue
            text.emit(f"ldrsb r0, [r4, #{self._offset(low)}]")
            if high is not None:
                text.emit(f"ldrsb r2, [r4, #{self._offset(high)}]", "pkhbt r0, r0, r2, lsl #16")
            text.emit(f"str r0, [r1, #{target + 4 * self.tile.pixels * half}]")

    def _multiply(self, text: Text, group: str) -> None:
        """Columns by weights; the last group overlaps the one before if pixels are left over."""
        size, outputs = self.tile.pixels, self.strip.kernel.output_channels
        end, back = text.new_label(), -self.pixels % size
        text.emit(f"add.w r0, r9, #{4 * self.tile.header_words + 4}", "mov r1, r7", "mov r2, r6",
                  "mov r3, r9", f"bl {self.tile.symbol}")  # fmt: skip
        text.add("r6", size * outputs, "r0")
        text.emit("subs.w r8, r8, #1", f"beq.n {end}f")
        with text.running(self.groups - 1):
            if back:
                text.emit("cmp.w r8, #1", f"bne.w {group}b")
                with text.running(1):
                    step = self.strip.kernel.window.strides[1] * self.strip.channels
                    text.add("r4", -back * step, "r0")
                    text.emit(f"adds r5, #{back}")
                    text.add("r6", -back * outputs, "r0")
            with text.running(1 if back else self.groups - 1):
                text.emit(f"b.w {group}b")
        text.emit(f"{end}:")


def _transfer(
    text: Text, size: int, word: tuple[str, ...], byte: tuple[str, ...], unroll: int = 6
) -> None:
    """`size` bytes to r2 by word and byte instructions, in a loop if they are many."""
    times = text.times
    words = size // 4
    loops, rest = divmod(words, unroll) if words > 2 * unroll else (0, words)
    if loops:
        label = text.new_label()
        text.add("r12", 4 * unroll * loops, "r12", source="r2")
        with text.running(times * loops):
            text.emit(f"{label}:", *word * unroll, "cmp r2, r12", f"bne.n {label}b")
    text.emit(*word * rest, *byte * (size % 4))


def _implementation(strip: Strip, tile: Tile, arrays: tuple[np.ndarray, ...]) -> Implementation:
    packed, bias, multiplier = arrays
    kernel, driver = strip.kernel, _Driver(strip, tile)
    outputs, quads = kernel.output_channels, packed.shape[1] // 4
    zero_points = np.array([kernel.input_zero_point & 0xFF], np.uint32) * np.uint32(0x01010101)
    constant = np.concatenate(
        [
            tile.header(kernel.requantize, quads, outputs, outputs),
            zero_points.view(np.int32),
            tile.stream(packed, bias, multiplier),
        ]
    )
    text = driver.text()
    own, inner = text.cost(), tile.work(quads, outputs)
    return Implementation(
        symbol=driver.symbol,
        constants=(constant,),
        cost=Cost(
            own.instructions + driver.groups * inner[0], own.cycles + driver.groups * inner[1], 0
        ),
        description=(
            f"dsp first layer, {tile.channels} channels x {tile.pixels} pixels x "
            f"{4 * tile.unroll} inputs, {tile.form}"
        ),
        assembly={driver.symbol: text.assembly(driver.symbol), tile.symbol: tile.text},
        scratch_bytes=-(-(driver.column_bytes + strip.size) // 8) * 8,
        may_overlap_input=overlap_distance(kernel, tile.pixels),
    )


def overlap_distance(kernel: Conv2D, size: int) -> int:
    """How far after the input's start the output may start, in bytes.

    A row of outputs begins by copying its input rows. What was written before must end before the
    first of them and of all later ones.
    """
    window = kernel.window
    _, height, width, channels = window.input_shape
    tall, wide = window.output_size
    rows = np.arange(1, tall)
    # groups of pixels that were written before a row's first pixel is reached
    written = rows * wide // size * size * kernel.output_channels
    first = np.clip(rows * window.strides[0] - window.padding[0], 0, height) * width * channels
    return int((first - written).min()) if tall > 1 else 0
