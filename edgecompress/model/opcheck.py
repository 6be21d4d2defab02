"""Which operators of a model cannot be compiled, all of them at once."""

from __future__ import annotations

import onnx

from edgecompress.errors import UnsupportedOperators
from edgecompress.model.importer.operators import SUPPORTED, import_graph
from edgecompress.model.load import Source


def check_operators(source: Source) -> None:
    """Returns where every operator of a float source is supported.

    Deployable and TFLite sources pass, but for 16-bit activations: their operators are judged
    where they are lowered, which is the only place that knows the integer kernels.

    Raises:
        UnsupportedOperators: (type, node name, reason) of every node that is not.
    """
    if source.onnx is None:
        return
    if source.kind != "float":
        _refuse_wide_activations(source.onnx)
        return
    _, _, refused = import_graph(source.onnx)
    if refused:
        raise UnsupportedOperators(refused, next_step=f"Supported: {', '.join(sorted(SUPPORTED))}.")


def _refuse_wide_activations(model: onnx.ModelProto) -> None:
    wide = {
        tensor.name: onnx.TensorProto.DataType.Name(tensor.data_type).lower()
        for tensor in model.graph.initializer
        if tensor.data_type in (onnx.TensorProto.INT16, onnx.TensorProto.UINT16)
    }
    refused = [
        (node.op_type, node.name or node.output[0], f"{wide[node.input[2]]} activations")
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and len(node.input) > 2 and node.input[2] in wide
    ]
    if refused:
        raise UnsupportedOperators(
            refused, next_step="Kernels take int8; onnxruntime runs this model on a host."
        )
