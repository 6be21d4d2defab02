"""Max pooling of int8 NHWC: a maximum needs no requantization, its scale stays the input's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te, tirx

from edgecompress.lower.kernels.interface import CannotMatch, Match
from edgecompress.lower.kernels.pooling import Window, find_pool, windows_of

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph


@dataclass(frozen=True)
class MaxPool2d:
    """Maximum over each window, padding left out, clamped to [low, high].

    Argument: x [N, H, W, C] int8.
    """

    window: Window
    low: int = -128
    high: int = 127
    op: str = "max_pool2d"
    macs: int = 0

    def compute(self, *tensors: Any) -> Any:
        (x,) = tensors
        window = self.window
        row = te.reduce_axis((0, window.kernel[0]), "row")
        column = te.reduce_axis((0, window.kernel[1]), "column")
        # -128 is the least int8: padding never wins
        padded = window.padded(x, -128)

        def largest(n: Any, i: Any, j: Any, c: Any) -> Any:
            at = padded[n, i * window.strides[0] + row, j * window.strides[1] + column, c]
            return te.max(at, axis=[row, column])

        pooled = te.compute(window.output_shape, largest, "pooled")
        low, high = tirx.const(self.low, "int8"), tirx.const(self.high, "int8")
        return te.compute(
            window.output_shape, lambda *i: te.max(te.min(pooled[i], high), low), "output"
        )

    def schedule(self, schedule: Any, function_name: str) -> None:
        self.window.schedule(schedule, function_name, "pooled")

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        pooled = windows_of(arrays[0], self.window, -128).max((-2, -1))
        return np.clip(pooled, self.low, self.high)


def match(graph: Graph, value: relax.Var) -> Match | None:
    """max_pool2d on int8 itself (TFLite), or between dequantize and quantize (ONNX).

    Raises:
        CannotMatch: input and output scales differ.
    """
    pool = find_pool(graph, value, "nn.max_pool2d")
    if pool is None:
        return None
    if not pool.same_parameters:
        raise CannotMatch("max pooling must keep its input's scale and zero point")
    return Match(MaxPool2d(pool.window, pool.low, pool.high), (pool.x,))
