"""Layer normalization over the last axis, in integers.

For a row of K int8 values x with input scale s, the zero point cancels:

    d_i = K x_i - sum(x)                      exact
    N = K sum(x^2) - sum(x)^2 + E             exact; E = eps K^2 / s^2
    y_i = d_i / sqrt(N) gamma_i + beta_i

1 / sqrt(N) comes from a straight line and three Newton-Raphson steps y (3 - a y^2) / 2 on
a = N / 4^n in [1, 4), relative error below 2^-21. d_i / sqrt(N) is rounded half up to 20 fractional
bits, the output half up to int8: two roundings, within one step of the real function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, tirx
from tvm.script import tirx as T

from edgecompress.errors import BuildFailed
from edgecompress.lower.kernels.interface import CannotMatch, Match
from edgecompress.lower.program import Overlap

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph

_NORMAL_BITS = 20
# The line 1.08 - 0.155 a in Q2.30 on a in Q2.28: within 9 % of 1 / sqrt(a) on [1, 4).
_START, _SLOPE = round(1.08 * 2**30), round(0.155 * 2**30)
_MOST_FEATURES = 2**13


@dataclass(frozen=True)
class LayerNorm:
    """Arguments: x int8 [..., K]; gains int32 [K] = gamma / output scale 2^(shift - 20); offsets
    int32 [K] = (beta / output scale + zero point) 2^20.

    `dropped` (even) low bits of N are left out, so that it fits 30 bits.
    """

    shape: tuple[int, ...]
    epsilon: int
    dropped: int
    shift: int
    low: int
    high: int
    op: str = "layer_norm"
    macs: int = 0

    @property
    def overlaps(self) -> tuple[Overlap, ...]:
        return (Overlap(0),)

    def function(self, name: str) -> tirx.PrimFunc:
        """The whole PrimFunc: a row's sums, its reciprocal root, its outputs."""
        features, shape = self.shape[-1], self.shape
        rows, shift = int(np.prod(shape[:-1])), self.shift
        newton, normal, placed = _newton, self._normal, self._placed

        def at(row: Any, feature: Any) -> tuple[Any, ...]:
            lead = [tirx.const(0, "int32")] * (len(shape) - 2)
            return (*lead, row, feature)

        @T.prim_func
        def layer_norm(
            x: T.Buffer(shape, "int8"),
            gains: T.Buffer((features,), "int32"),
            offsets: T.Buffer((features,), "int32"),
            y: T.Buffer(shape, "int8"),
        ):
            for row in T.serial(rows):
                total: T.int32 = 0
                squares: T.int32 = 0
                for i in T.serial(features):
                    total = total + T.Cast("int32", x[at(row, i)])
                    squares = squares + T.Cast("int32", x[at(row, i)]) * T.Cast(
                        "int32", x[at(row, i)]
                    )
                small: T.int32 = normal(total, squares)
                zeros: T.int32 = (T.Cast("int32", T.clz(small)) - 2) & 30
                scaled: T.int32 = small << zeros
                root: T.int32 = _START - T.Cast(
                    "int32", (T.Cast("int64", scaled) * T.int64(_SLOPE)) >> T.int64(28)
                )
                for _ in T.unroll(3):
                    root = newton(root, scaled)
                right: T.int32 = self._right(zeros)
                for i in T.serial(features):
                    centred: T.int32 = T.Cast("int32", x[at(row, i)]) * features - total
                    unit: T.int32 = _rounded(centred, root, right)
                    y[at(row, i)] = placed(unit, gains[i], offsets[i], shift)

        return layer_norm.with_attr("global_symbol", name)

    def _normal(self, total: Any, squares: Any) -> Any:
        """N without its dropped bits, at least 1."""
        features = self.shape[-1]
        long = _long(squares) * _constant(features) - _long(total) * _long(total)
        kept = (long + _constant(self.epsilon)) >> _constant(self.dropped)
        return tirx.max(tirx.Cast("int32", kept), tirx.const(1, "int32"))

    def _right(self, zeros: Any) -> Any:
        """1 / sqrt(N) = root 2^(zeros / 2 - 44 - dropped / 2), wanted with 20 fractional bits."""
        return (44 + self.dropped // 2 - _NORMAL_BITS) - (zeros >> 1)

    def _placed(self, unit: Any, gain: Any, offset: Any, shift: int) -> Any:
        half = _constant(1 << (shift - 1))
        raised = _long(offset) << _constant(shift - _NORMAL_BITS)
        value = tirx.Cast("int32", (_long(unit) * _long(gain) + raised + half) >> _constant(shift))
        low, high = tirx.const(self.low, "int32"), tirx.const(self.high, "int32")
        return tirx.Cast("int8", tirx.max(tirx.min(value, high), low))

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        x, gains, offsets = (array.astype(np.int64) for array in arrays)
        features = self.shape[-1]
        total = x.sum(-1, keepdims=True)
        long = features * (x * x).sum(-1, keepdims=True) - total * total
        small = np.maximum((long + self.epsilon) >> self.dropped, 1)
        bits = np.frexp(small.astype(np.float64))[1]
        zeros = ((32 - bits) - 2) & 30
        scaled = small << zeros
        root = _START - ((scaled * _SLOPE) >> 28)
        for _ in range(3):
            square = (root * root) >> 30
            root = (root * ((3 << 30) - ((scaled * square) >> 28))) >> 31
        right = (44 + self.dropped // 2 - _NORMAL_BITS) - (zeros >> 1)
        unit = ((features * x - total) * root + (1 << (right - 1))) >> right
        half = 1 << (self.shift - 1)
        value = (unit * gains + (offsets << (self.shift - _NORMAL_BITS)) + half) >> self.shift
        return np.clip(value, self.low, self.high).astype(np.int8)


def _constant(value: int) -> Any:
    return tirx.const(value, "int64")


def _long(value: Any) -> Any:
    return tirx.Cast("int64", value)


def _newton(root: Any, scaled: Any) -> Any:
    """root (3 - a root^2) / 2 in Q2.30, a in Q2.28."""
    square = (_long(root) * _long(root)) >> _constant(30)
    error = _constant(3 << 30) - ((_long(scaled) * square) >> _constant(28))
    return tirx.Cast("int32", (_long(root) * error) >> _constant(31))


def _rounded(centred: Any, root: Any, right: Any) -> Any:
    """(centred root) / 2^right, half up; right >= 1."""
    half = _constant(1) << _long(right - 1)
    return tirx.Cast("int32", (_long(centred) * _long(root) + half) >> _long(right))


def match(graph: Graph, value: relax.Var) -> Match | None:
    """quantize(activation?(layer_norm(dequantize(x), gamma, beta))) over the device's last axis.

    Raises:
        CannotMatch: other axes, or parameters that are computed.
    """
    output = graph.output(value)
    call = None if output is None else graph.call(output.source, "nn.layer_norm")
    x = None if call is None else graph.activation(call.args[0])
    if output is None or call is None or x is None:
        return None
    shape = graph.device_shape(x.value)
    axes = [int(axis) % len(shape) for axis in call.attrs.axes]
    if graph.is_image(x.value) or axes != [len(shape) - 1]:
        raise CannotMatch(f"layer normalization over axes {axes} of {shape}; only the last one is")
    gamma, beta = graph.constant(call.args[1]), graph.constant(call.args[2])
    if gamma is None or beta is None:
        raise CannotMatch("its scale and bias are not constants")
    kernel, constants = make_layer_norm(
        shape, gamma, beta, float(call.attrs.epsilon), x.scale,
        (output.scale, output.zero_point, output.low, output.high),
    )  # fmt: skip
    return Match(kernel, (x.value,), constants)


def make_layer_norm(
    shape: tuple[int, ...],
    gamma: np.ndarray,
    beta: np.ndarray,
    epsilon: float,
    input_scale: float,
    output: tuple[float, int, int, int],
) -> tuple[LayerNorm, tuple[np.ndarray, np.ndarray]]:
    """The kernel and its gains and offsets.

    Args:
        gamma, beta: real [K].
        output: scale, zero point, lowest and highest int8 value.

    Raises:
        BuildFailed: more features than the arithmetic has room for.
    """
    scale, zero_point, low, high = output
    features = shape[-1]
    if features > _MOST_FEATURES:
        raise BuildFailed(f"Layer normalization of {features} features; {_MOST_FEATURES} at most.")
    added = min(round(epsilon * features**2 / input_scale**2), features**2 * 2**14)
    most = features**2 * 2**14 + added
    dropped = 2 * max(0, -(-(most.bit_length() - 30) // 2))
    real = gamma.astype(np.float64).reshape(-1) / scale
    largest = max(float(np.abs(real).max()), 2.0**-20)
    shift = int(np.clip(_NORMAL_BITS + np.floor(29 - np.log2(largest)), _NORMAL_BITS, 50))
    gains = np.round(real * 2.0 ** (shift - _NORMAL_BITS)).astype(np.int32)
    placed = beta.astype(np.float64).reshape(-1) / scale + zero_point
    bound = 2.0**31 / 2.0**_NORMAL_BITS - 1
    offsets = np.round(np.clip(placed, -bound, bound) * 2.0**_NORMAL_BITS).astype(np.int32)
    kernel = LayerNorm(shape, added, dropped, shift, low, high)
    return kernel, (gains, offsets)
