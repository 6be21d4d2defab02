"""The nodes that `sequences.py` makes, and LayerNormalization."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from torch import nn

from edgecompress.model.attention import mix, scores_of
from edgecompress.model.importer.convolution import set_parameters
from edgecompress.model.importer.view import GraphView, Refused, Step, attribute
from edgecompress.model.offset import Offset
from edgecompress.model.recurrent import GRU, LSTM


def dense(node: onnx.NodeProto, view: GraphView) -> Step:
    """nn.Linear over the last axis."""
    weight, bias = view.constant(node, 1, "weight"), view.optional(node, 2, "bias")
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    set_parameters(module, weight=weight, bias=bias)
    return Step(node.name, (view.activation(node),), node.output[0], modules=(("", module),))


def recurrent(node: onnx.NodeProto, view: GraphView) -> Step:
    """GRU or LSTM; only its last state where nothing else is read."""
    w, r, wb, rb = (view.constants[name] for name in node.input[1:])
    kind = GRU if attribute(node, "cell", "") == "GRU" else LSTM
    module = kind(
        w.shape[1],
        r.shape[1],
        reverse=bool(attribute(node, "reverse", 0)),
        sequence=not _gives_last_state(node, view),
    )
    set_parameters(module.layer, weight_ih_l0=w, weight_hh_l0=r, bias_ih_l0=wb, bias_hh_l0=rb)
    return Step(node.name, (view.activation(node),), node.output[0], modules=(("", module),))


def _gives_last_state(node: onnx.NodeProto, view: GraphView) -> bool:
    """Whether every reader takes the step of time that was computed last."""
    steps = view.shape(node.output[0])[1]
    last = 0 if attribute(node, "reverse", 0) else steps - 1
    readers = view.consumers.get(node.output[0], [])
    return bool(readers) and all(
        reader.op_type == "Select" and attribute(reader, "index", -1) == last for reader in readers
    )


def select(node: onnx.NodeProto, view: GraphView) -> Step:
    """One step of time; nothing behind a recurrent layer that gives only its last state."""
    source = view.activation(node)
    producer = view.producers.get(source)
    recurrent = producer is not None and producer.op_type == "Recurrent"
    if producer is not None and recurrent and _gives_last_state(producer, view):
        return Step(node.name, (source,), node.output[0])
    index = int(attribute(node, "index", 0))
    return Step(node.name, (source,), node.output[0], function=torch.select, extra=(1, index))


def time_mean(node: onnx.NodeProto, view: GraphView) -> Step:
    """The mean over the steps of time, [N, features]."""
    source = view.activation(node)
    return Step(node.name, (source,), node.output[0], function=torch.mean, extra=(1,))


def attention_product(node: onnx.NodeProto, view: GraphView) -> Step:
    """One of the two products of attention."""
    heads = int(attribute(node, "heads", 1))
    inputs = tuple(view.activation(node, index) for index in range(2))
    function = scores_of if node.op_type == "Scores" else mix
    return Step(node.name, inputs, node.output[0], function=function, extra=(heads,))


def attention_softmax(node: onnx.NodeProto, view: GraphView) -> Step:
    source = view.activation(node)
    return Step(node.name, (source,), node.output[0], modules=(("", nn.Softmax(dim=-1)),))


def offset(node: onnx.NodeProto, view: GraphView) -> Step:
    value = torch.from_numpy(np.array(view.constant(node, 1, "offset"), np.float32))
    return Step(node.name, (view.activation(node),), node.output[0], modules=(("", Offset(value)),))


def layer_normalization(node: onnx.NodeProto, view: GraphView) -> Step:
    """nn.LayerNorm over the last axis."""
    source = view.activation(node)
    shape = view.shape(source)
    if int(attribute(node, "axis", -1)) % len(shape) != len(shape) - 1 or len(shape) not in (2, 3):
        raise Refused("only the last axis of [N, features] or [N, time, features] is supported")
    module = nn.LayerNorm(shape[-1], eps=float(attribute(node, "epsilon", 1e-5)))
    bias = view.optional(node, 2, "bias")
    bias = np.zeros(shape[-1], np.float32) if bias is None else bias
    set_parameters(module, weight=view.constant(node, 1, "scale"), bias=bias)
    return Step(node.name, (source,), node.output[0], modules=(("", module),))
