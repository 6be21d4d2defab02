"""Add and Concat of activations."""

from __future__ import annotations

import operator

import numpy as np
import onnx
import torch

from edgecompress.model.importer.view import GraphView, Refused, Step, attribute


def add(node: onnx.NodeProto, view: GraphView) -> Step:
    """The sum of two activations of one shape; a constant of zeros adds nothing."""
    fixed = [name for name in node.input if name in view.constants]
    if fixed:
        source = next((name for name in node.input if name not in view.constants), fixed[0])
        if np.any(view.constants[fixed[0]]) or view.shape(source) != view.shape(node.output[0]):
            raise Refused("adds a constant that is not the bias of a Conv or MatMul before it")
        return Step(node.name, (source,), node.output[0])
    left, right = (view.shape(name) for name in node.input)
    if left != right:
        raise Refused(f"shapes {list(left)} and {list(right)} differ; broadcasting is unsupported")
    return Step(node.name, tuple(node.input), node.output[0], function=operator.add)


def concat(node: onnx.NodeProto, view: GraphView) -> Step:
    """torch.cat over channels or features."""
    names = tuple(view.activation(node, index) for index in range(len(node.input)))
    rank = len(view.shape(node.output[0]))
    axis = int(attribute(node, "axis", 1)) % rank
    if axis == 0:
        raise Refused("joins along the batch dimension")
    if len(names) == 1:
        return Step(node.name, names, node.output[0])
    return Step(node.name, names, node.output[0], function=torch.cat, extra=(axis,), packed=True)
