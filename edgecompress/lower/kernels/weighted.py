"""What conv2d, depthwise conv2d and dense share: weights, bias and their requantization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from tvm import relax

from edgecompress.errors import BuildFailed
from edgecompress.lower.kernels.interface import CannotMatch
from edgecompress.lower.kernels.requant import INT32_LIMIT, Requantize, make_requantize
from edgecompress.lower.passes.graph import Activation, Output, QuantizedConstant

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph


@dataclass(frozen=True)
class Weighted:
    """op(dequantize(x), dequantize(weights)) [+ bias], quantized."""

    call: relax.Call
    output: Output
    x: Activation
    weights: QuantizedConstant
    bias: relax.Expr | None


@dataclass(frozen=True)
class Constants:
    """The constant arguments after the weights, and the requantization that reads them."""

    requantize: Requantize
    bias: np.ndarray
    tables: tuple[np.ndarray, ...]


def find_weighted(graph: Graph, value: relax.Var, op: str) -> Weighted | None:
    """The weighted operator `op` behind an int8 value, its bias add understood; else None.

    Raises:
        CannotMatch: it is that operator, but not int8 by constant symmetric int8 weights.
    """
    output = graph.output(value)
    if output is None:
        return None
    call, bias = graph.call(output.source, op), None
    if call is None and (add := graph.call(output.source, "add")) is not None:
        for operand, other in (add.args, (add.args[1], add.args[0])):
            call, bias = graph.call(operand, op), other
            if call is not None:
                break
    if call is None:
        return None
    x, weights = graph.activation(call.args[0]), graph.quantized_constant(call.args[1])
    channel_axis = -3 if op == "nn.conv2d" and graph.layout == "NCHW" else -1
    if bias is not None and not has_constant_bias(graph, bias, channel_axis):
        raise CannotMatch("what is added before quantization is not a constant per channel")
    if x is None or weights is None:
        return None
    if weights.values.dtype != np.int8 or np.any(weights.zero_point):
        raise CannotMatch("the weights are not symmetric int8 (zero point 0)")
    return Weighted(call, output, x, weights, bias)


def has_constant_bias(graph: Graph, bias: relax.Expr, channel_axis: int) -> bool:
    """True for a constant that varies along the output channels only, or not at all."""
    constant = graph.quantized_constant(bias)
    values = graph.constant(bias) if constant is None else constant.values
    if values is None:
        return False
    return all(
        size == 1 for axis, size in enumerate(values.shape) if axis - values.ndim != channel_axis
    )


def integer_bias(
    graph: Graph, bias: relax.Expr | None, accumulator_scale: np.ndarray
) -> np.ndarray:
    """A constant bias in units of `accumulator_scale` (float64 `[channels]`), int64 `[channels]`.

    An int32 bias normally has exactly that scale and is taken as it is; any other is rescaled.
    """
    channels = accumulator_scale.size
    if bias is None:
        return np.zeros(channels, np.int64)
    safe = np.where(accumulator_scale > 0, accumulator_scale, 1.0)
    quantized = graph.quantized_constant(bias)
    if quantized is not None:
        values = (quantized.values.astype(np.int64) - quantized.zero_point).reshape(-1)
        scale = np.broadcast_to(quantized.scale.reshape(-1), (channels,))
        values = np.broadcast_to(values, (channels,))
        if np.allclose(scale, accumulator_scale, rtol=1e-3, atol=0):
            return values
        return np.round(values * (scale / safe)).astype(np.int64)
    constant = graph.constant(bias)
    assert constant is not None
    real = np.broadcast_to(constant.astype(np.float64).reshape(-1), (channels,))
    return np.round(real / safe).astype(np.int64)


def channel_scale(scale: np.ndarray, channels: int, axes: tuple[int, ...]) -> np.ndarray:
    """Weight scale of each output channel, float64 `[channels]`.

    `axes` are the weight axes that together run over output channels, in order.

    Raises:
        CannotMatch: the scale varies within an output channel.
    """
    others = tuple(axis for axis in range(scale.ndim) if axis not in axes)
    moved = scale.transpose(*axes, *others).reshape(channels, -1)
    if not (moved == moved[:, :1]).all():
        raise CannotMatch("the weight scale varies within an output channel")
    return moved[:, 0].copy()


def fold_constants(
    graph: Graph,
    layer: Weighted,
    weight_rows: np.ndarray,
    weight_scale: np.ndarray,
    form: Literal["double", "single"],
) -> Constants:
    """Bias with the input zero point folded in, and the requantization tables.

    sum(w * (x - zx)) + b = sum(w * x) + (b - zx * sum(w)): exact, and it holds at the border too
    because padding is filled with zx.

    Args:
        weight_rows: int8 `[channels, taps]`.
        weight_scale: float64 `[channels]`.
        form: LiteRT's rounding for this operator, used when the graph asks for "tflite".

    Raises:
        BuildFailed: bias or accumulator may leave int32.
    """
    channels = weight_rows.shape[0]
    rows = weight_rows.astype(np.int64)
    accumulator_scale = layer.x.scale * weight_scale
    bias = integer_bias(graph, layer.bias, accumulator_scale)
    folded = bias - layer.x.zero_point * rows.sum(1)
    bound = int((128 * np.abs(rows).sum(1) + np.abs(folded)).max(initial=0))
    if bound >= INT32_LIMIT:
        raise BuildFailed(
            f"An accumulator of {channels} channels by {rows.shape[1]} taps may reach {bound}; "
            f"int32 holds {INT32_LIMIT - 1}.",
            next_step="Check the bias: its scale must be input scale times weight scale.",
        )
    requantize, tables = make_requantize(
        accumulator_scale / layer.output.scale,
        form="smmla" if graph.requantize == "smmla" else form,
        zero_point=layer.output.zero_point,
        low=layer.output.low,
        high=layer.output.high,
        accumulator_bound=bound,
    )
    return Constants(requantize, folded.astype(np.int32), tables)
