"""Reading an imported quantized model: the questions matchers ask of its Relax function.

Both importers give the same picture. An int8 value is a *cut point*; between cut points float trees
`quantize(op(dequantize(x), dequantize(w)) [+ bias] [activation])` say what integer work is meant.
uint8 is read as int8 with 128 taken from value and zero point, which is exact.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import tvm
from tvm import relax

_INTEGER = ("int8", "uint8")


@dataclass(frozen=True)
class Activation:
    """dequantize(value): real = scale * (value - zero_point), as int8."""

    value: relax.Var
    scale: float
    zero_point: int


@dataclass(frozen=True)
class QuantizedConstant:
    """dequantize(constant): `scale` (float64) and `zero_point` have the shape of `values`."""

    values: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray


@dataclass(frozen=True)
class Output:
    """clip?(quantize(activation?(source))): bounds and zero point are int8 values."""

    source: relax.Expr
    scale: float
    zero_point: int
    low: int
    high: int


class Graph:
    """A read-only view of one Relax function made of dataflow bindings.

    Args:
        function: `main` of an imported model, canonicalized (passes/canonicalize.py).
        layout: how the source orders 4-D tensors: "NCHW" (ONNX) or "NHWC" (TFLite).
        requantize: the rounding the kernels are to use.
    """

    def __init__(
        self,
        function: relax.Function,
        *,
        layout: Literal["NCHW", "NHWC"],
        requantize: Literal["smmla", "tflite"] = "smmla",
    ) -> None:
        self.function, self.layout, self.requantize = function, layout, requantize
        self.bindings: dict[relax.Var, relax.Expr] = {}
        self.users: dict[relax.Var, list[relax.Var]] = defaultdict(list)
        for block in function.body.blocks:
            for binding in block.bindings:
                self.bindings[binding.var] = binding.value
                for argument in _arguments(binding.value):
                    self.users[argument].append(binding.var)
        attributes = function.attrs or {}
        count = int(attributes["num_input"]) if "num_input" in attributes else len(function.params)
        self.inputs: tuple[relax.Var, ...] = tuple(function.params[:count])
        result = self.value(function.body.body)
        fields = result.fields if isinstance(result, relax.Tuple) else [function.body.body]
        self.outputs: tuple[relax.Var, ...] = tuple(self.root(field) for field in fields)

    def root(self, expression: relax.Expr) -> relax.Expr:
        """The variable behind `a = b` bindings."""
        while isinstance(self.bindings.get(expression), relax.Var):
            expression = self.bindings[expression]
        return expression

    def value(self, expression: relax.Expr) -> relax.Expr:
        """What a variable is bound to (through `a = b`); anything else is itself."""
        expression = self.root(expression)
        return self.bindings.get(expression, expression)

    def arguments(self, expression: relax.Expr) -> list[relax.Var]:
        """The variables a value is computed from, tuples opened."""
        return _arguments(self.value(expression))

    def call(self, expression: relax.Expr, op: str | None = None) -> relax.Call | None:
        """The operator call a value is bound to; None if it is none (or not `op`)."""
        bound = self.value(expression)
        if not isinstance(bound, relax.Call) or not isinstance(bound.op, tvm.ir.Op):
            return None
        return bound if op is None or bound.op.name == "relax." + op else None

    def op(self, expression: relax.Expr) -> str | None:
        """Operator name without "relax.", as "nn.conv2d"; None for anything else."""
        call = self.call(expression)
        return None if call is None else call.op.name.removeprefix("relax.")

    def shape(self, expression: relax.Expr) -> tuple[int, ...]:
        """Shape in the source's layout."""
        return tuple(int(size) for size in self.root(expression).ty.shape.values)

    def dtype(self, expression: relax.Expr) -> str:
        return str(self.root(expression).ty.dtype)

    def is_image(self, expression: relax.Expr) -> bool:
        """True when the device's order (NHWC) differs from the source's (NCHW)."""
        return self.layout == "NCHW" and len(self.shape(expression)) == 4

    def device_shape(self, expression: relax.Expr) -> tuple[int, ...]:
        """Shape as kernels see it: 4-D tensors are NHWC."""
        shape = self.shape(expression)
        if not self.is_image(expression):
            return shape
        batch, channels, height, width = shape
        return batch, height, width, channels

    def device_axis(self, expression: relax.Expr, axis: int) -> int:
        """A source axis (may be negative) in the device's order."""
        rank = len(self.shape(expression))
        axis = axis % rank
        return (0, 3, 1, 2)[axis] if self.is_image(expression) else axis

    def storage(self, expression: relax.Expr) -> np.ndarray:
        """For each position of the tensor in device memory, its linear index in the source."""
        shape = self.shape(expression)
        index = np.arange(int(np.prod(shape))).reshape(shape)
        return (index.transpose(0, 2, 3, 1) if self.is_image(expression) else index).reshape(-1)

    def storage_order(self, value: relax.Expr) -> np.ndarray | None:
        """The NHWC order a flattened image is left in, when only dense layers read it.

        Device element i of `value` is then source element `order[i]`: a dense layer permutes its
        weight columns once, at compile time, and the flatten costs nothing. None when the value is
        stored in the source's own order.
        """
        reshape = self.call(value, "reshape")
        shape = self.shape(value)
        if reshape is None or len(shape) != 2 or shape[0] != 1:
            return None
        order = self.storage(reshape.args[0])
        if (order == np.arange(order.size)).all() or self.root(value) in self.outputs:
            return None
        return order if self._only_dense_reads(self.root(value)) else None

    def _only_dense_reads(self, value: relax.Expr) -> bool:
        for reader in self.users[value]:
            if self.call(reader, "dequantize") is None or reader in self.outputs:
                return False
            for user in self.users[reader]:
                matmul = self.call(user, "matmul")
                if matmul is None or self.root(matmul.args[0]) != reader:
                    return False
                if self.quantized_constant(matmul.args[1]) is None:
                    return False
        return True

    def constant(self, expression: relax.Expr) -> np.ndarray | None:
        """numpy value of a constant, through permute_dims, reshape and broadcasts; else None."""
        bound = self.value(expression)
        if type(bound).__name__ in ("GenericConst", "Constant"):
            return (bound.value if hasattr(bound, "value") else bound.data).numpy()
        call = self.call(expression)
        if call is None or not call.args:
            return None
        move = _movement(self.op(expression), call)
        if move is None:
            return None
        inner = self.constant(call.args[0])
        return None if inner is None else move(inner)

    def scalar(self, expression: relax.Expr | tvm.ir.PrimExpr) -> float | None:
        """A one-element constant, or a literal attribute argument; else None."""
        if not isinstance(expression, relax.Expr) or hasattr(expression, "value"):
            literal = getattr(expression, "value", expression)
            if isinstance(literal, (int, float)) or hasattr(literal, "value"):
                return float(getattr(literal, "value", literal))
        array = self.constant(expression)
        return float(array.reshape(())) if array is not None and array.size == 1 else None

    def activation(self, expression: relax.Expr) -> Activation | None:
        """dequantize of a value that is not constant, per tensor; else None."""
        call = self.call(expression, "dequantize")
        if call is None or self.constant(call.args[0]) is not None:
            return None
        if self.dtype(call.args[0]) not in _INTEGER:
            return None
        scale, zero_point = self.scalar(call.args[1]), self.scalar(call.args[2])
        if scale is None or zero_point is None:
            return None
        shift = 128 if self.dtype(call.args[0]) == "uint8" else 0
        return Activation(self.root(call.args[0]), scale, int(zero_point) - shift)

    def quantized_constant(self, expression: relax.Expr) -> QuantizedConstant | None:
        """dequantize of a constant, per tensor or per axis, moved by any permute or reshape."""
        call = self.call(expression)
        if call is None:
            return None
        if self.op(expression) == "dequantize":
            return self._dequantized(call)
        move = _movement(self.op(expression), call)
        inner = self.quantized_constant(call.args[0]) if move is not None else None
        if move is None or inner is None:
            return None
        return QuantizedConstant(move(inner.values), move(inner.scale), move(inner.zero_point))

    def _dequantized(self, call: relax.Call) -> QuantizedConstant | None:
        values = self.constant(call.args[0])
        scale, zero_point = self.constant(call.args[1]), self.constant(call.args[2])
        if values is None or scale is None or zero_point is None:
            return None
        zero_point = zero_point.astype(np.int64)
        if values.dtype == np.uint8:
            values, zero_point = (values.astype(np.int16) - 128).astype(np.int8), zero_point - 128
        axis = int(call.attrs.axis) % max(values.ndim, 1)

        def spread(parameter: np.ndarray) -> np.ndarray:
            if parameter.size == 1:
                return np.broadcast_to(parameter.reshape(()), values.shape)
            along = [-1 if i == axis else 1 for i in range(values.ndim)]
            return np.broadcast_to(parameter.reshape(along), values.shape)

        return QuantizedConstant(values, spread(scale.astype(np.float64)), spread(zero_point))

    def output(self, value: relax.Expr) -> Output | None:
        """How an int8 value comes from a float expression; None when it does not.

        relu, relu6 and clip between operator and quantize, and an int8 clip behind it, become the
        bounds: quantization is monotonic, so clamping after rounding is the same.
        """
        low, high = -128, 127
        shift = 128 if self.dtype(value) == "uint8" else 0
        clip = self.call(value, "clip")
        if clip is not None and self.op(clip.args[0]) == "quantize":
            low = max(low, int(self.scalar(clip.args[1])) - shift)
            high = min(high, int(self.scalar(clip.args[2])) - shift)
            value = clip.args[0]
        quantize = self.call(value, "quantize")
        if quantize is None:
            return None
        scale, zero_point = self.scalar(quantize.args[1]), self.scalar(quantize.args[2])
        if scale is None or zero_point is None:
            return None
        zero_point = int(zero_point) - shift
        source = self.root(quantize.args[0])
        while (bounds := self._activation_bounds(source)) is not None:
            source, least, most = bounds
            low = max(low, _quantize_bound(least, scale, zero_point))
            high = min(high, _quantize_bound(most, scale, zero_point))
        return Output(source, scale, zero_point, low, max(low, high))

    def _activation_bounds(self, source: relax.Expr) -> tuple[relax.Expr, float, float] | None:
        """(operand, least, most) of relu, relu6 or clip used by this one quantize only."""
        call = self.call(source)
        operand = self.root(call.args[0]) if call is not None and call.args else None
        if self.op(source) == "nn.relu":
            return operand, 0.0, np.inf
        if self.op(source) == "nn.relu6":
            return operand, 0.0, 6.0
        if self.op(source) == "clip":
            least, most = self.scalar(call.args[1]), self.scalar(call.args[2])
            if least is not None and most is not None:
                return operand, least, most
        return None


def _quantize_bound(real: float, scale: float, zero_point: int) -> int:
    """LiteRT's activation bound: zero_point + round(real / scale) in float32, kept in int8."""
    quotient = float(np.float32(real) / np.float32(scale))
    if not np.isfinite(quotient):
        return 127 if quotient > 0 else -128
    rounded = np.floor(abs(quotient) + 0.5) * np.sign(quotient)
    return int(np.clip(zero_point + rounded, -128, 127))


def _movement(op: str | None, call: relax.Call) -> Any:
    """The numpy function of an operator that only moves data; None for any other."""
    if op == "permute_dims":
        axes = None if call.attrs.axes is None else [int(axis) for axis in call.attrs.axes]
        return lambda array: array.transpose(axes)
    if op in ("reshape", "broadcast_to"):
        shape = [int(size) for size in call.args[1].values]
        if op == "reshape":
            return lambda array: array.reshape(shape)
        return lambda array: np.broadcast_to(array, shape)
    if op in ("squeeze", "expand_dims"):
        shape = [int(size) for size in call.ty.shape.values]
        return lambda array: array.reshape(shape)
    return None


def _arguments(expression: relax.Expr) -> list[relax.Var]:
    """The variables an expression reads, tuples opened."""
    if isinstance(expression, relax.Var):
        return [expression]
    if isinstance(expression, relax.Call):
        return [variable for argument in expression.args for variable in _arguments(argument)]
    if isinstance(expression, relax.Tuple):
        return [variable for item in expression.fields for variable in _arguments(item)]
    if isinstance(expression, relax.TupleGetItem):
        return _arguments(expression.tuple_value)
    return []
