from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecompress.errors import UnsupportedOperators
from edgecompress.lower.importers import import_onnx, import_tflite
from edgecompress.lower.node_names import node_name
from edgecompress.lower.passes.integerize import integerize


def transposed_convolution(node: str) -> onnx.ModelProto:
    """int8 QDQ around a ConvTranspose, which no integer kernel takes."""
    weights = np.ones((4, 4, 3, 3), np.int8)
    constants = {"scale": np.float32(0.05), "zero": np.int8(0), "w": weights}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["xq"], name="quantize"),
        helper.make_node("DequantizeLinear", ["xq", "scale", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["wd"]),
        helper.make_node("ConvTranspose", ["xd", "wd"], ["up"], name=node),
        helper.make_node("QuantizeLinear", ["up", "scale", "zero"], ["yq"], name="behind"),
        helper.make_node("DequantizeLinear", ["yq", "scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 10, 10])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])


@pytest.mark.parametrize(("node", "shown"), [("decoder/up", "decoder/up"), ("", "behind")])
def test_a_refused_operator_goes_by_its_own_name_or_the_next_one(node, shown):
    with pytest.raises(UnsupportedOperators) as caught:
        integerize(import_onnx(transposed_convolution(node)))
    assert caught.value.operators == [
        ("nn.conv2d_transpose", f"{shown} [1, 4, 10, 10]", "no integer kernel recognises it")
    ]
    assert "--allow-float" in str(caught.value.next_step)


def test_tflite_operators_go_by_their_output_tensor(shared_data):
    model = (shared_data / "mlperf_tiny" / "ad_int8.tflite").read_bytes()
    module = import_tflite(model).module
    bindings = [item for block in module["main"].body.blocks for item in block.bindings]
    names = [name for item in bindings if (name := node_name(item.value))]
    assert len(set(names)) >= 10
    assert all(name.isprintable() for name in names)
