"""Product of two int8 activations, batched; a product with constant weights is `dense`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te

from edgecompress.lower.kernels.interface import CannotMatch, Match
from edgecompress.lower.kernels.requant import Requantize, make_requantize

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph


@dataclass(frozen=True)
class Matmul:
    """y = (a - za) @ (b - zb), requantized.

    Arguments: a [..., M, K] int8, b [..., K, N] int8 with the same leading axes, then
    requantize's tables [1].
    """

    batch: tuple[int, ...]
    rows: int
    inner: int
    columns: int
    zero_points: tuple[int, int]
    requantize: Requantize
    op: str = "matmul"

    @property
    def macs(self) -> int:
        return int(np.prod(self.batch, dtype=np.int64)) * self.rows * self.inner * self.columns

    def compute(self, *tensors: Any) -> Any:
        a, b, *tables = tensors
        shape = (*self.batch, self.rows, self.columns)
        k = te.reduce_axis((0, self.inner), "k")

        def product(*index: Any) -> Any:
            *batch, row, column = index
            left = a[(*batch, row, k)].astype("int32") - self.zero_points[0]
            right = b[(*batch, k, column)].astype("int32") - self.zero_points[1]
            return te.sum(left * right, axis=[k])

        accumulator = te.compute(shape, product, "accumulator")
        return te.compute(
            shape,
            lambda *i: self.requantize.compute(accumulator[i], tuple(tables), 0),
            "output",
        )

    def schedule(self, schedule: Any, function_name: str) -> None:
        output = schedule.get_sblock("output", func_name=function_name)
        accumulator = schedule.get_sblock("accumulator", func_name=function_name)
        schedule.compute_at(accumulator, schedule.get_loops(output)[-1])

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        a, b, *tables = arrays
        left = a.astype(np.int32) - self.zero_points[0]
        right = b.astype(np.int32) - self.zero_points[1]
        return self.requantize.reference(left @ right, *tables)


def match(graph: Graph, value: relax.Var) -> Match | None:
    """quantize(activation?(matmul(dequantize(a), dequantize(b)))), both activations.

    Raises:
        CannotMatch: leading axes differ, or 4-D operands whose device order is not the source's.
    """
    output = graph.output(value)
    call = None if output is None else graph.call(output.source, "matmul")
    if output is None or call is None:
        return None
    a, b = (graph.activation(argument) for argument in call.args)
    if a is None or b is None:
        return None
    if graph.is_image(a.value):
        raise CannotMatch("a product of two 4-D activations: fold two leading axes into one")
    a_shape, b_shape = graph.device_shape(a.value), graph.device_shape(b.value)
    if a_shape[:-2] != b_shape[:-2] or min(len(a_shape), len(b_shape)) < 2:
        raise CannotMatch(f"a product of activations {a_shape} and {b_shape}")
    requantize, tables = make_requantize(
        np.array([a.scale * b.scale / output.scale]),
        form="smmla" if graph.requantize == "smmla" else "single",
        zero_point=output.zero_point,
        low=output.low,
        high=output.high,
        accumulator_bound=255 * 255 * a_shape[-1],
    )
    kernel = Matmul(
        a_shape[:-2],
        a_shape[-2],
        a_shape[-1],
        b_shape[-1],
        (a.zero_point, b.zero_point),
        requantize,
    )
    return Match(kernel, (a.value, b.value), tables)
