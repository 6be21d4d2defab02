"""What the integer GRU and LSTM share: weights, gate arithmetic, sigmoid and tanh by table.

Numbers between the int8 input and the int8 output:

    state h         int16, Q0.15
    gate sums       int32, 12 fractional bits
    gates           int32, Q0.15: sigmoid in [0, 1), tanh in [-1, 1)

A gate's sum is rounded once, whatever the scales of its two products are. With
a = bias + sum(w (x - zero point)) and b = bias + sum(r h) in int32, and multipliers
m = round(real 2^S) of one shift S for the layer,

    sum = (a m_x + b m_h + 2^(S - 1)) >> S        in int64, so floor of the exact value plus half

sigmoid is a table of 513 points, 1/32 apart over [-8, 8], and a straight line between two of them:
within 2.5e-5 inside, 3.4e-4 outside, where it stays at its ends. tanh(x) = 2 sigmoid(2x) - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecompress.errors import BuildFailed

SUM_BITS = 12
STATE_BITS = 15
TABLE_SIZE = 513
_STEP_BITS = 7
_MOST_MULTIPLIER = 2**30
_INT32_LIMIT = 2**31


def sigmoid_table() -> np.ndarray:
    """[513] int16: round(2^15 sigmoid(k / 32 - 8))."""
    real = 1 / (1 + np.exp(8 - np.arange(TABLE_SIZE) / 32))
    return np.round(real * 2**STATE_BITS).astype(np.int16)


def sigmoid(table: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Q0.15 of int32 sums with 12 fractional bits; numpy's side of `sigmoid_text`."""
    at = np.clip(total, -(2**15), 2**15 - 1) + 2**15
    low = table[at >> _STEP_BITS].astype(np.int32)
    high = table[(at >> _STEP_BITS) + 1].astype(np.int32)
    return low + (((high - low) * (at & 127) + 64) >> _STEP_BITS)


def tanh(table: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Q0.15 of int32 sums: twice the sigmoid of the double, minus one."""
    doubled = np.clip(total, -(2**15), 2**15 - 1) * 2
    return 2 * sigmoid(table, doubled) - 2**STATE_BITS


@dataclass(frozen=True)
class GateConstants:
    """The constant arguments both kernels begin with, unit by unit, and the shift that goes along.

    Attributes:
        weights: int8 [hidden, inputs, gates].
        recurrence: int8 [hidden, hidden, gates].
        bias: int32 [hidden, 2, gates]: of the input's product, zero point folded in, and of the
            state's.
        multipliers: int32 [hidden, 2, gates], for the two products.
    """

    weights: np.ndarray
    recurrence: np.ndarray
    bias: np.ndarray
    multipliers: np.ndarray
    shift: int

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return self.weights, self.recurrence, self.bias, self.multipliers


@dataclass(frozen=True)
class QuantizedRows:
    """int8 rows [gates * hidden, columns] with a float64 scale and a real bias for each."""

    values: np.ndarray
    scale: np.ndarray
    bias: np.ndarray


def gate_constants(
    w: QuantizedRows, r: QuantizedRows, *, gates: int, input_scale: float, input_zero_point: int
) -> GateConstants:
    """Packs one layer's weights; rows come gate by gate.

    Raises:
        BuildFailed: an accumulator or a gate's sum could leave int32.
    """
    hidden = len(w.values) // gates
    product_scales = (input_scale * w.scale, r.scale * 2.0**-STATE_BITS)
    offset = input_zero_point * w.values.astype(np.int64).sum(1)
    bias = np.stack(
        [
            np.round(w.bias / product_scales[0]).astype(np.int64) - offset,
            np.round(r.bias / product_scales[1]).astype(np.int64),
        ]
    )
    _check_accumulators(w.values, r.values, bias)
    real = np.stack(product_scales) * 2.0**SUM_BITS
    shift = int(np.clip(np.floor(np.log2(_MOST_MULTIPLIER / real.max())), 1, 45))
    multipliers = np.round(real * 2.0**shift)
    if multipliers.max() >= _INT32_LIMIT:
        raise BuildFailed(f"A recurrent layer's scale {real.max():.3g} has no 32-bit multiplier.")

    def by_unit(rows: np.ndarray) -> np.ndarray:
        """[gates * hidden, columns] as [hidden, columns, gates]."""
        table = rows.reshape(gates, hidden, -1).transpose(1, 2, 0)
        return np.ascontiguousarray(table)

    return GateConstants(
        by_unit(w.values),
        by_unit(r.values),
        by_unit(bias.T).astype(np.int32),
        by_unit(multipliers.T).astype(np.int32),
        shift,
    )


def _check_accumulators(w: np.ndarray, r: np.ndarray, bias: np.ndarray) -> None:
    largest = max(
        (128 * np.abs(w.astype(np.int64)).sum(1) + np.abs(bias[0])).max(),
        (2**STATE_BITS * np.abs(r.astype(np.int64)).sum(1) + np.abs(bias[1])).max(),
    )
    if largest >= _INT32_LIMIT:
        raise BuildFailed(
            f"A recurrent layer's accumulator may reach {largest}; int32 holds {_INT32_LIMIT - 1}.",
            next_step="Give the layer fewer units: 516 and more cannot be summed safely.",
        )


def products(
    x: np.ndarray, state: np.ndarray, constants: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """numpy: the int64 accumulators [hidden, gates] of one step, input's and state's."""
    weights, recurrence, bias, _ = constants
    a = np.einsum("k,jkg->jg", x.astype(np.int64), weights.astype(np.int64)) + bias[:, 0]
    b = np.einsum("k,jkg->jg", state.astype(np.int64), recurrence.astype(np.int64)) + bias[:, 1]
    return a, b


def rounded(value: np.ndarray, shift: int) -> np.ndarray:
    """(value + half) >> shift, int64 to int32: rounds half up."""
    return ((value + (1 << (shift - 1))) >> shift).astype(np.int32)


@dataclass(frozen=True)
class StateOutput:
    """The int16 state as the layer's int8 output: ((h m + 2^(s - 1)) >> s) + zero point."""

    multiplier: int
    shift: int
    zero_point: int
    low: int
    high: int

    @classmethod
    def of(cls, scale: float, zero_point: int, low: int, high: int) -> StateOutput:
        real = 2.0**-STATE_BITS / scale
        # the product stays below 2^31: |h| <= 2^15, so m < 2^15
        shift = int(np.clip(np.floor(15 - np.log2(real) - 1e-9), 1, 30))
        return cls(round(real * 2.0**shift), shift, zero_point, low, high)

    def expression(self, state: Any) -> Any:
        """TIR int8 of an int32 state."""
        from tvm import tirx

        value = (state * self.multiplier + (1 << (self.shift - 1))) >> self.shift
        return tirx.Cast("int8", clamped(value + self.zero_point, self.low, self.high))

    def reference(self, state: np.ndarray) -> np.ndarray:
        value = (state.astype(np.int64) * self.multiplier + (1 << (self.shift - 1))) >> self.shift
        return np.clip(value + self.zero_point, self.low, self.high).astype(np.int8)


# The same formulas as expressions inside a TIR function.


def wide(value: Any) -> Any:
    from tvm import tirx

    return tirx.Cast("int32", value)


def sum_expression(a: Any, b: Any, m_x: Any, m_h: Any, shift: int) -> Any:
    """(a m_x + b m_h + half) >> shift as int32."""
    from tvm import tirx

    def long(value: Any) -> Any:
        return tirx.Cast("int64", value)

    total = long(a) * long(m_x) + long(b) * long(m_h) + tirx.const(1 << (shift - 1), "int64")
    return tirx.Cast("int32", total >> tirx.const(shift, "int64"))


def product_expression(a: Any, m: Any, shift: int) -> Any:
    """(a m + half) >> shift as int32, the product in int64."""
    from tvm import tirx

    total = tirx.Cast("int64", a) * tirx.Cast("int64", m) + tirx.const(1 << (shift - 1), "int64")
    return tirx.Cast("int32", total >> tirx.const(shift, "int64"))


def clamped(value: Any, low: int, high: int) -> Any:
    from tvm import tirx

    return tirx.max(tirx.min(value, tirx.const(high, "int32")), tirx.const(low, "int32"))


def table_position(total: Any) -> Any:
    """Where a sum lies in the table, with 7 fractional bits."""
    return clamped(total, -(2**15), 2**15 - 1) + 2**15


def doubled(total: Any) -> Any:
    """Twice a sum, for tanh by the sigmoid."""
    return clamped(total, -(2**15), 2**15 - 1) * 2


def interpolated(table: Any, at: Any) -> Any:
    """The table's value at a position from `table_position`."""
    from tvm import tirx

    low = tirx.Cast("int32", table[at >> _STEP_BITS])
    high = tirx.Cast("int32", table[(at >> _STEP_BITS) + 1])
    return low + (((high - low) * (at & 127) + 64) >> _STEP_BITS)
