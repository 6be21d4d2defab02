"""Reads a chain of elementwise float operators on one activation as a numpy function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import erf, pi, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Activation, Graph

Function = Callable[[np.ndarray], np.ndarray]
_erf = np.vectorize(erf, otypes=[np.float64])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


_UNARY: dict[str, Function] = {
    "nn.relu": lambda x: np.maximum(x, 0),
    "nn.relu6": lambda x: np.clip(x, 0, 6),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "nn.silu": lambda x: x * _sigmoid(x),
    "nn.gelu": lambda x: x * (1 + _erf(x / sqrt(2))) / 2,
    "nn.gelu_tanh": lambda x: x * (1 + np.tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) / 2,
    "nn.softplus": lambda x: np.logaddexp(x, 0),
    "abs": np.abs,
    "negative": np.negative,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "square": np.square,
    "erf": _erf,
    "sin": np.sin,
    "cos": np.cos,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "sign": np.sign,
}
_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "power": np.power,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


@dataclass(frozen=True)
class Unary:
    """`function` applied to the activation `x`.

    `name` is the operator when the chain is one LiteRT knows by itself ("requantize" for an empty
    chain, "nn.leakyrelu" with attributes {"alpha": ...}, "hardswish"), else "".
    """

    x: Activation
    function: Function
    name: str = ""
    attributes: dict[str, float] = field(default_factory=dict)


def evaluate(graph: Graph, source: relax.Expr) -> Unary | None:
    """The one activation and the function of it that `source` is; None when it is neither."""
    leaves: dict[relax.Var, Activation] = {}
    function = _function(graph, source, leaves, {})
    if function is None or len(leaves) != 1:
        return None
    (x,) = leaves.values()
    name, attributes = _name(graph, source)
    return Unary(x, function, name, attributes)


def _name(graph: Graph, source: relax.Expr) -> tuple[str, dict[str, float]]:
    op = graph.op(source)
    call = graph.call(source)
    if op == "dequantize":
        return "requantize", {}
    if call is not None and graph.activation(call.args[0]) is not None:
        return (op, {"alpha": float(call.attrs.alpha)}) if op == "nn.leakyrelu" else ("", {})
    return ("hardswish", {}) if _is_hardswish(graph, source) else ("", {})


def _is_hardswish(graph: Graph, source: relax.Expr) -> bool:
    """divide(multiply(x, clip(x + 3, 0, 6)), 6), as the TFLite importer writes it."""
    divide = graph.call(source, "divide")
    multiply = None if divide is None else graph.call(divide.args[0], "multiply")
    clip = None if multiply is None else graph.call(multiply.args[1], "clip")
    return clip is not None and graph.op(clip.args[0]) == "add"


def _function(
    graph: Graph,
    expression: relax.Expr,
    leaves: dict[relax.Var, Activation],
    known: dict[relax.Expr, Function],
) -> Function | None:
    expression = graph.root(expression)
    if expression in known:
        return known[expression]
    activation = graph.activation(expression)
    if activation is not None:
        leaves[activation.value] = activation
        return lambda x: x
    scalar = graph.scalar(expression)
    if scalar is not None:
        return lambda x: np.full_like(x, scalar)
    quantized = graph.quantized_constant(expression)
    if quantized is not None and quantized.values.size == 1:
        real = float(((quantized.values - quantized.zero_point) * quantized.scale).item())
        return lambda x: np.full_like(x, real)
    function = _call_function(graph, expression, leaves, known)
    if function is not None:
        known[expression] = function
    return function


def _call_function(
    graph: Graph,
    expression: relax.Expr,
    leaves: dict[relax.Var, Activation],
    known: dict[relax.Expr, Function],
) -> Function | None:
    call, op = graph.call(expression), graph.op(expression) or ""
    if call is None:
        return None
    if op in _UNARY:
        inner, outer = _function(graph, call.args[0], leaves, known), _UNARY[op]
        return None if inner is None else lambda x: outer(inner(x))
    if op in _BINARY:
        left, right = (_function(graph, argument, leaves, known) for argument in call.args)
        combine = _BINARY[op]
        return None if left is None or right is None else lambda x: combine(left(x), right(x))
    if op == "nn.leakyrelu":
        inner, alpha = _function(graph, call.args[0], leaves, known), float(call.attrs.alpha)
        return None if inner is None else lambda x: np.where(inner(x) < 0, alpha, 1) * inner(x)
    if op == "clip":
        inner = _function(graph, call.args[0], leaves, known)
        low, high = graph.scalar(call.args[1]), graph.scalar(call.args[2])
        if inner is None or low is None or high is None:
            return None
        return lambda x: np.clip(inner(x), low, high)
    return None
