"""Average pooling of int8 NHWC, rounding half away from zero as LiteRT does.

(TVM's own TFLite import truncates toward zero; the kernel goes by what the model means.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te, tirx

from edgecompress.lower.kernels.interface import Match
from edgecompress.lower.kernels.pooling import Window, find_pool, windows_of
from edgecompress.lower.kernels.requant import Requantize, make_requantize

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph


@dataclass(frozen=True)
class AveragePool2d:
    """Mean of each window over int8 values.

    Arguments: x [N, H, W, C] int8; then, with `requantize`, its tables indexed by the number of
    elements averaged.

    Attributes:
        count_include_pad: padding counts, as the real value 0; else it is left out of the mean.
        input_zero_point: the int8 value of real 0.
        requantize: None when input and output share scale and zero point.
    """

    window: Window
    count_include_pad: bool = False
    input_zero_point: int = 0
    low: int = -128
    high: int = 127
    requantize: Requantize | None = None
    op: str = "average_pool2d"

    @property
    def macs(self) -> int:
        return self.window.macs

    @property
    def _constant_count(self) -> bool:
        return self.count_include_pad or not any(self.window.padding)

    @property
    def _fill(self) -> int:
        """What padding adds: real zero when it counts, the number 0 when it does not."""
        return self.input_zero_point if self.count_include_pad else 0

    def compute(self, *tensors: Any) -> Any:
        x, *tables = tensors
        window = self.window
        row = te.reduce_axis((0, window.kernel[0]), "row")
        column = te.reduce_axis((0, window.kernel[1]), "column")
        padded = window.padded(x, self._fill)

        def total_at(n: Any, i: Any, j: Any, c: Any) -> Any:
            at = padded[n, i * window.strides[0] + row, j * window.strides[1] + column, c]
            return te.sum(at.astype("int32"), axis=[row, column])

        total = te.compute(window.output_shape, total_at, "total")

        def average(n: Any, i: Any, j: Any, c: Any) -> Any:
            value = total[n, i, j, c]
            count = tirx.const(window.size, "int32")
            if not self._constant_count:
                count = window.valid_count(i, j)
            if self.requantize is not None:
                centred = value - count * self.input_zero_point
                return self.requantize.compute(centred, tuple(tables), count)
            half = tirx.truncdiv(count, tirx.const(2, "int32"))
            rounded = tirx.truncdiv(value + tirx.Select(value > 0, half, -half), count)
            low, high = tirx.const(self.low, "int32"), tirx.const(self.high, "int32")
            return te.max(te.min(rounded, high), low).astype("int8")

        return te.compute(window.output_shape, average, "output")

    def schedule(self, schedule: Any, function_name: str) -> None:
        self.window.schedule(schedule, function_name, "total")

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        x, *tables = arrays
        windows = windows_of(x, self.window, self._fill)
        total = windows.sum((-2, -1), dtype=np.int32)
        count = np.int32(self.window.size)
        if not self._constant_count:
            count = self.window.valid_counts()[None, :, :, None]
        count = np.broadcast_to(count, total.shape)
        if self.requantize is not None:
            centred = total - count * np.int32(self.input_zero_point)
            return self.requantize.reference(centred, *(table[count] for table in tables))
        magnitude = (np.abs(total) + count // 2) // count
        return np.clip(np.sign(total) * magnitude, self.low, self.high).astype(np.int8)


def match(graph: Graph, value: relax.Var) -> Match | None:
    """avg_pool2d on the integers (TFLite), or between dequantize and quantize (ONNX).

    Raises:
        CannotMatch: a window no kernel takes (see `pooling.find_pool`).
    """
    pool = find_pool(graph, value, "nn.avg_pool2d")
    if pool is None:
        return None
    common = (pool.window, pool.count_include_pad, pool.input_zero_point, pool.low, pool.high)
    if pool.same_parameters:
        return Match(AveragePool2d(*common), (pool.x,))
    # entry n is for a mean of n elements; entry 0 is never read
    counts = np.maximum(np.arange(pool.window.size + 1), 1)
    requantize, tables = make_requantize(
        pool.input_scale / pool.output_scale / counts,
        form="smmla" if graph.requantize == "smmla" else "double",
        zero_point=pool.output_zero_point,
        low=pool.low,
        high=pool.high,
        accumulator_bound=256 * pool.window.size,
    )
    return Match(AveragePool2d(*common, requantize=requantize), (pool.x,), tables)
