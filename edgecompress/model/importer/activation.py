"""Relu, Clip, Sigmoid, Tanh, Gelu, Softmax, and what does nothing at inference."""

from __future__ import annotations

import numpy as np
import onnx
from torch import nn

from edgecompress.model.importer.view import GraphView, Refused, Step, attribute, single_output


def relu(node: onnx.NodeProto, view: GraphView) -> Step:
    return Step(node.name, (view.activation(node),), node.output[0], modules=(("", nn.ReLU()),))


def clip(node: onnx.NodeProto, view: GraphView) -> Step:
    """[0, 6] is nn.ReLU6, [0, infinity] is nn.ReLU; other bounds are refused."""
    source = view.activation(node)
    low = _bound(view.input_or_attribute(node, 1, "min"), -np.inf)
    high = _bound(view.input_or_attribute(node, 2, "max"), np.inf)
    # Exporters write the float32 extremes for "no bound".
    high = np.inf if high >= np.finfo(np.float32).max else high
    if (low, high) == (0.0, 6.0):
        module: nn.Module = nn.ReLU6()
    elif (low, high) == (0.0, np.inf):
        module = nn.ReLU()
    else:
        raise Refused(f"bounds [{low:g}, {high:g}]; only [0, 6] and [0, inf] are supported")
    return Step(node.name, (source,), node.output[0], modules=(("", module),))


def sigmoid(node: onnx.NodeProto, view: GraphView) -> Step:
    return Step(node.name, (view.activation(node),), node.output[0], modules=(("", nn.Sigmoid()),))


def tanh(node: onnx.NodeProto, view: GraphView) -> Step:
    return Step(node.name, (view.activation(node),), node.output[0], modules=(("", nn.Tanh()),))


def gelu(node: onnx.NodeProto, view: GraphView) -> Step:
    module = nn.GELU(approximate=attribute(node, "approximate", "none"))
    return Step(node.name, (view.activation(node),), node.output[0], modules=(("", module),))


def softmax(node: onnx.NodeProto, view: GraphView) -> Step:
    """Over the features of [N, features]."""
    source = view.activation(node)
    rank = len(view.shape(source))
    axis = int(attribute(node, "axis", -1 if view.opset >= 13 else 1)) % rank
    if rank != 2 or axis != 1:
        raise Refused(f"over axis {axis} of {rank} dimensions; only [N, features] is supported")
    return Step(node.name, (source,), node.output[0], modules=(("", nn.Softmax(dim=1)),))


def passthrough(node: onnx.NodeProto, view: GraphView) -> Step:
    """Identity, and Dropout at inference."""
    return Step(node.name, (view.activation(node),), single_output(node, view))


def _bound(value: np.ndarray | None, default: float) -> float:
    return default if value is None else float(value)
