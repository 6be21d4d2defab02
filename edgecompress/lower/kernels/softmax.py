"""Softmax over the last axis, bit for bit LiteRT's int8 reference in both requantize modes.

LiteRT evaluates gemmlowp's exp polynomial for each element. An int8 row has at most 256 distinct
distances from its maximum, so here the same exp values come from a table made at compile time:
one table read, one 64-bit multiply an element, one division-free reciprocal a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te, tirx

from edgecompress.lower.kernels import fixed_point
from edgecompress.lower.kernels.interface import CannotMatch, Match
from edgecompress.lower.kernels.lookup import requantize_table

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph

# softmax's output is a probability: LiteRT and the QDQ writer both fix its int8 form
OUTPUT_SCALE = 1 / 256
OUTPUT_ZERO_POINT = -128

_INPUT_INTEGER_BITS = 5
_SUM_INTEGER_BITS = 12
_SUM_FRACTION_BITS = 31 - _SUM_INTEGER_BITS


def exponential_table(input_scale: float) -> np.ndarray:
    """[256] int32: exp(-distance * input_scale) in Q0.31 for distance = row maximum - value.

    Zero where LiteRT leaves an element out (`diff_min`).
    """
    real = min(input_scale * 2.0 ** (31 - _INPUT_INTEGER_BITS), 2.0**31 - 1)
    mantissa, exponent = fixed_point.quantize_multiplier(real)
    left_shift = max(int(exponent), 0)
    difference = -np.arange(256, dtype=np.int64)
    kept = difference >= -fixed_point.input_radius(_INPUT_INTEGER_BITS, left_shift)
    shifted = np.where(kept, difference << left_shift, 0).astype(np.int32)
    rescaled = fixed_point.multiply_by_quantized_multiplier(
        shifted, int(mantissa), min(int(exponent), 0)
    )
    return np.where(kept, fixed_point.exp_of_negative(rescaled, _INPUT_INTEGER_BITS), 0).astype(
        np.int32
    )


def _to_sum_format(exponential: Any) -> Any:
    """Q0.31 to Q12.19, rounded; never overflows, unlike adding the half first."""
    return ((exponential >> (_SUM_INTEGER_BITS - 1)) + 1) >> 1


def _fraction(total: Any, leading_zeros: Any) -> Any:
    """total / (its highest power of two) - 1 in Q0.31, never shifting a bit into the sign."""
    return ((total << (leading_zeros - 1)) & 0x3FFFFFFF) << 1


@dataclass(frozen=True)
class Softmax:
    """Softmax of [..., K] int8 with output scale 1/256, zero point -128.

    Arguments in order: x [..., K] int8, exponential_table(scale) [256] int32; with `rescaled` a
    table [256] int8 from scale 1/256 to the output's own.
    """

    shape: tuple[int, ...]
    rescaled: bool = False
    op: str = "softmax"
    macs: int = 0

    def compute(self, *tensors: Any) -> Any:
        """A chain of one-element stages a row; the scheduler keeps them in registers."""
        x, table, *output_table = tensors
        rows, length = self.shape[:-1], self.shape[-1]
        channel, element = (te.reduce_axis((0, length), name) for name in ("channel", "element"))
        largest = te.compute(
            rows, lambda *r: te.max(x[(*r, channel)].astype("int32"), axis=[channel]), "largest"
        )
        total = te.compute(
            rows,
            lambda *r: te.sum(
                _to_sum_format(table[largest[r] - x[(*r, element)].astype("int32")]),
                axis=[element],
            ),
            "total",
        )
        zeros = te.compute(rows, lambda *r: tirx.clz(total[r]).astype("int32"), "zeros")
        half = te.compute(
            rows,
            lambda *r: fixed_point.half_of_one_plus(_fraction(total[r], zeros[r])),
            "half",
        )
        scale = self._newton(rows, half)

        def output(*index: Any) -> Any:
            row = index[:-1]
            exponential = table[largest[row] - x[index].astype("int32")]
            product = fixed_point.doubling_high_multiply(exponential, scale[row])
            # at least 22, as the total holds exp(0); said aloud, or TIR takes the shift for any
            # number, even a negative one, and proves the final minimum away
            shift = tirx.max(tirx.min(_SUM_INTEGER_BITS + 22 - zeros[row], 31), 22)
            rounded = ((product >> shift) + 1) >> 1
            if self.rescaled:
                return output_table[0][tirx.min(rounded, 255)]
            return tirx.min(rounded + OUTPUT_ZERO_POINT, 127).astype("int8")

        return te.compute(self.shape, output, "y")

    def _newton(self, rows: tuple[int, ...], half: Any) -> Any:
        """1 / (2 half) in Q0.31; a stage a value, because TIR would copy shared expressions."""
        multiply = fixed_point.doubling_high_multiply

        def stage(formula: Any, name: str) -> Any:
            return te.compute(rows, lambda *row: formula(row), name)

        def step(guess: Any, number: int) -> Any:
            error = stage(lambda r: (1 << 29) - multiply(half[r], guess[r]), f"error{number}")
            return stage(
                lambda r: guess[r] + (multiply(guess[r], error[r]) << 2), f"guess{number + 1}"
            )

        slope, start = fixed_point.NEWTON_SLOPE, fixed_point.NEWTON_START
        guess = stage(lambda r: multiply(half[r], slope) + start, "guess0")
        for number in range(3):
            guess = step(guess, number)
        # Saturates: the reciprocal of exactly one is 2^31 in Q0.31. Not min(x, 2^30 - 1) * 2, in
        # which TIR would move the multiplication inside and overflow.
        most = tirx.const(fixed_point.INT32_MAX, "int32")
        return stage(lambda r: tirx.Select(guess[r] >= 2**30, most, guess[r] << 1), "scale")

    def schedule(self, schedule: Any, function_name: str) -> None:
        """All stages of a row inside the row's loop, so scratch is one value a stage."""
        output = schedule.get_sblock("y", func_name=function_name)
        loops = schedule.get_loops(output)
        row_loop = schedule.fuse(*loops[:-1]) if len(loops) > 2 else loops[0]
        stages = ["scale"]
        for step in (2, 1, 0):
            stages += [f"guess{step + 1}", f"error{step}"]
        for name in [*stages, "guess0", "half", "zeros", "total", "largest"]:
            schedule.compute_at(schedule.get_sblock(name, func_name=function_name), row_loop)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        x, table, *output_table = arrays
        wide = x.astype(np.int32)
        exponential = table[wide.max(-1, keepdims=True) - wide]
        total = _to_sum_format(exponential).sum(-1, keepdims=True, dtype=np.int32)
        zeros = 32 - np.frexp(total.astype(np.float64))[1].astype(np.int32)
        scale = fixed_point.reciprocal_of_one_plus(_fraction(total, zeros))
        product = fixed_point.doubling_high_multiply(exponential, scale)
        shift = np.minimum(_SUM_INTEGER_BITS + 22 - zeros, 31)
        rounded = ((product >> shift) + 1) >> 1
        if self.rescaled:
            return output_table[0][np.minimum(rounded, 255)]
        return np.minimum(rounded + OUTPUT_ZERO_POINT, 127).astype(np.int8)


def match(graph: Graph, value: relax.Var) -> Match | None:
    """quantize(softmax(dequantize(x))); other output parameters than LiteRT's cost a table.

    Raises:
        CannotMatch: an axis that is not the device's last.
    """
    output = graph.output(value)
    call = None if output is None else graph.call(output.source, "nn.softmax")
    x = None if call is None else graph.activation(call.args[0])
    if output is None or call is None or x is None:
        return None
    shape = graph.device_shape(value)
    if graph.device_axis(call.args[0], int(call.attrs.axis)) != len(shape) - 1:
        raise CannotMatch("softmax is supported over the last (channel) axis only")
    tables = [exponential_table(x.scale)]
    exact = abs(output.scale - OUTPUT_SCALE) < 1e-9 and output.zero_point == OUTPUT_ZERO_POINT
    rescaled = not exact or (output.low, output.high) != (-128, 127)
    if rescaled:
        tables.append(requantize_table(OUTPUT_SCALE, OUTPUT_ZERO_POINT, output, graph.requantize))
    return Match(Softmax(shape, rescaled), (x.value,), tuple(tables))
