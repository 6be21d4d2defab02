"""Depthwise convolutions for Thumb-2 with DSP: planar 16-bit pairs, two taps an instruction.

SMLAD wants two neighbouring inputs of one channel in a register, and NHWC has neighbouring
channels there. So four channels at a time are transposed into scratch: padded planes whose words
hold pairs of neighbours along one axis of the image, the planes interleaved word by word. Then,
a channel at a time, a strip of up to eight outputs slides over the words: each is loaded once a
kernel row and multiplied into every output it touches. A 3x3 kernel takes 12 multiplications for
two outputs.

Words pair neighbours along the width or the height (`axis`), whichever wastes less: 25 x 5 outputs
pair along the 25. When the planes do not fit the scratch, rows go through it in chunks and a
kernel's height minus its stride of them stays. All inputs of a channel group that outputs will
lie over have been read by then, so the layer works in place.

Weights come as bytes and are widened per channel. Multiplying them by 2^k lets layers of the same
shape but different shifts S share one routine: floor(acc * 2^k * M / 2^(S + k)) is the same.

Two routines are offered: one with the layer's sizes in its instructions (`depthwise_text.py`), and
one for any sizes (`depthwise_shared.py`), which pays where a network has many shapes.

    constants: [pair of zero points, rounding, k, bytes of the table] [chunks]
               [bias, multiplier] an output, then weights [output][row][plane][tap] int8
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgecompress.lower.isa.dsp.depthwise_shared import SharedDepthwiseText
from edgecompress.lower.isa.dsp.depthwise_text import DepthwiseText
from edgecompress.lower.isa.dsp.filters import Filters, weights_of
from edgecompress.lower.isa.interface import Implementation

if TYPE_CHECKING:
    from edgecompress.lower.program import Kernel

_SHIFTS = (12, 20, 8)  # shared by layers of one shape: nearly all take 12
_MOST_WEIGHTS = 128  # of a filter: they lie widened on the stack
_MOST_TAPS = 7  # of a kernel row: weights and eight sums stay in registers
Constants = tuple[np.ndarray, ...]
PairedAxis = Literal["width", "height"]
# Scratch to aim at: the largest, or an eighth of the input, is fast; the others relieve the arena.
SCRATCH_BYTES = (2048, 1024, 512)


@dataclass(frozen=True)
class Axis:
    """One axis of the image: sizes in pixels, steps in bytes."""

    inputs: int
    before: int
    outputs: int
    taps: int
    stride: int
    input_step: int
    output_step: int

    @property
    def extent(self) -> int:
        """Padded inputs that some output reads."""
        return self.stride * (self.outputs - 1) + self.taps

    @property
    def inside(self) -> int:
        """Real inputs among them."""
        return min(self.inputs, self.extent - self.before)


@dataclass(frozen=True)
class Chunk:
    """Rows that enter scratch (border above, inputs, border below) and the outputs they allow."""

    above: int
    copied: int
    below: int
    outputs: int


@dataclass(frozen=True)
class Plan:
    """One way to run one layer's shape. `along` pairs inputs, `across` counts kernel rows.

    Each group of `planes` channels has `filters` filters.
    """

    channels: int
    along: Axis
    across: Axis
    chunks: tuple[Chunk, ...]
    shift: int
    low: int
    high: int
    axis: PairedAxis
    planes: int = 1
    filters: int = 1

    @property
    def is_depthwise(self) -> bool:
        """One filter a channel."""
        return self.planes == self.filters == 1

    @property
    def kind(self) -> str:
        return "depthwise" if self.is_depthwise else "grouped"

    @property
    def step(self) -> int:
        """Channels of whole groups among four."""
        return 4 // self.planes * self.planes

    @property
    def output_channels(self) -> int:
        return self.channels // self.planes * self.filters

    @property
    def words(self) -> int:
        """Of one plane's row."""
        return (self.along.extent + 1) // 2

    @property
    def row_bytes(self) -> int:
        """Of four interleaved planes."""
        return 16 * self.words

    @property
    def rows(self) -> int:
        """In scratch."""
        most = max(chunk.outputs for chunk in self.chunks)
        return self.across.stride * (most - 1) + self.across.taps

    @property
    def scratch_bytes(self) -> int:
        return self.rows * self.row_bytes

    @property
    def kept(self) -> int:
        """Rows one chunk leaves to the next."""
        return self.across.taps - self.across.stride

    @property
    def pairs(self) -> tuple[tuple[int, int], ...]:
        """Which neighbouring taps of a kernel row must share a register.

        Pairs of inputs begin at even places: an output at an even place wants taps (0, 1), (2, 3)
        and one at an odd place (1, 2), (3, 4). Example: 3 taps at stride 1: (0, 1) and (1, 2).
        """
        taps = self.along.taps
        pairs = [(tap, tap + 1) for tap in range(0, taps - 1, 2)]
        if self.along.stride % 2:
            pairs += [(tap, tap + 1) for tap in range(1, taps - 1, 2)]
        missing = set(range(taps)) - {tap for pair in pairs for tap in pair}
        return (*pairs, *((tap, tap) for tap in sorted(missing)))

    @property
    def strip(self) -> int:
        """Outputs summed at once: what weights leave of ten registers, at most eight."""
        most = min(8, 10 - max(2, len(self.pairs)))
        return most if self.along.stride % 2 == 0 else most // 2 * 2

    def copied_at_once(self, pairs: int) -> int:
        """Pairs copied an iteration, their last input within reach of an immediate offset."""
        reach = (4095 // self.along.input_step - 1) // 2
        return max(1, min(6 if pairs == 6 else 4, reach))

    @property
    def groups(self) -> int:
        return -(-self.channels // self.step)

    @property
    def symbol(self) -> str:
        a, b = self.along, self.across
        parts = [self.axis, self.channels, a.inputs, b.inputs, a.before, b.before, a.outputs,
                 b.outputs, a.taps, b.taps, a.stride, b.stride, self.rows, self.shift]  # fmt: skip
        if (self.low, self.high) != (-128, 127):
            parts += [self.low & 0xFF, self.high & 0xFF]
        if not self.is_depthwise:
            parts += [self.planes, self.filters]
        return f"{self.kind}_" + "_".join(map(str, parts))

    def works_in_place(self) -> bool:
        """True when no chunk's outputs lie over inputs that are still to be read.

        Chunks of rows end before the next begin in memory; chunks of columns do so in every row
        if the rows are equally long.
        """
        chunked = len(self.chunks) > 1
        if chunked and self.along.output_step != self.along.input_step:
            return False
        if self.filters != self.planes:
            return False
        read = written = 0
        for chunk in self.chunks[:-1]:
            read += chunk.copied * self.across.input_step
            written += chunk.outputs * self.across.output_step
            if written > read:
                return False
        return True


@dataclass(frozen=True)
class DepthwiseGenerator:
    """`DepthwiseConv2D`, and `Conv2D` in groups of up to four inputs; four channels and more.

    Refuses dilation, rows of more than 7 taps, requantizations other than "smmla", multipliers of
    2^7 and more, and images whose pixels are too far apart for the addressing.
    """

    def implement(self, kernel: Kernel, constants: tuple[np.ndarray, ...]) -> list[Implementation]:
        filters = Filters.of(kernel)
        if filters is None or filters.window.dilation != (1, 1) or not takes(filters):
            return []
        constants = (weights_of(kernel, constants[0]), *constants[1:])
        shift, left = common_shift(filters, *constants[:2])
        if shift is None:
            return []
        eighth = int(np.prod(filters.window.input_shape)) // 8
        plans = {}
        for axis in ("width", "height"):
            for most in (max(SCRATCH_BYTES[0], eighth), *SCRATCH_BYTES[1:]):
                plan = make_plan(filters, axis, most, shift)
                if plan is not None:
                    plans[plan.symbol] = plan
        return [
            implementation(plan, writer(plan), filters, left, constants)
            for plan in plans.values()
            for writer in (DepthwiseText, SharedDepthwiseText)
            if writer is DepthwiseText or (plan.axis == "width" and plan.is_depthwise)
        ]


def takes(filters: Filters) -> bool:
    """What undilated and dilated ones have in common."""
    window = filters.window
    batch, _, _, channels = window.input_shape
    return (
        filters.requantize.form == "smmla"
        and batch == 1
        and channels >= 4
        and window.size[0] * window.size[1] * filters.inputs <= _MOST_WEIGHTS
        and all(size > 0 for size in window.output_size)
    )


def common_shift(filters: Filters, weights: np.ndarray, bias: np.ndarray) -> tuple[int | None, int]:
    """The shift S + k and the k by which weights and biases are multiplied; None: none fits."""
    requantize = filters.requantize
    rows = np.abs(weights.astype(np.int64)).sum((1, 2, 3)) * 128 + np.abs(bias.astype(np.int64))
    bound = int(rows.max(initial=0))
    for shift in (*_SHIFTS, requantize.shift):
        left = shift - requantize.shift + requantize.left_shift
        if shift >= requantize.shift and left <= 8 and bound << left < 2**31:
            return shift, left
    return None, 0


def make_plan(filters: Filters, axis: PairedAxis, most_bytes: int, shift: int) -> Plan | None:
    """The plan with pairs along `axis` and about `most_bytes` of scratch; None: not possible."""
    window = filters.window
    _, tall, wide, channels = window.input_shape
    rows, columns = window.output_size
    made = filters.output_channels
    down = Axis(tall, window.padding[0], rows, window.size[0], window.strides[0],
                wide * channels, columns * made)  # fmt: skip
    right = Axis(wide, window.padding[1], columns, window.size[1], window.strides[1],
                 channels, made)  # fmt: skip
    return plan_axes(filters, (down, right), axis, most_bytes, shift)


def plan_axes(
    filters: Filters,
    axes: tuple[Axis, Axis],
    axis: PairedAxis,
    most_bytes: int,
    shift: int,
) -> Plan | None:
    """`make_plan` for any layout: `axes` are down and right."""
    down, right = axes
    along, across = (right, down) if axis == "width" else (down, right)
    if along.taps > _MOST_TAPS or min(along.inside, across.inside) < 1:
        return None
    if along.input_step > 4095 or 16 * (along.extent + 1) // 2 > 4095:
        return None
    row_bytes = 16 * ((along.extent + 1) // 2)
    outputs = across.outputs
    fitting = (most_bytes // row_bytes - across.taps) // across.stride + 1
    if fitting < outputs:
        if across.taps < across.stride:
            return None  # a chunk would have to skip rows
        outputs = max(fitting, 1)
    requantize, channels = filters.requantize, filters.window.input_shape[3]
    return Plan(
        channels, along, across, tuple(_chunks(across, outputs)), shift, requantize.low,
        requantize.high, axis, filters.inputs, filters.outputs,
    )  # fmt: skip


def _chunks(across: Axis, outputs: int) -> list[Chunk]:
    """Chunks of `outputs` output rows; the last may have fewer."""
    chunks, begin = [], 0
    for first in range(0, across.outputs, outputs):
        count = min(outputs, across.outputs - first)
        end = across.stride * (first + count - 1) + across.taps
        top, bottom = across.before, across.before + across.inputs
        above = max(0, min(end, top) - begin)
        below = max(0, end - max(begin, bottom))
        chunks.append(Chunk(above, end - begin - above - below, below, count))
        begin = end
    return chunks


def implementation(
    plan: Plan, writer: DepthwiseText, filters: Filters, left: int, constants: Constants
) -> Implementation:
    """The routine with its constant; `constants` begin with weights as `weights_of` gives them."""
    text, symbol = writer.write(), plan.symbol
    rounding = (filters.requantize.zero_point << plan.shift) + (1 << (plan.shift - 1))
    if isinstance(writer, SharedDepthwiseText):
        symbol = writer.symbol
        header = writer.parameters(filters.input_zero_point, rounding, left)
    else:
        zero = filters.input_zero_point & 0xFFFF
        header = np.array([zero << 16 | zero, rounding, left, 8 * plan.output_channels], np.int64)
    chunks = len(plan.chunks)
    return Implementation(
        symbol=symbol,
        constants=(_pack(plan, header, writer.chunked, left, constants),),
        cost=text.cost(),
        description=f"dsp {plan.kind}, strips of {plan.strip} outputs along the {plan.axis}"
        + (f", {chunks} chunks" if chunks > 1 else "")
        + (", shared" if isinstance(writer, SharedDepthwiseText) else ""),
        assembly={symbol: text.assembly(symbol)},
        scratch_bytes=plan.scratch_bytes,
        may_overlap_input=0 if plan.works_in_place() else None,
    )


def _pack(
    plan: Plan, header: np.ndarray, chunked: bool, left: int, constants: Constants
) -> np.ndarray:
    """The routine's one constant, int32."""
    weights, bias, multipliers = constants
    chunks = [[c.above | c.copied << 16, c.below | c.outputs << 16] for c in plan.chunks]
    chunk_words = np.array(chunks if chunked else [], np.int64).reshape(-1)
    table = np.stack([bias.astype(np.int64) << left, multipliers.astype(np.int64)], 1).reshape(-1)
    words = (np.concatenate([header, chunk_words, table]) & 0xFFFFFFFF).astype(np.uint32)
    order = (0, 1, 3, 2) if plan.axis == "width" else (0, 2, 3, 1)
    taps = np.ascontiguousarray(weights.transpose(order)).reshape(-1)
    taps = np.pad(taps, (0, -taps.size % 4))
    return np.concatenate([words.view(np.int32), taps.view(np.int32)])
