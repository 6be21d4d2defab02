"""Mean over neighbouring axes with its own output scale: global average pooling, ReduceMean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te

from edgecompress.lower.kernels import fixed_point
from edgecompress.lower.kernels.interface import CannotMatch, Match
from edgecompress.lower.kernels.requant import Requantize, make_requantize

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph


@dataclass(frozen=True)
class Mean:
    """Mean over `axes`, consecutive device axes.

    Arguments: x `shape` int8, then requantize's tables [1]. The accumulator is
    sum(x) - count * zero_point; 1 / count is part of the multiplier.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    output_shape: tuple[int, ...]
    input_zero_point: int
    requantize: Requantize
    op: str = "mean"

    @property
    def macs(self) -> int:
        return int(np.prod(self.shape))

    @property
    def count(self) -> int:
        return int(np.prod([self.shape[axis] for axis in self.axes]))

    def compute(self, *tensors: Any) -> Any:
        x, *tables = tensors
        reduced = [te.reduce_axis((0, self.shape[axis]), f"r{axis}") for axis in self.axes]
        kept = [axis for axis in range(len(self.shape)) if axis not in self.axes]
        kept_shape = [self.shape[axis] for axis in kept] or [1]

        def total_at(*index: Any) -> Any:
            position = dict(zip(kept, index, strict=False)) | dict(
                zip(self.axes, reduced, strict=True)
            )
            at = tuple(position[axis] for axis in range(len(self.shape)))
            return te.sum(x[at].astype("int32"), axis=reduced)

        total = te.compute(kept_shape, total_at, "accumulator")
        centred = te.compute(
            kept_shape, lambda *i: total[i] - self.count * self.input_zero_point, "biased"
        )
        keeps_axes = len(self.output_shape) == len(self.shape)

        def output(*index: Any) -> Any:
            at = tuple(index[axis] for axis in kept) if keeps_axes else index[: len(kept)]
            return self.requantize.compute(centred[at or (0,)], tuple(tables), 0)

        return te.compute(self.output_shape, output, "output")

    def schedule(self, schedule: Any, function_name: str) -> None:
        output = schedule.get_sblock("output", func_name=function_name)
        innermost = schedule.get_loops(output)[-1]
        for stage in ("biased", "accumulator"):
            schedule.compute_at(schedule.get_sblock(stage, func_name=function_name), innermost)

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        x, *tables = arrays
        total = x.sum(self.axes, dtype=np.int32) - np.int32(self.count * self.input_zero_point)
        output = self.requantize.reference(total, *tables)
        return output.reshape(-1, *self.output_shape[1:])


def litert_requantize(
    real: float, count: int, *, zero_point: int, low: int, high: int
) -> tuple[Requantize, tuple[np.ndarray, ...]]:
    """LiteRT's `QuantizedMeanOrSum`: the scale ratio's mantissa is divided by the count.

    The mantissa is first lifted by as many bits as the count has, so it keeps its precision, and
    the quotient truncates.
    """
    mantissas, exponents = fixed_point.quantize_multiplier(real)
    mantissa, exponent = int(mantissas), int(exponents)
    lift = min(count.bit_length() - 1, 32, 31 + exponent)
    mantissa, exponent = (mantissa << lift) // count, exponent - lift
    requantize = Requantize(
        "double", zero_point, low, high, has_left=exponent > 0, has_unit=exponent >= 0
    )
    return requantize, (np.array([mantissa], np.int32), np.array([exponent], np.int8))


def match(graph: Graph, value: relax.Var) -> Match | None:
    """quantize(activation?(mean(dequantize(x)))) over neighbouring device axes.

    Raises:
        CannotMatch: the batch is averaged, or the axes are not neighbours.
    """
    output = graph.output(value)
    call = None if output is None else graph.call(output.source, "mean")
    x = None if call is None else graph.activation(call.args[0])
    if output is None or call is None or x is None:
        return None
    shape = graph.device_shape(x.value)
    axes = tuple(sorted(graph.device_axis(x.value, int(axis)) for axis in call.attrs.axis or ()))
    if not axes or axes[0] == 0 or axes[-1] - axes[0] != len(axes) - 1:
        raise CannotMatch(f"mean over axes {axes} of {shape}; they must adjoin and not be batch")
    output_shape = graph.device_shape(value)
    source_axes = range(len(shape))
    kept = [axis for a in source_axes if (axis := graph.device_axis(x.value, a)) not in axes]
    if len(output_shape) != len(shape) and (kept != sorted(kept) or len(shape) > 4):
        raise CannotMatch(f"mean over axes {axes} of NHWC {shape} leaves {kept} in another order")
    if len(output_shape) not in (len(shape), len(shape) - len(axes)):
        raise CannotMatch(f"mean from {shape} to {output_shape}")
    count = int(np.prod([shape[axis] for axis in axes]))
    bounds = {"zero_point": output.zero_point, "low": output.low, "high": output.high}
    if graph.requantize == "tflite":
        requantize, tables = litert_requantize(x.scale / output.scale, count, **bounds)
    else:
        requantize, tables = make_requantize(
            np.array([x.scale / output.scale / count]),
            form="smmla",
            accumulator_bound=255 * count,
            **bounds,
        )
    kernel = Mean(shape, axes, output_shape, x.zero_point, requantize)
    return Match(kernel, (x.value,), tables)
