"""Gemm, and MatMul by a constant with the Add of its bias."""

from __future__ import annotations

import numpy as np
import onnx
from torch import nn

from edgecompress.model.importer.convolution import set_parameters
from edgecompress.model.importer.view import GraphView, Refused, Step, attribute


def gemm(node: onnx.NodeProto, view: GraphView) -> Step:
    """alpha * A B + beta * C with constant B and C as nn.Linear."""
    source = view.activation(node)
    _require_rows(view.shape(source))
    if attribute(node, "transA", 0):
        raise Refused("transA=1 multiplies by the transposed activation")
    weight = view.constant(node, 1, "weight") * attribute(node, "alpha", 1.0)
    if not attribute(node, "transB", 0):
        weight = weight.T
    bias = view.optional(node, 2, "bias")
    if bias is not None:
        bias = _row(bias * attribute(node, "beta", 1.0), len(weight))
    return Step(node.name, (source,), node.output[0], modules=(("", _linear(weight, bias)),))


def matmul(node: onnx.NodeProto, view: GraphView) -> Step:
    """x W as nn.Linear; a constant added right after is its bias."""
    if node.input[0] in view.constants or node.input[1] not in view.constants:
        raise Refused("only activation x constant is supported, in this order")
    source = node.input[0]
    _require_rows(view.shape(source))
    weight = view.constant(node, 1, "weight")
    if weight.ndim != 2:
        raise Refused(f"weight has {weight.ndim} dimensions instead of 2")
    following = bias_add(node.output[0], view)
    if following is None:
        return Step(node.name, (source,), node.output[0], modules=(("", _linear(weight.T, None)),))
    constant = next(name for name in following.input if name in view.constants)
    bias = _row(view.constants[constant], weight.shape[1])
    return Step(
        node.name,
        (source,),
        following.output[0],
        modules=(("", _linear(weight.T, bias)),),
        absorbed=following.name,
    )


def bias_add(tensor: str, view: GraphView) -> onnx.NodeProto | None:
    """The Add of a constant row that is the only reader of `tensor`, if there is one."""
    if view.uses[tensor] != 1 or len(view.consumers.get(tensor, [])) != 1:
        return None
    node = view.consumers[tensor][0]
    other = [name for name in node.input if name != tensor]
    if node.op_type != "Add" or len(other) != 1 or other[0] not in view.constants:
        return None
    features = view.shape(tensor)[-1]
    return node if view.constants[other[0]].size in (1, features) else None


def _require_rows(shape: tuple[int, ...]) -> None:
    if len(shape) != 2:
        raise Refused(f"input has {len(shape)} dimensions; only [N, features] is supported")


def _row(bias: np.ndarray, features: int) -> np.ndarray:
    if bias.size not in (1, features):
        raise Refused(f"bias of shape {list(bias.shape)} for {features} output features")
    return np.broadcast_to(bias.reshape(-1), (features,))


def _linear(weight: np.ndarray, bias: np.ndarray | None) -> nn.Linear:
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    set_parameters(module, weight=weight, bias=bias)
    return module
