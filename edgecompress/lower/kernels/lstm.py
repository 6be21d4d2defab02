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
        """The PrimFunc, its scratch the last parameter but one."""
        from tvm.script import tirx as T

        s, shift, quantized = self.sequence, self.shift, self.output.expression
        steps, inputs, hidden = s.steps, s.inputs, s.hidden
        position, look = gates.table_position, gates.interpolated
        total, twice = gates.sum_expression, gates.doubled
        time = s.time

        def cell_sum(f: Any, c: Any, i: Any, g: Any) -> Any:
            """f c + i g: Q0.15 x 16 bits and Q0.15 x Q0.15, both as 31 bits."""
            both = T.Cast("int64", f) * T.Cast("int64", c) + T.Cast("int64", i * g) * T.int64(2)
            return T.Cast("int32", (both + T.int64(16384)) >> T.int64(15))

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
                    a0: T.int32 = bias[j, 0, 0]
                    a1: T.int32 = bias[j, 0, 1]
                    a2: T.int32 = bias[j, 0, 2]
                    a3: T.int32 = bias[j, 0, 3]
                    for k in T.serial(inputs):
                        value: T.int32 = T.Cast("int32", x[0, time(t), k])
                        a0 = a0 + value * T.Cast("int32", w[j, k, 0])
                        a1 = a1 + value * T.Cast("int32", w[j, k, 1])
                        a2 = a2 + value * T.Cast("int32", w[j, k, 2])
                        a3 = a3 + value * T.Cast("int32", w[j, k, 3])
                    b0: T.int32 = bias[j, 1, 0]
                    b1: T.int32 = bias[j, 1, 1]
                    b2: T.int32 = bias[j, 1, 2]
                    b3: T.int32 = bias[j, 1, 3]
                    for k in T.serial(hidden):
                        before: T.int32 = T.Cast("int32", state[(t & 1) * hidden + k])
                        b0 = b0 + before * T.Cast("int32", r[j, k, 0])
                        b1 = b1 + before * T.Cast("int32", r[j, k, 1])
                        b2 = b2 + before * T.Cast("int32", r[j, k, 2])
                        b3 = b3 + before * T.Cast("int32", r[j, k, 3])
                    at_i: T.int32 = position(total(a0, b0, m[j, 0, 0], m[j, 1, 0], shift))
                    i: T.int32 = look(table, at_i)
                    at_f: T.int32 = position(total(a1, b1, m[j, 0, 1], m[j, 1, 1], shift))
                    f: T.int32 = look(table, at_f)
                    at_g: T.int32 = position(twice(total(a2, b2, m[j, 0, 2], m[j, 1, 2], shift)))
                    g: T.int32 = look(table, at_g) * 2 - 32768
                    at_o: T.int32 = position(total(a3, b3, m[j, 0, 3], m[j, 1, 3], shift))
                    o: T.int32 = look(table, at_o)
                    cell: T.int32 = cell_sum(f, cells[j], i, g)
                    cells[j] = cell
                    at_c: T.int32 = position(twice((cell + 8) >> 4))
                    h: T.int32 = (o * (look(table, at_c) * 2 - 32768) + 16384) >> 15
                    state[(1 - (t & 1)) * hidden + j] = T.Cast("int16", h)
                    if s.every:
                        y[0, time(t), j] = quantized(h)
            if not s.every:
                for j in T.serial(hidden):
                    y[0, j] = quantized(T.Cast("int32", state[(steps & 1) * hidden + j]))

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
