"""A GRU layer in one direction: one step of the program, whatever the number of time steps.

ONNX GRU with linear_before_reset = 1, which is torch's:

    r = sigmoid(W_r x + R_r h)       z = sigmoid(W_z x + R_z h)
    n = tanh(W_n x + r (R_n h))      h' = (1 - z) n + z h

int8 weights, int16 state (the float file's state is not quantized either), int8 input and output.
Rounding: each gate's sum once (gates.py); r (R_n h) half up to 12 fractional bits; h' half up
to Q0.15; the output half up to int8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from tvm.script import tirx as T

from edgecompress.lower.kernels import gates
from edgecompress.lower.kernels.gates import StateOutput
from edgecompress.lower.kernels.interface import Scratch
from edgecompress.lower.kernels.recurrence import Sequence, last_or_all

if TYPE_CHECKING:
    from tvm import tirx


@dataclass(frozen=True)
class Gru:
    """Arguments: x int8 [1, time, inputs]; weights, recurrence, bias, multipliers (`GateConstants`,
    gates r z n); sigmoid table [513] int16; scratch int16 [2, hidden].

    Output int8 [1, time, hidden], or [1, hidden] where only the last state is wanted.
    """

    sequence: Sequence
    shift: int
    output: StateOutput
    op: str = "gru"

    @property
    def macs(self) -> int:
        return self.sequence.macs(3)

    @property
    def scratch(self) -> tuple[Scratch, ...]:
        """The state before and after a step."""
        return (Scratch((2 * self.sequence.hidden,), "int16"),)

    def function(self, name: str) -> tirx.PrimFunc:
        """The PrimFunc, its scratch the last parameters before the output."""
        s, shift, wide = self.sequence, self.shift, gates.wide
        (steps, inputs, hidden), time, quantized = s.sizes, s.time, self.output.expression
        position, look, twice = gates.table_position, gates.interpolated, gates.doubled
        total, product = gates.sum_expression, gates.product_expression

        @T.prim_func
        def gru(
            x: T.Buffer((1, steps, inputs), "int8"),
            w: T.Buffer((hidden, inputs, 3), "int8"),
            r: T.Buffer((hidden, hidden, 3), "int8"),
            bias: T.Buffer((hidden, 2, 3), "int32"),
            m: T.Buffer((hidden, 2, 3), "int32"),
            table: T.Buffer((gates.TABLE_SIZE,), "int16"),
            state: T.Buffer((2 * hidden,), "int16"),
            y: T.Buffer(s.output_shape, "int8"),
        ):
            for j in T.serial(hidden):
                state[j] = T.int16(0)
            for t in T.serial(steps):
                for j in T.serial(hidden):
                    a = T.alloc_buffer((3,), "int32")
                    b = T.alloc_buffer((3,), "int32")
                    for g in T.unroll(3):
                        a[g] = bias[j, 0, g]
                        b[g] = bias[j, 1, g]
                    for k in T.serial(inputs):
                        for g in T.unroll(3):
                            a[g] += wide(x[0, time(t), k]) * wide(w[j, k, g])
                    for k in T.serial(hidden):
                        for g in T.unroll(3):
                            b[g] += wide(state[(t & 1) * hidden + k]) * wide(r[j, k, g])
                    for g in T.unroll(2):
                        a[g] = total(a[g], b[g], m[j, 0, g], m[j, 1, g], shift)
                    reset: T.int32 = look(table, position(a[0]))
                    update: T.int32 = look(table, position(a[1]))
                    inner: T.int32 = product(b[2], m[j, 1, 2], shift)
                    outer: T.int32 = product(a[2], m[j, 0, 2], shift)
                    at_n: T.int32 = position(twice(outer + product(inner, reset, 15)))
                    new: T.int32 = look(table, at_n) * 2 - 32768
                    old: T.int32 = wide(state[(t & 1) * hidden + j])
                    h: T.int32 = ((32768 - update) * new + update * old + 16384) >> 15
                    state[(1 - (t & 1)) * hidden + j] = T.Cast("int16", h)
                    if s.every:
                        y[0, time(t), j] = quantized(h)
            if not s.every:
                for j in T.serial(hidden):
                    y[0, j] = quantized(wide(state[(steps & 1) * hidden + j]))

        return gru.with_attr("global_symbol", name)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        x, *constants, table = arrays
        multipliers = constants[3].astype(np.int64)
        state = np.zeros(self.sequence.hidden, np.int16)
        states = []
        for row in self.sequence.in_order(x[0]):
            a, b = gates.products(row, state, tuple(constants))
            from_input, from_state = a * multipliers[:, 0], b * multipliers[:, 1]
            both = gates.rounded(from_input[:, :2] + from_state[:, :2], self.shift)
            reset, update = gates.sigmoid(table, both).T.astype(np.int64)
            inner = gates.rounded(from_state[:, 2], self.shift).astype(np.int64)
            outer = gates.rounded(from_input[:, 2], self.shift)
            new = gates.tanh(table, outer + gates.rounded(inner * reset, gates.STATE_BITS))
            mixed = (2**15 - update) * new + update * state
            state = ((mixed + 2**14) >> 15).astype(np.int16)
            states.append(state)
        return self.output.reference(last_or_all(self.sequence, states))
