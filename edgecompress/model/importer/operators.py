"""The ONNX operators that can be trained, pruned and quantized, and who imports each."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from edgecompress.model.importer import (
    activation,
    convolution,
    joining,
    linear,
    normalization,
    pooling,
    sequence_layers,
    shaping,
)
from edgecompress.model.importer.one_dimensional import lift_one_dimensional
from edgecompress.model.importer.sequences import Refusal, follow_sequences
from edgecompress.model.importer.tracing import DOMAIN
from edgecompress.model.importer.view import GraphView, Refused, Step

Importer = Callable[[onnx.NodeProto, GraphView], Step]

OPERATORS: dict[str, Importer] = {
    "Add": joining.add,
    "AveragePool": pooling.average_pool,
    "BatchNormalization": normalization.batch_normalization,
    "Clip": activation.clip,
    "Concat": joining.concat,
    "Conv": convolution.convolution,
    "Dropout": activation.passthrough,
    "Flatten": shaping.reshape,
    "Gelu": activation.gelu,
    "Gemm": linear.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "Identity": activation.passthrough,
    "LayerNormalization": sequence_layers.layer_normalization,
    "MatMul": linear.matmul,
    "MaxPool": pooling.max_pool,
    "Pad": shaping.pad,
    "ReduceMean": pooling.reduce_mean,
    "Relu": activation.relu,
    "Reshape": shaping.reshape,
    "Sigmoid": activation.sigmoid,
    "Softmax": activation.softmax,
    "Squeeze": shaping.reshape,
    "Tanh": activation.tanh,
    "Transpose": shaping.transpose,
    "Unsqueeze": shaping.reshape,
}


# What `sequences.py` makes of recurrent and transformer layers.
_SEQUENCE_LAYERS: dict[str, Importer] = {
    "AttentionSoftmax": sequence_layers.attention_softmax,
    "Dense": sequence_layers.dense,
    "Mix": sequence_layers.attention_product,
    "Offset": sequence_layers.offset,
    "Recurrent": sequence_layers.recurrent,
    "Scores": sequence_layers.attention_product,
    "Select": sequence_layers.select,
    "TimeMean": sequence_layers.time_mean,
}
# The operator types a model may hold: those of the table, and those `sequences.py` takes.
SUPPORTED = frozenset({*OPERATORS, "Erf", "GRU", "Gather", "LSTM", "Mul", "Slice", "Split"})


def import_graph(model: onnx.ModelProto) -> tuple[GraphView, list[Step], list[Refusal]]:
    """A normalized float model as steps.

    Returns:
        The graph the steps were read from, the steps its output needs in execution order, and
        (type, name, reason) of every node that cannot be one.
    """
    rewritten, refused = follow_sequences(lift_one_dimensional(model))
    view = GraphView.of(rewritten)
    steps, others = _import_nodes(view)
    return view, steps, refused + [other for other in others if other[1] not in _names(refused)]


def _names(refused: list[Refusal]) -> set[str]:
    return {name for _, name, _ in refused}


def _import_nodes(view: GraphView) -> tuple[list[Step], list[Refusal]]:
    steps: list[Step] = []
    refused: list[Refusal] = []
    absorbed: set[str] = set()
    for node in view.model.graph.node:
        if node.op_type == "Constant" or node.name in absorbed:
            continue
        try:
            importer = _importer(node)
            if importer is None:
                raise Refused("no int8 kernel for this operator")
            step = importer(node, view)
        except Refused as refusal:
            refused.append((node.op_type, node.name or node.output[0], str(refusal)))
            continue
        steps.append(step)
        absorbed |= {step.absorbed} - {""}
    return _needed(steps, view.output_name), refused


def _importer(node: onnx.NodeProto) -> Importer | None:
    if node.domain == DOMAIN:
        return _SEQUENCE_LAYERS[node.op_type]
    return OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None


def _needed(steps: list[Step], output: str) -> list[Step]:
    """Without steps nobody reads, as the first of two reshapes in a row."""
    read, kept = {output}, []
    for step in reversed(steps):
        if step.output in read:
            read.update(step.inputs)
            kept.append(step)
    return kept[::-1]
