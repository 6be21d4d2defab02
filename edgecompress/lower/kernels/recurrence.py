"""The time loop of a recurrent layer, and its matcher: ONNX GRU and LSTM between quantized tensors.

The importer leaves the node as one call of an external function, `edgecompress.GRU` or
`edgecompress.LSTM`, with the attribute that matters (the direction) behind its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from edgecompress.lower.kernels import gates
from edgecompress.lower.kernels.interface import CannotMatch, Match

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph

PREFIX = "edgecompress."
# torch's and our order of ONNX's gates: GRU z r h, LSTM i o f c
_ORDER = {"GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}


@dataclass(frozen=True)
class Sequence:
    """`every` writes all states, else only the last one computed; `reverse` runs time backwards."""

    steps: int
    inputs: int
    hidden: int
    every: bool
    reverse: bool

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Time steps, inputs, hidden units."""
        return self.steps, self.inputs, self.hidden

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (1, self.steps, self.hidden) if self.every else (1, self.hidden)

    def macs(self, gate_count: int) -> int:
        return self.steps * gate_count * self.hidden * (self.inputs + self.hidden)

    def time(self, step: Any) -> Any:
        return self.steps - 1 - step if self.reverse else step

    def in_order(self, x: np.ndarray) -> np.ndarray:
        """[time, inputs] in the order of computation."""
        return x[::-1] if self.reverse else x


def last_or_all(sequence: Sequence, states: list[np.ndarray]) -> np.ndarray:
    """int16 [1, hidden] or [1, time, hidden], in order of time."""
    if not sequence.every:
        return states[-1][None]
    return np.stack(states[::-1] if sequence.reverse else states)[None]


def match(graph: Graph, value: relax.Var) -> Match | None:
    """quantize(movement(GRU(movement(dequantize(x)), dequantize(W), dequantize(R), B))).

    Movement is transposes, squeezes and reshapes that only move dimensions of size 1.

    Raises:
        CannotMatch: weights that are not int8, or an activation on the layer's output.
    """
    from edgecompress.lower.kernels.gru import Gru
    from edgecompress.lower.kernels.lstm import Lstm

    output = graph.output(value)
    field, call = (None, None) if output is None else _behind(graph, output.source)
    if output is None or field is None or call is None:
        return None
    kind, _, direction = str(call.args[0].global_symbol).removeprefix(PREFIX).partition(".")
    _, x_source, w, r, b = call.args
    x = graph.activation(_through(graph, x_source))
    if x is None:
        raise CannotMatch("its input is not quantized")
    shape = graph.device_shape(x.value)
    if len(shape) != 3:
        raise CannotMatch(f"its input has {len(shape)} dimensions instead of [1, time, inputs]")
    bias = graph.constant(b)
    rows = [_rows(graph, item, kind) for item in (w, r)]
    if bias is None or any(item is None for item in rows):
        raise CannotMatch("its weights are not int8 with a scale a row, or its bias is computed")
    halves = _ordered(bias.reshape(2, -1).T.astype(np.float64), kind).T
    packed = gates.gate_constants(
        gates.QuantizedRows(*rows[0], halves[0]),
        gates.QuantizedRows(*rows[1], halves[1]),
        gates=len(_ORDER[kind]),
        input_scale=x.scale,
        input_zero_point=x.zero_point,
    )
    hidden = len(packed.weights)
    sequence = Sequence(shape[1], shape[2], hidden, field == 0, direction == "reverse")
    if graph.device_shape(value) != sequence.output_shape:
        raise CannotMatch(f"its output is used as {graph.device_shape(value)}")
    state = gates.StateOutput.of(output.scale, output.zero_point, output.low, output.high)
    kernel = (Gru if kind == "GRU" else Lstm)(sequence, packed.shift, state)
    return Match(kernel, (x.value,), (*packed.arrays, gates.sigmoid_table()))


def _through(graph: Graph, expression: relax.Expr) -> relax.Expr:
    """What a chain of movements of dimensions of size 1 starts from."""
    while True:
        call = graph.call(expression)
        op = graph.op(expression)
        if call is None or op not in ("permute_dims", "reshape", "squeeze", "expand_dims"):
            return expression
        before, after = graph.shape(call.args[0]), graph.shape(expression)
        if op == "permute_dims":
            axes = [int(axis) for axis in call.attrs.axes or reversed(range(len(before)))]
            moved = [axis for axis in axes if before[axis] != 1]
            if moved != sorted(moved):
                return expression
        elif [n for n in before if n != 1] != [n for n in after if n != 1]:
            return expression
        expression = call.args[0]


def _behind(graph: Graph, source: relax.Expr) -> tuple[int, relax.Call] | tuple[None, None]:
    """(0 for all states or 1 for the last, the layer's call) that `source` is an output of."""
    bound = graph.value(_through(graph, source))
    if not isinstance(bound, relax.TupleGetItem):
        return None, None
    call = graph.call(bound.tuple_value, "call_pure_packed")
    name = "" if call is None else str(getattr(call.args[0], "global_symbol", ""))
    return (bound.index, call) if name.startswith(PREFIX) else (None, None)


def _rows(graph: Graph, expression: relax.Expr, kind: str) -> tuple[np.ndarray, np.ndarray] | None:
    """int8 rows in torch's gate order, and their float64 scales."""
    weights = graph.quantized_constant(expression)
    if weights is None or weights.values.dtype != np.int8 or np.any(weights.zero_point):
        return None
    values = weights.values.reshape(-1, weights.values.shape[-1])
    scale = weights.scale.reshape(values.shape)
    if not (scale == scale[:, :1]).all():
        return None
    return _ordered(values, kind), _ordered(scale[:, :1].copy(), kind)[:, 0]


def _ordered(rows: np.ndarray, kind: str) -> np.ndarray:
    order = _ORDER[kind]
    return rows.reshape(len(order), -1, rows.shape[1])[list(order)].reshape(rows.shape)
