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
        """The PrimFunc, its scratch the last parameter but one."""
        from tvm.script import tirx as T

        s, shift, quantized = self.sequence, self.shift, self.output.expression
        steps, inputs, hidden = s.steps, s.inputs, s.hidden
        position, look = gates.table_position, gates.interpolated
        total, product, twice = gates.sum_expression, gates.product_expression, gates.doubled
        time, bits = s.time, gates.STATE_BITS

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
                    a0: T.int32 = bias[j, 0, 0]
                    a1: T.int32 = bias[j, 0, 1]
                    a2: T.int32 = bias[j, 0, 2]
                    for k in T.serial(inputs):
                        value: T.int32 = T.Cast("int32", x[0, time(t), k])
                        a0 = a0 + value * T.Cast("int32", w[j, k, 0])
                        a1 = a1 + value * T.Cast("int32", w[j, k, 1])
                        a2 = a2 + value * T.Cast("int32", w[j, k, 2])
                    b0: T.int32 = bias[j, 1, 0]
                    b1: T.int32 = bias[j, 1, 1]
                    b2: T.int32 = bias[j, 1, 2]
                    for k in T.serial(hidden):
                        before: T.int32 = T.Cast("int32", state[(t & 1) * hidden + k])
                        b0 = b0 + before * T.Cast("int32", r[j, k, 0])
                        b1 = b1 + before * T.Cast("int32", r[j, k, 1])
                        b2 = b2 + before * T.Cast("int32", r[j, k, 2])
                    at_r: T.int32 = position(total(a0, b0, m[j, 0, 0], m[j, 1, 0], shift))
                    reset: T.int32 = look(table, at_r)
                    at_z: T.int32 = position(total(a1, b1, m[j, 0, 1], m[j, 1, 1], shift))
                    update: T.int32 = look(table, at_z)
                    inner: T.int32 = product(b2, m[j, 1, 2], shift)
                    outer: T.int32 = product(a2, m[j, 0, 2], shift)
                    at_n: T.int32 = position(twice(outer + product(inner, reset, bits)))
                    new: T.int32 = look(table, at_n) * 2 - 32768
                    old: T.int32 = T.Cast("int32", state[(t & 1) * hidden + j])
                    h: T.int32 = ((32768 - update) * new + update * old + 16384) >> 15
                    state[(1 - (t & 1)) * hidden + j] = T.Cast("int16", h)
                    if s.every:
                        y[0, time(t), j] = quantized(h)
            if not s.every:
                for j in T.serial(hidden):
                    y[0, j] = quantized(T.Cast("int32", state[(steps & 1) * hidden + j]))

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
