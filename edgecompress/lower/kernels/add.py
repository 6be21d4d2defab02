"""Sum of two int8 tensors of different scales, as in a residual connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te, tirx

from edgecompress.lower.kernels import fixed_point
from edgecompress.lower.kernels.elementwise import broadcast_index, find_pair, in_place_operands
from edgecompress.lower.kernels.interface import CannotMatch, Match
from edgecompress.lower.program import Overlap

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph

# LiteRT lifts each centred operand by 2^20 before its first multiplication
_LITERT_LEFT_SHIFT = 20


@dataclass(frozen=True)
class SingleRounding:
    """(x * factor0 + y * factor1 + offset) >> shift: 32-bit arithmetic, rounded half up once.

    The zero points and the half are folded into `offset`.
    """

    factors: tuple[int, int]
    offset: int
    shift: int

    def apply(self, x: Any, y: Any) -> Any:
        return (x * self.factors[0] + y * self.factors[1] + self.offset) >> self.shift


@dataclass(frozen=True)
class LitertRounding:
    """LiteRT's reference Add: each operand onto a common scale, summed, then rescaled.

    `mantissas` and `exponents` are of operand 0, operand 1 and the output.
    """

    zero_points: tuple[int, int, int]
    mantissas: tuple[int, int, int]
    exponents: tuple[int, int, int]

    def apply(self, x: Any, y: Any) -> Any:
        raw = [
            self._scaled((operand - self.zero_points[k]) << _LITERT_LEFT_SHIFT, k)
            for k, operand in enumerate((x, y))
        ]
        return self._scaled(raw[0] + raw[1], 2) + self.zero_points[2]

    def _scaled(self, value: Any, which: int) -> Any:
        return fixed_point.multiply_by_quantized_multiplier(
            value, self.mantissas[which], self.exponents[which]
        )


@dataclass(frozen=True)
class Add:
    """Arguments: x `shape` int8, y `other_shape` int8 (broadcast as numpy does)."""

    shape: tuple[int, ...]
    other_shape: tuple[int, ...]
    rounding: SingleRounding | LitertRounding
    low: int = -128
    high: int = 127
    op: str = "add"
    macs: int = 0

    @property
    def overlaps(self) -> tuple[Overlap, ...]:
        """Element by element, each read before it is written: in place over either operand."""
        return in_place_operands(self.shape, self.other_shape)

    def compute(self, *tensors: Any) -> Any:
        x, y = tensors

        def at(*index: Any) -> Any:
            return self.of_values(x[index], y[broadcast_index(index, self.other_shape)])

        return te.compute(self.shape, at, "output")

    def of_values(self, x: Any, y: Any) -> Any:
        """TE int8 sum of two int8 values."""
        low, high = tirx.const(self.low, "int32"), tirx.const(self.high, "int32")
        value = self.rounding.apply(x.astype("int32"), y.astype("int32"))
        return te.max(te.min(value, high), low).astype("int8")

    def schedule(self, schedule: Any, function_name: str) -> None:
        if self.shape == self.other_shape:
            output = schedule.get_sblock("output", func_name=function_name)
            schedule.fuse(*schedule.get_loops(output))

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        x, y = (array.astype(np.int32) for array in arrays)
        return np.clip(self.rounding.apply(x, y), self.low, self.high).astype(np.int8)


def single_rounding(
    scales: tuple[float, float, float], zero_points: tuple[int, int, int]
) -> SingleRounding:
    """The most precise shift for which no 32-bit sum can overflow.

    Args:
        scales, zero_points: of operand 0, operand 1 and the output.

    Raises:
        CannotMatch: an operand's scale is so much larger than the output's that 32 bits are
            too few.
    """
    ratios = [scale / scales[2] for scale in scales[:2]]
    for shift in range(24, 0, -1):
        first, second = (round(ratio * 2.0**shift) for ratio in ratios)
        offset = (zero_points[2] << shift) + (1 << (shift - 1))
        offset -= zero_points[0] * first + zero_points[1] * second
        if 128 * (first + second) + abs(offset) < 2**31:
            return SingleRounding((first, second), offset, shift)
    raise CannotMatch(
        f"add: operand scales {scales[0]:.4g} and {scales[1]:.4g} are too large for the output's "
        f"{scales[2]:.4g}"
    )


def litert_rounding(
    scales: tuple[float, float, float], zero_points: tuple[int, int, int]
) -> LitertRounding:
    """LiteRT's parameters for the same arguments as `single_rounding`."""
    twice_largest = 2 * max(scales[0], scales[1])
    reals = [
        scales[0] / twice_largest,
        scales[1] / twice_largest,
        twice_largest / ((1 << _LITERT_LEFT_SHIFT) * scales[2]),
    ]
    mantissas, exponents = fixed_point.quantize_multiplier(np.array(reals))
    first, second, third = (int(mantissa) for mantissa in mantissas)
    return LitertRounding(
        zero_points, (first, second, third), tuple(int(exponent) for exponent in exponents)
    )


def match(graph: Graph, value: relax.Var) -> Match | None:
    """quantize(activation?(dequantize(x) + dequantize(y))), y an activation or a constant.

    Raises:
        CannotMatch: see `elementwise.find_pair` and `single_rounding`.
    """
    pair = find_pair(graph, value, "add")
    if pair is None:
        return None
    output = pair.output
    scales = (pair.first.scale, pair.second.scale, output.scale)
    zero_points = (pair.first.zero_point, pair.second.zero_point, output.zero_point)
    choose = single_rounding if graph.requantize == "smmla" else litert_rounding
    kernel = Add(
        pair.shape, pair.second.shape, choose(scales, zero_points), output.low, output.high
    )
    return Match(kernel, pair.inputs, pair.constants)
