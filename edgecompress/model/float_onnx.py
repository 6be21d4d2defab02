"""The trainable form back to a float ONNX file that any tool can take further."""

from __future__ import annotations

import copy

import onnx

from edgecompress.model.export import export_module
from edgecompress.model.normalize import normalize
from edgecompress.model.trainable import Trainable


def to_float_onnx(trainable: Trainable, name: str) -> onnx.ModelProto:
    """float32, batch 1, BatchNormalization kept, layers named as in the trainable graph.

    `load_source` takes the file as it takes the original model. The same weights give the same
    bytes.

    Raises:
        UnreadableModel: torch's exporter or onnxslim refuses the graph.
    """
    graph = copy.deepcopy(trainable.graph).eval()
    exported = export_module(graph, tuple(trainable.example.shape), name)
    model = normalize(exported, name, None)
    _rename(model, model.graph.input[0], trainable.input_name)
    _rename(model, model.graph.output[0], trainable.output_name)
    model.graph.name = name
    model.producer_name = "edgecompress"
    model.ClearField("producer_version")
    onnx.checker.check_model(model, full_check=True)
    return model


def _rename(model: onnx.ModelProto, value: onnx.ValueInfoProto, wanted: str) -> None:
    """Gives a graph input or output its name; whatever else was called so makes room."""
    if value.name == wanted:
        return
    names = {tensor for node in model.graph.node for tensor in (*node.input, *node.output)}
    spare = wanted + "_1"
    while spare in names:
        spare += "_1"
    renamed = {wanted: spare, value.name: wanted}
    for node in model.graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [renamed.get(tensor, tensor) for tensor in tensors]
    known = (model.graph.input, model.graph.output, model.graph.value_info)
    for entry in (*(one for group in known for one in group), *model.graph.initializer):
        entry.name = renamed.get(entry.name, entry.name)
