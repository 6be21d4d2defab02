"""How the layers of recurrent and transformer networks are written as ONNX.

A GRU or LSTM stays one node; W and R are int8 with a scale a row, B and the state stay real:

    x -> DequantizeLinear -> Transpose (time first) -> GRU -> Squeeze -> Transpose -> QuantizeLinear

The integer kernel keeps the state in 16 bits, so nothing about it needs calibration.

Attention is two products with a softmax between them; heads are split and joined by reshapes and
transposes that the compiler turns into addressing:

    q, k -> Reshape, Transpose -> MatMul -> Reshape [N heads, time, other] -> QuantizeLinear
    -> Softmax -> QuantizeLinear -> Reshape, MatMul by v, Transpose, Reshape -> QuantizeLinear
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import torch
from torch import nn

from edgecompress.compress.layers import input_nodes, module_of
from edgecompress.model.offset import Offset
from edgecompress.model.recurrent import LSTM, Recurrent

SEQUENCE_KINDS = frozenset(
    {
        "recurrent", "layernorm", "gelu", "sigmoid", "tanh", "offset", "select", "mean", "permute",
        "scores", "mix",
    }
)  # fmt: skip
# torch's gates r z n and i f g o in ONNX's order z r h and i o f c
_ONNX_ORDER = {3: (1, 0, 2), 4: (0, 3, 1, 2)}


@dataclass(frozen=True)
class Emitter:
    """The writer's means: constant(name, value), emit(operator, inputs, name, output, ...)."""

    constant: Callable[[str, np.ndarray], str]
    emit: Callable[..., None]


def emit_sequence_layer(
    to: Emitter,
    node: torch.fx.Node,
    kind: str,
    sources: list[str],
    name: str,
    shapes: dict[torch.fx.Node, tuple[int, ...]],
) -> None:
    """Writes one node of a kind in SEQUENCE_KINDS; its real output is called `name`."""
    if kind == "recurrent":
        module = module_of(node)
        assert isinstance(module, Recurrent)
        _recurrent(to, module, sources[0], name)
    elif kind == "layernorm":
        _layer_norm(to, node, sources[0], name)
    elif kind == "gelu":
        _gelu(to, sources[0], name)
    elif kind in ("sigmoid", "tanh"):
        to.emit(kind.capitalize(), sources, name, name)
    elif kind == "offset":
        _offset(to, node, sources[0], name)
    elif kind == "select":
        step = int(node.args[2]) % shapes[input_nodes(node)[0]][1]  # type: ignore[call-overload]
        _select(to, step, sources[0], name)
    elif kind == "mean":
        to.emit("ReduceMean", sources, name, name, axes=[1], keepdims=0)
    elif kind == "permute":
        to.emit("Transpose", sources, name, name, perm=list(node.args[1]))  # type: ignore[arg-type]
    elif kind == "scores":
        _scores(to, node, sources, name, shapes[node])
    else:
        _mix(to, node, sources, name, shapes[input_nodes(node)[0]])


def emit_dense_rows(to: Emitter, inputs: list[str], name: str) -> None:
    """A dense layer over the last axis of [N, time, features]: Gemm knows two dimensions only."""
    source, weight, bias = inputs
    turned, product = f"{name}.weight_transposed", f"{name}.product"
    to.emit("Transpose", [weight], turned, turned, perm=[1, 0])
    to.emit("MatMul", [source, turned], product, product)
    to.emit("Add", [product, bias], name, name)


def row_scales(rows: np.ndarray, bias: np.ndarray, product_scale: float) -> np.ndarray:
    """max|w| / 127 of each row, not below what lets the bias fit 2^30 steps; float32 [rows]."""
    largest = np.abs(rows.astype(np.float64)).max(axis=1) / 127
    floor = max(float(largest.max()) * 2.0**-20, 2.0**-40)
    for_bias = np.abs(bias.astype(np.float64)) / (product_scale * 2.0**30)
    return np.maximum(np.maximum(largest, floor), for_bias).astype(np.float32)


def _recurrent(to: Emitter, module: Recurrent, source: str, name: str) -> None:
    layer, order = module.layer, _ONNX_ORDER[module.gates]

    def rows(parameter: str) -> np.ndarray:
        array = layer.get_parameter(parameter).detach().float().numpy()
        gates = array.reshape(len(order), -1, *array.shape[1:])
        return gates[list(order)].reshape(array.shape)

    parts = {"weight": rows("weight_ih_l0"), "recurrence": rows("weight_hh_l0")}
    biases = [rows("bias_ih_l0"), rows("bias_hh_l0")]
    names = []
    for (part, values), bias in zip(parts.items(), biases, strict=True):
        # the state's product has the finer scale of the two: 2^-15 against an int8 input's
        scale = row_scales(values, bias, 2.0**-15)
        stored = np.clip(np.rint(values / scale[:, None]), -127, 127).astype(np.int8)
        names.append(_dequantized(to, f"{name}.{part}", stored[None], scale, axis=1))
    bias = to.constant(f"{name}.bias", np.concatenate(biases)[None].astype(np.float32))
    before = f"{name}.time_first"
    to.emit("Transpose", [source], before, before, perm=[1, 0, 2])
    kind = "LSTM" if isinstance(module, LSTM) else "GRU"
    every, last = f"{name}.states", f"{name}.last"
    outputs = [every, last] if not module.sequence else [every]
    attributes: dict[str, Any] = {
        "hidden_size": module.hidden,
        "direction": "reverse" if module.reverse else "forward",
    }
    if kind == "GRU":
        attributes["linear_before_reset"] = 1
    to.emit(kind, [before, *names, bias], f"{name}.layer", outputs, **attributes)
    if module.sequence:
        axis = to.constant(f"{name}.direction_axis", np.array([1], np.int64))
        squeezed = f"{name}.squeezed"
        to.emit("Squeeze", [every, axis], squeezed, squeezed)
        to.emit("Transpose", [squeezed], name, name, perm=[1, 0, 2])
    else:
        axis = to.constant(f"{name}.direction_axis", np.array([0], np.int64))
        to.emit("Squeeze", [last, axis], name, name)


def _dequantized(
    to: Emitter, name: str, stored: np.ndarray, scale: np.ndarray, axis: int | None
) -> str:
    inputs = [
        to.constant(f"{name}_quantized", stored),
        to.constant(f"{name}.scale", scale),
        to.constant(f"{name}.zero_point", np.zeros(scale.shape, np.int8)),
    ]
    attributes = {} if axis is None else {"axis": axis}
    to.emit("DequantizeLinear", inputs, f"{name}_dequantize", name, **attributes)
    return name


def _layer_norm(to: Emitter, node: torch.fx.Node, source: str, name: str) -> None:
    module = module_of(node)
    assert isinstance(module, nn.LayerNorm)
    size = module.normalized_shape[0]
    weight = module.weight.detach().float().numpy() if module.weight is not None else np.ones(size)
    bias = module.bias.detach().float().numpy() if module.bias is not None else np.zeros(size)
    inputs = [
        source,
        to.constant(f"{name}.weight", weight.astype(np.float32)),
        to.constant(f"{name}.bias", bias.astype(np.float32)),
    ]
    to.emit("LayerNormalization", inputs, name, name, axis=-1, epsilon=float(module.eps))


def _gelu(to: Emitter, source: str, name: str) -> None:
    """x (1 + erf(x / sqrt 2)) / 2; opset 17 has no operator of its own."""

    def scalar(what: str, value: float) -> str:
        return to.constant(f"{name}.{what}", np.array(value, np.float32))

    divided, curve, raised, product = (f"{name}.{p}" for p in ("divided", "erf", "raised", "twice"))
    to.emit("Div", [source, scalar("root", sqrt(2))], divided, divided)
    to.emit("Erf", [divided], curve, curve)
    to.emit("Add", [curve, scalar("one", 1.0)], raised, raised)
    to.emit("Mul", [source, raised], product, product)
    to.emit("Mul", [product, scalar("half", 0.5)], name, name)


def _offset(to: Emitter, node: torch.fx.Node, source: str, name: str) -> None:
    module = module_of(node)
    assert isinstance(module, Offset)
    value = module.value.detach().float().numpy()
    scale = np.array(max(float(np.abs(value).max()) / 127, 1e-8), np.float32)
    stored = np.clip(np.rint(value / scale), -127, 127).astype(np.int8)
    to.emit("Add", [source, _dequantized(to, f"{name}.value", stored, scale, None)], name, name)


def _select(to: Emitter, step: int, source: str, name: str) -> None:
    bounds = [
        to.constant(f"{name}.{what}", np.array([value], np.int64))
        for what, value in (("start", step), ("end", step + 1), ("axis", 1))
    ]
    taken = f"{name}.taken"
    to.emit("Slice", [source, *bounds], taken, taken)
    to.emit("Squeeze", [taken, bounds[2]], name, name)


def _heads(to: Emitter, source: str, name: str, heads: int, perm: list[int]) -> str:
    """[N, time, heads * size] split and turned; 0 copies a dimension, so any batch runs."""
    shape = to.constant(f"{name}.shape", np.array([0, 0, heads, -1], np.int64))
    view, turned = f"{name}.view", f"{name}.heads"
    to.emit("Reshape", [source, shape], view, view)
    to.emit("Transpose", [view], turned, turned, perm=perm)
    return turned


def _scores(
    to: Emitter, node: torch.fx.Node, sources: list[str], name: str, shape: tuple[int, ...]
) -> None:
    heads = int(node.args[2])  # type: ignore[call-overload]
    q = _heads(to, sources[0], f"{name}.q", heads, [0, 2, 1, 3])
    k = _heads(to, sources[1], f"{name}.k", heads, [0, 2, 3, 1])
    product = f"{name}.product"
    to.emit("MatMul", [q, k], product, product)
    flat = to.constant(f"{name}.flat", np.array([-1, *shape[2:]], np.int64))
    to.emit("Reshape", [product, flat], name, name)


def _mix(
    to: Emitter,
    node: torch.fx.Node,
    sources: list[str],
    name: str,
    weights_shape: tuple[int, ...],
) -> None:
    heads = int(node.args[2])  # type: ignore[call-overload]
    shape = to.constant(f"{name}.weights_shape", np.array([-1, *weights_shape[1:]], np.int64))
    weights, product, turned = (f"{name}.{part}" for part in ("weights", "product", "turned"))
    to.emit("Reshape", [sources[0], shape], weights, weights)
    v = _heads(to, sources[1], f"{name}.v", heads, [0, 2, 1, 3])
    to.emit("MatMul", [weights, v], product, product)
    to.emit("Transpose", [product], turned, turned, perm=[0, 2, 1, 3])
    joined = to.constant(f"{name}.joined", np.array([0, 0, -1], np.int64))
    to.emit("Reshape", [turned, joined], name, name)
