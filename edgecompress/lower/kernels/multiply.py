"""Elementwise product of two int8 tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te

from edgecompress.lower.kernels.elementwise import broadcast_index, find_pair, in_place_operands
from edgecompress.lower.kernels.interface import Match
from edgecompress.lower.kernels.requant import Requantize, make_requantize
from edgecompress.lower.program import Overlap

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph


@dataclass(frozen=True)
class Multiply:
    """Arguments: x `shape` int8, y `other_shape` int8 (broadcast), then requantize's tables [1]."""

    shape: tuple[int, ...]
    other_shape: tuple[int, ...]
    zero_points: tuple[int, int]
    requantize: Requantize
    op: str = "multiply"

    @property
    def macs(self) -> int:
        return int(np.prod(self.shape))

    @property
    def overlaps(self) -> tuple[Overlap, ...]:
        return in_place_operands(self.shape, self.other_shape)

    def compute(self, *tensors: Any) -> Any:
        x, y, *tables = tensors

        def product(*index: Any) -> Any:
            other = y[broadcast_index(index, self.other_shape)].astype("int32")
            return (x[index].astype("int32") - self.zero_points[0]) * (other - self.zero_points[1])

        # a stage of its own: else TIR pushes the 64-bit cast into the subtraction
        products = te.compute(self.shape, product, "product")
        return te.compute(
            self.shape,
            lambda *i: self.requantize.compute(products[i], tuple(tables), 0),
            "output",
        )

    def schedule(self, schedule: Any, function_name: str) -> None:
        output = schedule.get_sblock("output", func_name=function_name)
        product = schedule.get_sblock("product", func_name=function_name)
        schedule.compute_at(product, schedule.get_loops(output)[-1])

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        x, y, *tables = arrays
        product = (x.astype(np.int32) - self.zero_points[0]) * (
            y.astype(np.int32) - self.zero_points[1]
        )
        return self.requantize.reference(product, *tables)


def match(graph: Graph, value: relax.Var) -> Match | None:
    """quantize(activation?(dequantize(x) * dequantize(y))), y an activation or a constant.

    Raises:
        CannotMatch: see `elementwise.find_pair`.
    """
    pair = find_pair(graph, value, "multiply")
    if pair is None:
        return None
    output = pair.output
    # in float32, as LiteRT computes it
    scales = np.array([pair.first.scale, pair.second.scale, output.scale], np.float32)
    requantize, tables = make_requantize(
        np.array([scales[0] * scales[1] / scales[2]], np.float64),
        form="smmla" if graph.requantize == "smmla" else "double",
        zero_point=output.zero_point,
        low=output.low,
        high=output.high,
        accumulator_bound=255 * 255,
    )
    zero_points = (pair.first.zero_point, pair.second.zero_point)
    kernel = Multiply(pair.shape, pair.second.shape, zero_points, requantize)
    return Match(kernel, pair.inputs, (*pair.constants, *tables))
