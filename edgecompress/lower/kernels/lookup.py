"""Any function of one int8 value as a table of 256: relu, sigmoid, hardswish, requantize only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tvm import relax, te

from edgecompress.lower.kernels import litert_tables
from edgecompress.lower.kernels.interface import Match
from edgecompress.lower.kernels.unary import evaluate
from edgecompress.lower.program import Overlap

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph, Output


@dataclass(frozen=True)
class Lookup:
    """y = table[x + 128]. Arguments: x (any shape) int8, table [256] int8."""

    shape: tuple[int, ...]
    op: str = "lookup"
    macs: int = 0

    @property
    def overlaps(self) -> tuple[Overlap, ...]:
        return (Overlap(0),)

    def compute(self, *tensors: Any) -> Any:
        x, table = tensors
        return te.compute(self.shape, lambda *i: table[x[i].astype("int32") + 128], "output")

    def schedule(self, schedule: Any, function_name: str) -> None:
        output = schedule.get_sblock("output", func_name=function_name)
        schedule.fuse(*schedule.get_loops(output))

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        x, table = arrays
        return table[x.astype(np.int32) + 128]


def requantize_table(
    scale: float, zero_point: int, output: Output, rounding: Literal["smmla", "tflite"]
) -> np.ndarray:
    """[256] int8: values of this scale and zero point as the output's, clamped to its bounds."""
    if rounding == "tflite":
        values = litert_tables.requantize(scale, zero_point, output.scale, output.zero_point)
    else:
        values = _quantize(_real_values(scale, zero_point), output)
    return np.clip(values, output.low, output.high).astype(np.int8)


def _real_values(scale: float, zero_point: int) -> np.ndarray:
    """The 256 real numbers an int8 activation can be, float64, from -128 on."""
    return (np.arange(-128, 128) - zero_point) * scale


def _quantize(real: np.ndarray, output: Output) -> np.ndarray:
    """QuantizeLinear: round half to even; infinities saturate."""
    scaled = np.nan_to_num(real / output.scale, nan=0.0, posinf=1e6, neginf=-1e6)
    return np.clip(np.round(scaled), -1e6, 1e6).astype(np.int64) + output.zero_point


def _has_activation(graph: Graph, value: relax.Var) -> bool:
    """True for quantize(relu(dequantize(x))), whose relu `Graph.output` has made bounds of."""
    clip = graph.call(value, "clip")
    quantize = graph.call(value if clip is None else clip.args[0], "quantize")
    return quantize is not None and graph.op(quantize.args[0]) != "dequantize"


def match(graph: Graph, value: relax.Var) -> Match | None:
    """quantize(f(dequantize(x))) for any f made of elementwise operators and scalars.

    "tflite" rounding takes LiteRT's own fixed-point algorithm for the operators that have one.
    """
    output = graph.output(value)
    found = None if output is None else evaluate(graph, output.source)
    if output is None or found is None:
        return None
    x, function = found.x, found.function
    parameters = (x.scale, x.zero_point, output.scale, output.zero_point)
    name = found.name
    if name == "requantize" and _has_activation(graph, value):
        name = "relu"
    litert = litert_tables.ALGORITHMS.get(name) if graph.requantize == "tflite" else None
    if litert is not None:
        values = litert(*parameters, **found.attributes)
    else:
        with np.errstate(all="ignore"):
            values = _quantize(function(_real_values(x.scale, x.zero_point)), output)
    table = np.clip(values, output.low, output.high).astype(np.int8)
    return Match(Lookup(graph.device_shape(value)), (x.value,), (table,))
