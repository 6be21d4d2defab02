"""What the two poolings share: the window, its loops, and how it is found in a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te, tirx

from edgecompress.lower.kernels.interface import CannotMatch

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph


@dataclass(frozen=True)
class Window:
    """A pooling window over [N, H, W, C]. `padding` is (top, left, bottom, right)."""

    input_shape: tuple[int, int, int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        batch, height, width, channels = self.input_shape
        top, left, bottom, right = self.padding
        rows = (height + top + bottom - self.kernel[0]) // self.strides[0] + 1
        columns = (width + left + right - self.kernel[1]) // self.strides[1] + 1
        return batch, rows, columns, channels

    @property
    def size(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def macs(self) -> int:
        """Additions of a sum over every window."""
        return int(np.prod(self.output_shape)) * self.size

    def padded(self, x: Any, fill: int) -> Any:
        """TE stage `padded`, to be inlined; x itself when there is no padding."""
        if not any(self.padding):
            return x
        batch, height, width, channels = self.input_shape
        top, left, bottom, right = self.padding

        def at(n: Any, i: Any, j: Any, c: Any) -> Any:
            inside = tirx.all(i >= top, i < height + top, j >= left, j < width + left)
            return tirx.if_then_else(inside, x[n, i - top, j - left, c], tirx.const(fill, "int8"))

        return te.compute(
            (batch, height + top + bottom, width + left + right, channels), at, "padded"
        )

    def valid_count(self, row: Any, column: Any) -> Any:
        """How many elements of a window's window lie inside the input (TE int32)."""
        counts = [
            te.min(start + kernel, tirx.const(extent, "int32")) - te.max(start, tirx.const(0))
            for start, kernel, extent in (
                (row * self.strides[0] - self.padding[0], self.kernel[0], self.input_shape[1]),
                (column * self.strides[1] - self.padding[1], self.kernel[1], self.input_shape[2]),
            )
        ]
        return counts[0] * counts[1]

    def valid_counts(self) -> np.ndarray:
        """[rows, columns] int32: the same in numpy."""
        _, rows, columns, _ = self.output_shape
        along = []
        for axis, count in enumerate((rows, columns)):
            start = np.arange(count) * self.strides[axis] - self.padding[axis]
            end = np.minimum(start + self.kernel[axis], self.input_shape[1 + axis])
            along.append((end - np.maximum(start, 0)).astype(np.int32))
        return np.outer(along[0], along[1])

    def schedule(self, schedule: Any, function_name: str, reduction: str) -> None:
        """The window's reduction inside the output loop: its accumulator is one register."""
        children = schedule.get_child_blocks(schedule.get_sblock("root", func_name=function_name))
        names = [schedule.get(child).name_hint for child in children]
        if "padded" in names:
            schedule.compute_inline(schedule.get_sblock("padded", func_name=function_name))
        output = schedule.get_sblock("output", func_name=function_name)
        innermost = schedule.get_loops(output)[-1]
        schedule.compute_at(schedule.get_sblock(reduction, func_name=function_name), innermost)


def windows_of(x: np.ndarray, window: Window, fill: int) -> np.ndarray:
    """[N, rows, columns, C, kernel rows, kernel columns] view of x padded with `fill`; any N."""
    top, left, bottom, right = window.padding
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(padded, window.kernel, axis=(1, 2))
    return view[:, :: window.strides[0], :: window.strides[1]]


@dataclass(frozen=True)
class Pool:
    """A pooling call found in a graph, its parameters in int8 terms."""

    window: Window
    x: relax.Var
    count_include_pad: bool
    input_scale: float
    input_zero_point: int
    output_scale: float
    output_zero_point: int
    low: int
    high: int

    @property
    def same_parameters(self) -> bool:
        same_scale = abs(self.input_scale - self.output_scale) <= 1e-6 * self.output_scale
        return same_scale and self.input_zero_point == self.output_zero_point


def find_pool(graph: Graph, value: relax.Var, op: str) -> Pool | None:
    """The pooling `op` behind an int8 value, in either importer's form; else None.

    TFLite: clip?(astype?(pool(astype?(x)))) on the integers, which share scale and zero point.
    ONNX: quantize(pool(dequantize(x))).

    Raises:
        CannotMatch: a dilated window.
    """
    output = graph.output(value)
    if output is not None:
        call = graph.call(output.source, op)
        x = None if call is None else graph.activation(call.args[0])
        if call is None or x is None:
            return None
        return Pool(
            _window(graph, call), x.value, bool(call.attrs.count_include_pad),
            x.scale, x.zero_point, output.scale, output.zero_point, output.low, output.high,
        )  # fmt: skip
    low, high, inner = -128, 127, value
    if (clip := graph.call(inner, "clip")) is not None:
        least, most = graph.scalar(clip.args[1]), graph.scalar(clip.args[2])
        if least is None or most is None:
            return None
        low, high, inner = int(least), int(most), clip.args[0]
    inner = _through_astype(graph, inner)
    call = graph.call(inner, op)
    if call is None:
        return None
    x = graph.root(_through_astype(graph, call.args[0]))
    if graph.dtype(x) != "int8":
        return None
    include = bool(call.attrs.count_include_pad)
    return Pool(_window(graph, call), x, include, 1.0, 0, 1.0, 0, low, high)


def _through_astype(graph: Graph, expression: relax.Expr) -> relax.Expr:
    cast = graph.call(expression, "astype")
    return expression if cast is None else cast.args[0]


def _window(graph: Graph, call: relax.Call) -> Window:
    attributes = call.attrs
    if any(int(step) != 1 for step in attributes.dilation):
        raise CannotMatch("a dilated pooling window")
    kernel_rows, kernel_columns = (int(size) for size in attributes.pool_size)
    row_stride, column_stride = (int(size) for size in attributes.strides)
    top, left, bottom, right = (int(size) for size in attributes.padding)
    batch, height, width, channels = graph.device_shape(call.args[0])
    sizes = [int(size) for size in call.ty.shape.values]
    rows, columns = sizes[1:3] if graph.layout == "NHWC" else sizes[2:4]
    # ceil_mode: as much more padding at the end as the last window needs
    more_rows = max(0, (rows - 1) * row_stride + kernel_rows - height - top - bottom)
    more_columns = max(0, (columns - 1) * column_stride + kernel_columns - width - left - right)
    if attributes.count_include_pad and (more_rows or more_columns):
        raise CannotMatch("average pooling with both ceil_mode and count_include_pad")
    return Window(
        (batch, height, width, channels),
        (kernel_rows, kernel_columns),
        (row_stride, column_stride),
        (top, left, bottom + more_rows, right + more_columns),
    )
