"""Sizes of a QDQ ONNX, from its inferred shapes and constants."""

from __future__ import annotations

from math import prod

import onnx

from edgecompress.model.importer.view import GraphView
from edgecompress.model.steps import StepSize, StepTable

_BORDERS = ("QuantizeLinear", "DequantizeLinear", "Constant")
_FUSED = {"Relu", "Clip", "Flatten", "Reshape", "Identity", "Dropout", "Squeeze", "Unsqueeze"}


def inspect_deployable(model: onnx.ModelProto) -> StepTable:
    """Quantize and Dequantize nodes are looked through: only the operators between them count."""
    view = GraphView.of(model)
    through = _looked_through(view)
    steps: list[StepSize] = []
    for node in model.graph.node:
        if node.op_type in _BORDERS:
            continue
        activations = [
            through.get(name, name)
            for name in node.input
            if name and through.get(name, name) not in view.constants
        ]
        constants = [
            view.constants[through.get(name, name)]
            for name in node.input[1:]
            if name and through.get(name, name) in view.constants
        ]
        shape = view.shapes.get(node.output[0], ())
        weighted = node.op_type in ("Conv", "Gemm", "MatMul")
        steps.append(
            StepSize(
                name=node.name or node.output[0],
                op=node.op_type,
                inputs=tuple(activations),
                output=node.output[0],
                output_shape=shape,
                macs=_macs(node, [array.shape for array in constants], shape),
                weight_bytes_int8=sum(a.nbytes for a in constants) if weighted else 0,
                fused=node.op_type in _FUSED and activations[0] != view.input_name,
            )
        )
    output = through.get(view.output_name, view.output_name)
    return StepTable(view.input_name, view.shapes.get(view.input_name, ()), output, tuple(steps))


def _looked_through(view: GraphView) -> dict[str, str]:
    """Tensor to what it is a quantized or dequantized copy of."""
    through: dict[str, str] = {}
    for node in view.model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            through[node.output[0]] = through.get(node.input[0], node.input[0])
    return through


def _macs(node: onnx.NodeProto, weights: list[tuple[int, ...]], output: tuple[int, ...]) -> int:
    if not weights:
        return 0
    if node.op_type == "Conv":
        return prod(output) * prod(weights[0][1:])
    return prod(weights[0]) if node.op_type in ("Gemm", "MatMul") else 0
