"""Sizes of a QDQ ONNX, from its inferred shapes and constants."""

from __future__ import annotations

from math import prod

import onnx

from edgecompress.model.importer.view import GraphView
from edgecompress.model.steps import StepSize, StepTable

_BORDERS = ("QuantizeLinear", "DequantizeLinear", "Constant")
_WEIGHTED = ("Conv", "Gemm", "MatMul", "GRU", "LSTM")
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
        if not activations:
            continue
        output = next(name for name in node.output if view.uses[name])
        shape = view.shapes.get(output, ())
        weighted = node.op_type in _WEIGHTED
        steps.append(
            StepSize(
                name=node.name or output,
                op=node.op_type,
                inputs=tuple(activations),
                output=output,
                output_shape=shape,
                macs=_macs(node, [array.shape for array in constants], shape, view),
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
        source = through.get(node.input[0], node.input[0]) if node.input else ""
        turned = node.op_type == "Transpose" and source in view.constants
        if turned or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            through[node.output[0]] = source
    return through


def _macs(
    node: onnx.NodeProto,
    weights: list[tuple[int, ...]],
    output: tuple[int, ...],
    view: GraphView,
) -> int:
    if not weights:
        return 0
    if node.op_type in ("GRU", "LSTM"):
        steps = view.shapes.get(node.input[0], (1,))[0]
        return steps * sum(prod(shape) for shape in weights[:2])
    if node.op_type == "Conv":
        return prod(output) * prod(weights[0][1:])
    rows = prod(output[:-1]) if output else 1
    return rows * prod(weights[0]) if node.op_type in ("Gemm", "MatMul") else 0
