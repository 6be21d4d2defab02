"""Sizes of an int8 .tflite, from its flatbuffer."""

from __future__ import annotations

from math import prod

from edgecompress.model.steps import StepSize, StepTable
from edgecompress.model.tflite_file import TfliteGraph, TfliteOperator, read_graph

_FUSED = {"RESHAPE", "SQUEEZE", "EXPAND_DIMS"}
_WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}


def inspect_tflite(content: bytes, name: str) -> StepTable:
    """Tensors are named `index:name`, since names need not be unique in a .tflite.

    Raises:
        UnreadableModel: not a TFLite file, or damaged.
    """
    graph = read_graph(content, name)
    steps = tuple(_step(graph, index, op) for index, op in enumerate(graph.operators))
    entry = graph.inputs[0]
    return StepTable(
        _label(graph, entry), graph.tensors[entry].shape, _label(graph, graph.outputs[0]), steps
    )


def _label(graph: TfliteGraph, index: int) -> str:
    return f"{index}:{graph.tensors[index].name}"


def _step(graph: TfliteGraph, index: int, operator: TfliteOperator) -> StepSize:
    constants = [graph.tensors[i] for i in operator.inputs if graph.tensors[i].constant_bytes]
    activations = [i for i in operator.inputs if not graph.tensors[i].constant_bytes]
    output = operator.outputs[0]
    weighted = operator.kind in _WEIGHTED
    return StepSize(
        name=f"{operator.kind.lower()}_{index}",
        op=operator.kind,
        inputs=tuple(_label(graph, i) for i in activations),
        output=_label(graph, output),
        output_shape=graph.tensors[output].shape,
        macs=_macs(operator.kind, constants[0].shape, graph.tensors[output].shape)
        if weighted
        else 0,
        weight_bytes_int8=sum(c.constant_bytes for c in constants) if weighted else 0,
        fused=operator.kind in _FUSED and activations[0] not in graph.inputs,
    )


def _macs(kind: str, weight: tuple[int, ...], output: tuple[int, ...]) -> int:
    """Weights are OHWI, 1HWC for depthwise, [out, in] for dense (TFLite schema)."""
    if kind == "CONV_2D":
        return prod(output) * prod(weight[1:])
    if kind == "DEPTHWISE_CONV_2D":
        return prod(output) * prod(weight[1:3])
    return prod(weight) * prod(output[:-1])
