"""An LSTM layer in one direction: one step of the program, whatever the number of time steps.

    i = sigmoid(W_i x + R_i h)    f = sigmoid(W_f x + R_f h)    o = sigmoid(W_o x + R_o h)
    g = tanh(W_g x + R_g h)       c' = f c + i g                h' = o tanh(c')

int8 weights, int16 state, int32 cell with 16 fractional bits: |c| grows by at most 1 a step, so it
cannot overflow within 32767 steps. int8 input and output. Rounding: each gate's sum once
(gates.py); c' half up, once; tanh's argument half up to 12 fractional bits; h' half up to Q0.15;
the output half up to int8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm.script import tirx as T

from edgecompress.lower.kernels import gates
from edgecompress.lower.kernels.gates import StateOutput
from edgecompress.lower.kernels.interface import Scratch
from edgecompress.lower.kernels.recurrence import Sequence, last_or_all

if TYPE_CHECKING:
    from tvm import tirx


@dataclass(frozen=True)
class Lstm:
    """Arguments: x int8 [1, time, inputs]; weights, recurrence, bias, multipliers (`GateConstants`,
    gates i f g o); sigmoid table [513] int16; scratch int16 [2 hidden] (states)
    and int32 [hidden] (cells).

    Output int8 [1, time, hidden], or [1, hidden] where only the last state is wanted.
    """

    sequence: Sequence
    shift: int
    output: StateOutput
    op: str = "lstm"

    @property
    def macs(self) -> int:
        return self.sequence.macs(4)

    @property
    def scratch(self) -> tuple[Scratch, ...]:
        """The state before and after a step, and the cells."""
        hidden = self.sequence.hidden
        return Scratch((2 * hidden,), "int16"), Scratch((hidden,), "int32")

    def function(self, name: str) -> tirx.PrimFunc:
        """The PrimFunc, its scratch the last parameters before the output."""
        s, shift, wide = self.sequence, self.shift, gates.wide
        (steps, inputs, hidden), time, quantized = s.sizes, s.time, self.output.expression
        position, look, twice = gates.table_position, gates.interpolated, gates.doubled

        @T.prim_func
        def lstm(
            x: T.Buffer((1, steps, inputs), "int8"),
            w: T.Buffer((hidden, inputs, 4), "int8"),
            r: T.Buffer((hidden, hidden, 4), "int8"),
            bias: T.Buffer((hidden, 2, 4), "int32"),
            m: T.Buffer((hidden, 2, 4), "int32"),
            table: T.Buffer((gates.TABLE_SIZE,), "int16"),
            state: T.Buffer((2 * hidden,), "int16"),
            cells: T.Buffer((hidden,), "int32"),
            y: T.Buffer(s.output_shape, "int8"),
        ):
            for j in T.serial(hidden):
                cells[j] = 0
                state[j] = T.int16(0)
            for t in T.serial(steps):
                for j in T.serial(hidden):
                    a = T.alloc_buffer((4,), "int32")
                    b = T.alloc_buffer((4,), "int32")
                    for g in T.unroll(4):
                        a[g] = bias[j, 0, g]
                        b[g] = bias[j, 1, g]
                    for k in T.serial(inputs):
                        for g in T.unroll(4):
                            a[g] += wide(x[0, time(t), k]) * wide(w[j, k, g])
                    for k in T.serial(hidden):
                        for g in T.unroll(4):
                            b[g] += wide(state[(t & 1) * hidden + k]) * wide(r[j, k, g])
                    for g in T.unroll(4):
                        a[g] = gates.sum_expression(a[g], b[g], m[j, 0, g], m[j, 1, g], shift)
                    i: T.int32 = look(table, position(a[0]))
                    f: T.int32 = look(table, position(a[1]))
                    new: T.int32 = look(table, position(twice(a[2]))) * 2 - 32768
                    o: T.int32 = look(table, position(a[3]))
                    cell: T.int32 = _cell(f, cells[j], i, new)
                    cells[j] = cell
                    at_c: T.int32 = position(twice((cell + 8) >> 4))
                    h: T.int32 = (o * (look(table, at_c) * 2 - 32768) + 16384) >> 15
                    state[(1 - (t & 1)) * hidden + j] = T.Cast("int16", h)
                    if s.every:
                        y[0, time(t), j] = quantized(h)
            if not s.every:
                for j in T.serial(hidden):
                    y[0, j] = quantized(wide(state[(steps & 1) * hidden + j]))

        return lstm.with_attr("global_symbol", name)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        x, *constants, table = arrays
        multipliers = constants[3].astype(np.int64)
        state = np.zeros(self.sequence.hidden, np.int16)
        cell = np.zeros(self.sequence.hidden, np.int64)
        states = []
        for row in self.sequence.in_order(x[0]):
            a, b = gates.products(row, state, tuple(constants))
            sums = gates.rounded(a * multipliers[:, 0] + b * multipliers[:, 1], self.shift)
            i, f, o = (gates.sigmoid(table, sums[:, k]).astype(np.int64) for k in (0, 1, 3))
            g = gates.tanh(table, sums[:, 2]).astype(np.int64)
            cell = (f * cell + 2 * i * g + 2**14) >> 15
            curved = gates.tanh(table, ((cell + 8) >> 4).astype(np.int32)).astype(np.int64)
            state = ((o * curved + 2**14) >> 15).astype(np.int16)
            states.append(state)
        return self.output.reference(last_or_all(self.sequence, states))


def _cell(f: Any, c: Any, i: Any, g: Any) -> Any:
    """TIR f c + i g: Q0.15 x 16 bits and Q0.15 x Q0.15, both as 31 bits, back to 16."""
    both = T.Cast("int64", f) * T.Cast("int64", c) + T.Cast("int64", i * g) * T.int64(2)
    return T.Cast("int32", (both + T.int64(16384)) >> T.int64(15))
