"""int8 2-D convolution: any kernel size, stride, explicit padding, dilation and group count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te, tirx

from edgecompress.lower.kernels.interface import CannotMatch, Match
from edgecompress.lower.kernels.loops import tile_output_channels, tile_width
from edgecompress.lower.kernels.requant import Requantize
from edgecompress.lower.kernels.weighted import channel_scale, find_weighted, fold_constants
from edgecompress.lower.program import Overlap

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph


@dataclass(frozen=True)
class Window:
    """The sliding window of a convolution over an NHWC tensor.

    `padding` is (top, left, bottom, right); `input_shape` is (N, H, W, C).
    """

    input_shape: tuple[int, int, int, int]
    size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def output_size(self) -> tuple[int, int]:
        """Output height and width."""
        _, height, width, _ = self.input_shape
        top, left, bottom, right = self.padding
        tall = height + top + bottom - self.dilation[0] * (self.size[0] - 1) - 1
        wide = width + left + right - self.dilation[1] * (self.size[1] - 1) - 1
        return tall // self.strides[0] + 1, wide // self.strides[1] + 1

    def overlap_distance(self, output_channels: int) -> int:
        """`Overlap.distance_bytes` of a kernel that makes the output pixel by pixel, row by row.

        With d the distance, pixel q's bytes [d + q O, d + (q + 1) O) must all lie before the first
        input byte m(q) that pixel q or a later one reads: d = min over q of m(q) - (q + 1) O.
        """
        _, height, width, channels = self.input_shape
        tall, wide = self.output_size
        rows = np.arange(tall)[:, None] * self.strides[0] - self.padding[0]
        columns = np.arange(wide)[None, :] * self.strides[1] - self.padding[1]
        # padding in front is skipped tap by tap, never past the input's end
        rows = np.where(rows < 0, rows % self.dilation[0], rows)
        columns = np.where(columns < 0, columns % self.dilation[1], columns)
        first_read = (np.minimum(rows, height) * width + np.minimum(columns, width)) * channels
        remaining = np.minimum.accumulate(first_read.reshape(-1)[::-1])[::-1]
        distance = (remaining - (np.arange(tall * wide) + 1) * output_channels).min()
        return min(int(distance), -1)  # 0 would mean exactly in place

    def padded(self, x: Any, fill: int) -> Any:
        """TE stage `padded` (inlined by the schedule): x with a border of `fill`."""
        if not any(self.padding):
            return x
        batch, height, width, channels = self.input_shape
        top, left, bottom, right = self.padding
        return te.compute(
            (batch, height + top + bottom, width + left + right, channels),
            lambda n, i, j, c: tirx.if_then_else(
                tirx.all(i >= top, i < height + top, j >= left, j < width + left),
                x[n, i - top, j - left, c],
                tirx.const(fill, "int8"),
            ),
            name="padded",
        )

    def taps(self, x: np.ndarray, fill: int) -> np.ndarray:
        """numpy: the inputs under each tap, `[kernel_h, kernel_w, N, OH, OW, C]` int8."""
        top, left, bottom, right = self.padding
        padded = np.pad(
            x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=np.int8(fill)
        )
        tall, wide = self.output_size
        rows = [
            [
                padded[
                    :,
                    i * self.dilation[0] :: self.strides[0],
                    j * self.dilation[1] :: self.strides[1],
                ][:, :tall, :wide]
                for j in range(self.size[1])
            ]
            for i in range(self.size[0])
        ]
        return np.array(rows)


@dataclass(frozen=True)
class Conv2D:
    """y[n,i,j,o] = requantize(bias[o] + sum x[n, i*s+a*d, j*s+b*d, c] * w[o,a,b,c]).

    Arguments: x int8 [N, H, W, C]; weights int8 [O, kh, kw, C / groups]; bias int32 [O] with the
    input zero point folded in; the requantization tables [O]. Output int8 [N, OH, OW, O].
    """

    window: Window
    output_channels: int
    groups: int
    input_zero_point: int
    requantize: Requantize
    op: str = "conv2d"

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return (self.window.input_shape[0], *self.window.output_size, self.output_channels)

    @property
    def macs(self) -> int:
        taps = self.window.size[0] * self.window.size[1]
        inputs = self.window.input_shape[3] // self.groups
        return int(np.prod(self.output_shape)) * taps * inputs

    @property
    def overlaps(self) -> tuple[Overlap, ...]:
        if self.window.input_shape[0] != 1:
            return ()
        return (Overlap(0, self.window.overlap_distance(self.output_channels)),)

    def compute(
        self,
        x: Any,
        weights: Any,
        bias: Any,
        *tables: Any,
        epilogue: Callable[..., Any] | None = None,
    ) -> Any:
        """`epilogue(value, index)` makes the stored value of each int8 result, if given."""
        window = self.window
        (row_stride, column_stride), (row_step, column_step) = window.strides, window.dilation
        inputs = window.input_shape[3] // self.groups
        outputs = self.output_channels // self.groups
        padded = window.padded(x, self.input_zero_point)
        a = te.reduce_axis((0, window.size[0]), "kernel_row")
        b = te.reduce_axis((0, window.size[1]), "kernel_column")
        c = te.reduce_axis((0, inputs), "input_channel")

        def accumulate(n: Any, i: Any, j: Any, o: Any) -> Any:
            channel = c if self.groups == 1 else tirx.floordiv(o, outputs) * inputs + c
            value = padded[
                n, i * row_stride + a * row_step, j * column_stride + b * column_step, channel
            ]
            return te.sum(value.astype("int32") * weights[o, a, b, c].astype("int32"), [a, b, c])

        shape = self.output_shape
        accumulator = te.compute(shape, accumulate, name="accumulator")
        # its own stage: otherwise the cast to int64 is pushed through the addition
        biased = te.compute(shape, lambda *at: accumulator(*at) + bias[at[-1]], name="biased")

        def finished(*at: Any) -> Any:
            value = self.requantize.compute(biased(*at), tables, at[-1])
            return value if epilogue is None else epilogue(value, at)

        return te.compute(shape, finished, name="output")

    def schedule(self, schedule: Any, function_name: str) -> None:
        width = tile_width(self.output_channels // self.groups)
        tile_output_channels(schedule, function_name, width)

    def reference(
        self, x: np.ndarray, weights: np.ndarray, bias: np.ndarray, *tables: np.ndarray
    ) -> np.ndarray:
        batch, tall, wide, _ = self.output_shape
        inputs, outputs = weights.shape[3], self.output_channels // self.groups
        # float64 holds every integer up to 2^53, and its matrix product is the fast one
        taps = self.window.taps(x, self.input_zero_point).astype(np.float64)
        rows = weights.reshape(self.groups, outputs, *weights.shape[1:]).astype(np.float64)
        accumulator = np.zeros((batch, tall, wide, self.groups, outputs))
        for a in range(self.window.size[0]):
            for b in range(self.window.size[1]):
                for g in range(self.groups):
                    part = taps[a, b, ..., g * inputs : (g + 1) * inputs]
                    accumulator[..., g, :] += part @ rows[g, :, a, b, :].T
        total = accumulator.reshape(self.output_shape).astype(np.int64) + bias
        return self.requantize.reference(total, *tables)


def read_window(graph: Graph, call: relax.Call) -> Window:
    """The window of an `nn.conv2d` call, in device layout."""
    attributes = call.attrs
    shape = graph.device_shape(call.args[0])
    if str(attributes.data_layout) != graph.layout or len(shape) != 4:
        raise CannotMatch(f"its data layout is {attributes.data_layout}")
    kernel_layout = str(attributes.kernel_layout)
    weight_shape = graph.shape(call.args[1])
    size = tuple(weight_shape[kernel_layout.index(axis)] for axis in "HW")
    padding = [int(pad) for pad in attributes.padding]
    if len(padding) == 2:
        padding = padding * 2
    strides = tuple(int(stride) for stride in attributes.strides)
    dilation = tuple(int(step) for step in attributes.dilation)
    return Window(shape, size, strides, tuple(padding), dilation)


def read_weights(call: relax.Call, values: np.ndarray, axes: str) -> np.ndarray:
    """Weights (or their scales) with their axes put in the order named, as "OHWI"."""
    kernel_layout = str(call.attrs.kernel_layout)
    return values.transpose([kernel_layout.index(axis) for axis in axes])


def match(graph: Graph, value: relax.Var) -> Match | None:
    """`nn.conv2d` of any kind; a depthwise one is taken earlier in the list by its own kernel."""
    layer = find_weighted(graph, value, "nn.conv2d")
    if layer is None:
        return None
    groups = int(layer.call.attrs.groups)
    window = read_window(graph, layer.call)
    weights = np.ascontiguousarray(read_weights(layer.call, layer.weights.values, "OHWI"))
    channels = weights.shape[0]
    scale = channel_scale(
        read_weights(layer.call, layer.weights.scale, "OHWI"), channels, axes=(0,)
    )
    constants = fold_constants(graph, layer, weights.reshape(channels, -1), scale, form="double")
    kernel = Conv2D(window, channels, groups, layer.x.zero_point, constants.requantize)
    return Match(kernel, (layer.x.value,), (weights, constants.bias, *constants.tables))
