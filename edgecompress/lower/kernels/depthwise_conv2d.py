"""int8 depthwise 2-D convolution: each input channel has its own `multiplier` filters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te, tirx

from edgecompress.lower.kernels.conv2d import Window, read_weights, read_window
from edgecompress.lower.kernels.interface import Match
from edgecompress.lower.kernels.loops import tile_output_channels, tile_width
from edgecompress.lower.kernels.requant import Requantize
from edgecompress.lower.kernels.weighted import channel_scale, find_weighted, fold_constants
from edgecompress.lower.program import Overlap

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph


@dataclass(frozen=True)
class DepthwiseConv2D:
    """y[n,i,j,o] = requantize(bias[o] + sum x[n, i*s+a*d, j*s+b*d, o / multiplier] * w[a,b,o]).

    Arguments: x int8 [N, H, W, C]; weights int8 [kh, kw, C * multiplier]; bias int32
    [C * multiplier] with the input zero point folded in; the requantization tables. Output int8
    [N, OH, OW, C * multiplier]. Weights lie channel last: neighbours in memory, like the input.
    """

    window: Window
    multiplier: int
    input_zero_point: int
    requantize: Requantize
    op: str = "depthwise_conv2d"

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        batch, _, _, channels = self.window.input_shape
        return (batch, *self.window.output_size, channels * self.multiplier)

    @property
    def macs(self) -> int:
        return int(np.prod(self.output_shape)) * self.window.size[0] * self.window.size[1]

    @property
    def overlaps(self) -> tuple[Overlap, ...]:
        if self.window.input_shape[0] != 1:
            return ()
        return (Overlap(0, self.window.overlap_distance(self.output_shape[-1])),)

    def compute(self, x: Any, weights: Any, bias: Any, *tables: Any) -> Any:
        window = self.window
        (row_stride, column_stride), (row_step, column_step) = window.strides, window.dilation
        padded = window.padded(x, self.input_zero_point)
        a = te.reduce_axis((0, window.size[0]), "kernel_row")
        b = te.reduce_axis((0, window.size[1]), "kernel_column")

        def accumulate(n: Any, i: Any, j: Any, o: Any) -> Any:
            channel = o if self.multiplier == 1 else tirx.floordiv(o, self.multiplier)
            value = padded[
                n, i * row_stride + a * row_step, j * column_stride + b * column_step, channel
            ]
            return te.sum(value.astype("int32") * weights[a, b, o].astype("int32"), [a, b])

        shape = self.output_shape
        accumulator = te.compute(shape, accumulate, name="accumulator")
        # its own stage: otherwise the cast to int64 is pushed through the addition
        biased = te.compute(shape, lambda *at: accumulator(*at) + bias[at[-1]], name="biased")
        return te.compute(
            shape,
            lambda *at: self.requantize.compute(biased(*at), tables, at[-1]),
            name="output",
        )

    def schedule(self, schedule: Any, function_name: str) -> None:
        tile_output_channels(schedule, function_name, tile_width(self.output_shape[-1]))

    def reference(
        self, x: np.ndarray, weights: np.ndarray, bias: np.ndarray, *tables: np.ndarray
    ) -> np.ndarray:
        taps = self.window.taps(x, self.input_zero_point).astype(np.int64)
        spread = np.repeat(taps, self.multiplier, axis=-1)
        total = (spread * weights[:, :, None, None, None, :].astype(np.int64)).sum((0, 1)) + bias
        return self.requantize.reference(total, *tables)


def match(graph: Graph, value: relax.Var) -> Match | None:
    """`nn.conv2d` whose group count is its input channel count.

    With one input channel that is an ordinary convolution, unless TFLite's importer (HWOI) wrote
    a depthwise one.
    """
    layer = find_weighted(graph, value, "nn.conv2d")
    if layer is None:
        return None
    groups, window = int(layer.call.attrs.groups), read_window(graph, layer.call)
    inputs = window.input_shape[3]
    channel_first = str(layer.call.attrs.kernel_layout) != "HWOI"
    if groups != inputs or (groups == 1 and channel_first):
        return None
    if not channel_first:
        # TFLite's importer writes [H, W, C, multiplier]: output channel = c * multiplier + m
        weights, scale = layer.weights.values, layer.weights.scale
    else:
        weights = read_weights(layer.call, layer.weights.values, "HWOI")
        scale = read_weights(layer.call, layer.weights.scale, "HWOI")
    tall, wide = window.size
    weights = np.ascontiguousarray(weights.reshape(tall, wide, -1))
    channels = weights.shape[2]
    scale = channel_scale(scale.reshape(tall, wide, channels), channels, axes=(2,))
    rows = weights.reshape(tall * wide, channels).T
    constants = fold_constants(graph, layer, rows, scale, form="double")
    kernel = DepthwiseConv2D(window, channels // inputs, layer.x.zero_point, constants.requantize)
    return Match(kernel, (layer.x.value,), (weights, constants.bias, *constants.tables))
