"""What add and multiply share: two int8 operands, one possibly constant, broadcast together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

from edgecompress.lower.kernels.interface import CannotMatch
from edgecompress.lower.passes.graph import Output
from edgecompress.lower.program import Overlap

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph


@dataclass(frozen=True)
class Operand:
    """real = scale * (q - zero_point); `value` for an activation, `values` for a constant."""

    shape: tuple[int, ...]
    scale: float
    zero_point: int
    value: relax.Var | None = None
    values: np.ndarray | None = None


@dataclass(frozen=True)
class Pair:
    """A binary operator found in a graph; a constant operand comes second."""

    first: Operand
    second: Operand
    output: Output
    shape: tuple[int, ...]

    @property
    def inputs(self) -> tuple[relax.Var, ...]:
        values = (self.first.value, self.second.value)
        return tuple(value for value in values if value is not None)

    @property
    def constants(self) -> tuple[np.ndarray, ...]:
        return () if self.second.values is None else (self.second.values,)


def in_place_operands(shape: tuple[int, ...], other: tuple[int, ...]) -> tuple[Overlap, ...]:
    """Operands that an element-by-element kernel's output may lie over: those not broadcast."""
    return (Overlap(0), Overlap(1)) if shape == other else (Overlap(0),)


def broadcast_index(index: tuple[Any, ...], shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Where `index` of the output reads an operand of `shape` (numpy's rules)."""
    aligned = index[len(index) - len(shape) :]
    return tuple(0 if size == 1 else at for at, size in zip(aligned, shape, strict=True))


def find_pair(graph: Graph, value: relax.Var, op: str) -> Pair | None:
    """quantize(op(dequantize(a), dequantize(b))), b an activation or a constant; else None.

    Raises:
        CannotMatch: both operands are broadcast, or a constant has several scales.
    """
    output = graph.output(value)
    call = None if output is None else graph.call(output.source, op)
    if output is None or call is None:
        return None
    first, second = (_operand(graph, argument, value) for argument in call.args)
    if first is None or second is None or (first.value is None and second.value is None):
        return None
    if first.value is None or len(first.shape) < len(second.shape):
        first, second = second, first
    shape = graph.device_shape(value)
    # a lower-rank activation lies in source order: it does not line up with NHWC
    misaligned = graph.is_image(value) and len(second.shape) not in (0, 4)
    if first.value is None or first.shape != shape or misaligned:
        raise CannotMatch(f"{op} of {first.shape} and {second.shape}, broadcast to {shape}")
    return Pair(first, second, output, shape)


def _operand(graph: Graph, argument: relax.Expr, result: relax.Var) -> Operand | None:
    activation = graph.activation(argument)
    if activation is not None:
        shape = graph.device_shape(activation.value)
        return Operand(shape, activation.scale, activation.zero_point, value=activation.value)
    quantized = graph.quantized_constant(argument)
    if quantized is not None:
        if np.unique(quantized.scale).size != 1 or np.unique(quantized.zero_point).size != 1:
            raise CannotMatch("a constant operand with more than one scale")
        values = _in_device_order(graph, quantized.values.astype(np.int8), result)
        scale, zero_point = quantized.scale.flat[0], quantized.zero_point.flat[0]
        return Operand(values.shape, float(scale), int(zero_point), values=values)
    return None


def _in_device_order(graph: Graph, values: np.ndarray, result: relax.Var) -> np.ndarray:
    """The constant at the result's rank, in NHWC when the result is an image."""
    rank = len(graph.shape(result))
    values = values.reshape((1,) * (rank - values.ndim) + values.shape)
    if graph.is_image(result):
        values = values.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(values)
