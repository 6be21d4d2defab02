"""One step of a sequence: a row of [1, time, features]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te

from edgecompress.lower.kernels.interface import CannotMatch, Match

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph


@dataclass(frozen=True)
class Select:
    """y[0, f] = x[0, step, f]. Argument: x int8 [1, time, features]; output [1, features]."""

    shape: tuple[int, ...]
    step: int
    op: str = "select"
    macs: int = 0

    def compute(self, *tensors: Any) -> Any:
        (x,) = tensors
        return te.compute((1, self.shape[2]), lambda n, f: x[n, self.step, f], "output")

    def schedule(self, schedule: Any, function_name: str) -> None:
        pass

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(arrays[0][:, self.step])


def match(graph: Graph, value: relax.Var) -> Match | None:
    """quantize(reshape(strided_slice(dequantize(x)))): one row, with x's own scale.

    Raises:
        CannotMatch: more than one row, another axis, or a change of scale.
    """
    output = graph.output(value)
    reshape = None if output is None else graph.call(output.source, "reshape")
    call = None if reshape is None else graph.call(reshape.args[0], "strided_slice")
    x = None if call is None else graph.activation(call.args[0])
    if output is None or call is None or x is None:
        return None
    shape = graph.device_shape(x.value)
    axes, begin, end = (_integers(argument) for argument in call.args[1:4])
    if len(shape) != 3 or axes != [1] or end[0] - begin[0] != 1 or begin[0] < 0:
        raise CannotMatch(f"a slice of {shape}; only one step of [1, time, features] is supported")
    if (output.scale, output.zero_point, output.low, output.high) != (
        x.scale, x.zero_point, -128, 127,
    ):  # fmt: skip
        raise CannotMatch("a selection must keep its input's scale and zero point")
    return Match(Select(shape, begin[0]), (x.value,))


def _integers(argument: relax.Expr) -> list[int]:
    """The numbers of a tuple of literals."""
    return [int(getattr(field, "value", field)) for field in argument.fields]
