"""Constant padding of an int8 tensor; real zero is the zero point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te, tirx

from edgecompress.lower.kernels.interface import CannotMatch, Match

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph


@dataclass(frozen=True)
class Pad:
    """Argument: x `shape` int8. `before` and `after` are elements added to each axis."""

    shape: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    fill: int
    op: str = "pad"
    macs: int = 0

    def compute(self, *tensors: Any) -> Any:
        (x,) = tensors
        axes = list(zip(self.shape, self.before, self.after, strict=True))

        def at(*index: Any) -> Any:
            conditions = [
                condition
                for position, (size, before, after) in zip(index, axes, strict=True)
                for condition, needed in (
                    (position >= before, before),
                    (position < size + before, after),
                )
                if needed
            ]
            source = [position - b for position, b in zip(index, self.before, strict=True)]
            fill = tirx.const(self.fill, "int8")
            return tirx.if_then_else(tirx.all(*conditions), x[tuple(source)], fill)

        if not any(self.before) and not any(self.after):
            return te.compute(self.shape, lambda *i: x[i], "output")
        return te.compute([sum(axis) for axis in axes], at, "output")

    def schedule(self, schedule: Any, function_name: str) -> None:
        pass

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        widths = list(zip(self.before, self.after, strict=True))
        return np.pad(arrays[0], widths, constant_values=self.fill)


def match(graph: Graph, value: relax.Var) -> Match | None:
    """quantize(nn.pad(dequantize(x))) with x's own scale.

    Raises:
        CannotMatch: the scale changes, or the padding is not constant.
    """
    output = graph.output(value)
    call = None if output is None else graph.call(output.source, "nn.pad")
    x = None if call is None else graph.activation(call.args[0])
    if output is None or call is None or x is None:
        return None
    if str(call.attrs.pad_mode) != "constant":
        raise CannotMatch(f"{call.attrs.pad_mode} padding; constant padding is supported")
    if (output.scale, output.zero_point) != (x.scale, x.zero_point):
        raise CannotMatch("padding must keep its input's scale and zero point")
    if (output.low, output.high) != (-128, 127):
        raise CannotMatch("an activation right after padding: put it before")
    fill = round(float(call.attrs.pad_value) / x.scale) + x.zero_point
    widths = [int(width) for width in call.attrs.pad_width]
    rank = len(widths) // 2
    before, after = [0] * rank, [0] * rank
    for axis in range(rank):
        device_axis = graph.device_axis(x.value, axis)
        before[device_axis], after[device_axis] = widths[2 * axis : 2 * axis + 2]
    shape = graph.device_shape(x.value)
    fill = int(np.clip(fill, -128, 127))
    return Match(Pad(shape, tuple(before), tuple(after), fill), (x.value,))
