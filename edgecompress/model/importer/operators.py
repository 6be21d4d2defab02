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
    shaping,
)
from edgecompress.model.importer.one_dimensional import lift_one_dimensional
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
    "Gemm": linear.gemm,
    "GlobalAveragePool": pooling.global_average_pool,
    "Identity": activation.passthrough,
    "MatMul": linear.matmul,
    "MaxPool": pooling.max_pool,
    "Pad": shaping.pad,
    "ReduceMean": pooling.reduce_mean,
    "Relu": activation.relu,
    "Reshape": shaping.reshape,
    "Softmax": activation.softmax,
    "Squeeze": shaping.reshape,
    "Transpose": shaping.transpose,
    "Unsqueeze": shaping.reshape,
}


def read_graph(model: onnx.ModelProto) -> GraphView:
    """A normalized float model in the form the importers read."""
    return GraphView.of(lift_one_dimensional(model))


def import_nodes(view: GraphView) -> tuple[list[Step], list[tuple[str, str, str]]]:
    """The steps the output needs, and (type, name, reason) of every node that cannot be one."""
    steps: list[Step] = []
    refused: list[tuple[str, str, str]] = []
    absorbed: set[str] = set()
    for node in view.model.graph.node:
        if node.op_type == "Constant" or node.name in absorbed:
            continue
        importer = OPERATORS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        try:
            if importer is None:
                raise Refused("no int8 kernel for this operator")
            step = importer(node, view)
        except Refused as refusal:
            refused.append((node.op_type, node.name or node.output[0], str(refusal)))
            continue
        steps.append(step)
        absorbed |= {step.absorbed} - {""}
    return _needed(steps, view.output_name), refused


def _needed(steps: list[Step], output: str) -> list[Step]:
    """Without steps nobody reads, as the first of two reshapes in a row."""
    read, kept = {output}, []
    for step in reversed(steps):
        if step.output in read:
            read.update(step.inputs)
            kept.append(step)
    return kept[::-1]
