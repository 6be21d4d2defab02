"""Reordering axes of an int8 tensor: also NHWC to the NCHW order a source's flatten meant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te

from edgecompress.lower.kernels.interface import CannotMatch, Match

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph


@dataclass(frozen=True)
class Transpose:
    """y[i0, ...] = x[...] with y's axis k being x's axis axes[k]. Argument: x `shape` int8."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    op: str = "transpose"
    macs: int = 0

    def compute(self, *tensors: Any) -> Any:
        (x,) = tensors

        def at(*index: Any) -> Any:
            source = [index[self.axes.index(axis)] for axis in range(len(self.shape))]
            return x[tuple(source)]

        return te.compute([self.shape[axis] for axis in self.axes], at, "output")

    def schedule(self, schedule: Any, function_name: str) -> None:
        pass

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(arrays[0].transpose(self.axes))


def match(graph: Graph, value: relax.Var) -> Match | None:
    """quantize(permute_dims(dequantize(x))) with x's own scale.

    Raises:
        CannotMatch: the scale changes.
    """
    output = graph.output(value)
    call = None if output is None else graph.call(output.source, "permute_dims")
    x = None if call is None else graph.activation(call.args[0])
    if output is None or call is None or x is None:
        return None
    if (output.scale, output.zero_point) != (x.scale, x.zero_point):
        raise CannotMatch("a transpose must keep its input's scale and zero point")
    if (output.low, output.high) != (-128, 127):
        raise CannotMatch("an activation right after a transpose: put it before")
    rank = len(graph.shape(x.value))
    source_axes = [int(axis) for axis in call.attrs.axes or reversed(range(rank))]
    order = (0, 2, 3, 1) if graph.is_image(value) else range(rank)
    axes = tuple(graph.device_axis(x.value, source_axes[axis]) for axis in order)
    return Match(Transpose(graph.device_shape(x.value), axes), (x.value,))
