"""Writes the deployable form: one ONNX file of Quantize/Dequantize islands.

A layer in the file, for conv1 followed by relu1:

    x_quantized  ->  DequantizeLinear  -> x_dequantized
    conv1.weight_quantized int8 [O,I,H,W]  ->  DequantizeLinear(axis=0, scales [O])
    conv1.bias_quantized int32 [O]         ->  DequantizeLinear(axis=0, scales sx * sw [O])
    Conv -> Relu -> QuantizeLinear -> relu1_quantized -> DequantizeLinear -> relu1_dequantized

Model input and output stay float32 and are quantized inside the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from edgecompress.compress.layers import input_nodes, kind_of, layer_name, module_of
from edgecompress.compress.quantize.operators import attributes_of
from edgecompress.compress.quantize.options import QuantizeOptions
from edgecompress.compress.quantize.prepare import prepare
from edgecompress.compress.quantize.prepared import (
    Layer,
    Quantized,
    bias_of,
    input_of,
)
from edgecompress.compress.quantize.sequence_layers import (
    SEQUENCE_KINDS,
    Emitter,
    emit_dense_rows,
    emit_sequence_layer,
)
from edgecompress.compress.quantize.sharing import share_scales
from edgecompress.compress.quantize.weights import quantize_bias
from edgecompress.model.trainable import Trainable
from edgecompress.records import WeightStorage

OPSET, IR_VERSION = 17, 8
# int16 values in QuantizeLinear came with opset 21.
WIDE_OPSET, WIDE_IR_VERSION = 21, 10


def quantize(
    trainable: Trainable,
    calibration: np.ndarray,
    *,
    name: str,
    weights: Mapping[str, WeightStorage] | None = None,
    options: QuantizeOptions | None = None,
) -> onnx.ModelProto:
    """The int8 model by the TensorFlow Lite rules, as ONNX QDQ (opset 17, batch 1, NCHW).

    BatchNorm is folded first. Weights: int8 [-127, 127], symmetric, one scale an output channel.
    Activations: int8 [-128, 127], asymmetric, one scale a tensor. Bias: int32, scale sx * sw.
    ReLU and ReLU6 live in the range of the producer's output, which starts at its zero point.

    Args:
        calibration: [N, ...] float32 inputs, N >= 1; a few hundred are plenty.
        name: the ONNX graph's name.
        weights: layer (or a layer that was factorized) -> storage: int4 values lie in [-7, 7],
            shared16 and shared4 take at most 16 and 4 values, sparse keeps its zeros.
        options: how scales and roundings are chosen; see there for what the defaults are.

    A model that comes from quantization-aware training is written as it was trained; neither
    calibration nor options change it.

    Raises:
        BadData: calibration is empty, not finite, or not of the model's input shape.
        BadInput: `weights` names no layer, or not what the model was trained for.
        UnsupportedOperators: a node no rule covers.
    """
    prepared = prepare(trainable, calibration, weights or {}, options)
    writer = _Writer(prepared)
    for node in prepared.graph.graph.nodes:
        writer.add(node)
    return writer.model(name)


class _Writer:
    """Emits ONNX nodes for a folded graph, one fx node at a time, in execution order."""

    def __init__(self, prepared: Quantized) -> None:
        self._trainable = prepared
        self._sharing = share_scales(prepared.graph)
        self._parameters = {node: prepared.activations[node.name] for node in self._sharing.tensors}
        self._names = _unique_names(prepared)
        self._dequantized: dict[torch.fx.Node, str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        shapes = _Shapes(prepared.graph)
        shapes.run(prepared.example)
        self._shapes = shapes.shapes

    def add(self, node: torch.fx.Node) -> None:
        kind = kind_of(node)
        if kind == "output" or node in self._sharing.pads.values():
            return
        name = self._names[node]
        if node in self._fused_activations():
            self._emit_activation(kind, node, name)
        elif kind in ("conv", "linear"):
            self._emit_weighted(node, kind, name)
        elif kind != "input":
            sources = [self._dequantized[source] for source in input_nodes(node)]
            self._emit_simple(node, kind, sources, name)
        if node in self._parameters:
            self._emit_quantize(node, name)

    def model(self, name: str) -> onnx.ModelProto:
        folded = self._trainable
        output = next(node for node in folded.graph.graph.nodes if node.op == "output")
        result = input_nodes(output)[0]
        # The last DequantizeLinear writes the model's output under its own name.
        for node in self._nodes:
            for index, tensor in enumerate(node.output):
                if tensor == self._dequantized[result]:
                    node.output[index] = folded.output_name
            for index, tensor in enumerate(node.input):
                if tensor == self._dequantized[result]:
                    node.input[index] = folded.output_name
        shape_in, shape_out = list(folded.example.shape), list(self._shapes[result])
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(folded.input_name, TensorProto.FLOAT, shape_in)],
            [helper.make_tensor_value_info(folded.output_name, TensorProto.FLOAT, shape_out)],
            list(self._initializers.values()),
        )
        wide = any(affine.bits == 16 for affine in self._parameters.values())
        opset = [helper.make_opsetid("", WIDE_OPSET if wide else OPSET)]
        model = helper.make_model(graph, opset_imports=opset, producer_name="edgecompress")
        model.ir_version = WIDE_IR_VERSION if wide else IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        return model

    def _fused_activations(self) -> set[torch.fx.Node]:
        return set(self._sharing.fused.values())

    def _constant(self, name: str, value: np.ndarray) -> str:
        self._initializers[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def _emit(
        self,
        operator: str,
        inputs: list[str],
        name: str,
        output: str | list[str],
        **attributes: Any,
    ) -> None:
        outputs = [output] if isinstance(output, str) else output
        self._nodes.append(helper.make_node(operator, inputs, outputs, name, **attributes))

    def _emit_quantize(self, node: torch.fx.Node, name: str) -> None:
        affine = self._parameters[node]
        scale = self._constant(f"{name}.scale", np.array(affine.scale, np.float32))
        dtype = np.int8 if affine.bits == 8 else np.int16
        zero = self._constant(f"{name}.zero_point", np.array(affine.zero_point, dtype))
        stored, real = f"{name}_quantized", f"{name}_dequantized"
        self._emit("QuantizeLinear", [name, scale, zero], f"{name}_quantize", stored)
        self._emit("DequantizeLinear", [stored, scale, zero], f"{name}_dequantize", real)
        self._dequantized[node] = real

    def _emit_activation(self, kind: str, node: torch.fx.Node, name: str) -> None:
        """ReLU6 is written as Relu where the quantized range already ends at or below 6."""
        affine = self._parameters[node]
        top = float(affine.scale) * (affine.highest - affine.zero_point)
        source = self._names[input_nodes(node)[0]]
        if kind == "relu" or top <= 6.0 * (1 + 1e-6):
            self._emit("Relu", [source], name, name)
        else:
            low = self._constant(f"{name}.low", np.array(0, np.float32))
            high = self._constant(f"{name}.high", np.array(6, np.float32))
            self._emit("Clip", [source, low, high], name, name)

    def _emit_weighted(self, node: torch.fx.Node, kind: str, name: str) -> None:
        layer = module_of(node)
        assert isinstance(layer, Layer)
        source = input_of(node, self._sharing)
        input_scale = self._parameters[source].scale
        grid = self._trainable.grids[layer_name(node)]
        weight = grid.round(layer.weight.detach().float().numpy())
        weight_scale = grid.scale
        stored_bias, bias_scale = quantize_bias(bias_of(layer), input_scale, weight_scale)
        inputs = [
            self._dequantized[source],
            self._emit_parameter(f"{name}.weight", weight, weight_scale, grid.per_channel),
            self._emit_parameter(f"{name}.bias", stored_bias, bias_scale, grid.per_channel),
        ]
        if kind == "linear" and len(self._shapes[node]) > 2:
            emit_dense_rows(self._emitter(), inputs, name)
        elif kind == "linear":
            self._emit("Gemm", inputs, name, name, transB=1)
        else:
            pad = self._sharing.pads.get(node)
            padding = module_of(pad) if pad is not None else None
            self._emit("Conv", inputs, name, name, **attributes_of(layer, padding))

    def _emit_parameter(
        self, name: str, value: np.ndarray, scale: np.ndarray, per_channel: bool
    ) -> str:
        stored = self._constant(f"{name}_quantized", value)
        if not per_channel:
            scale = scale[:1].reshape(())
        scales = self._constant(f"{name}.scale", scale)
        zeros = self._constant(f"{name}.zero_point", np.zeros(scale.shape, value.dtype))
        axis = {"axis": 0} if per_channel else {}
        inputs = [stored, scales, zeros]
        self._emit("DequantizeLinear", inputs, f"{name}_dequantize", name, **axis)
        return name

    def _emit_simple(self, node: torch.fx.Node, kind: str, sources: list[str], name: str) -> None:
        if kind in ("add", "cat"):
            attributes = {"axis": _axis(node)} if kind == "cat" else {}
            self._emit("Concat" if kind == "cat" else "Add", sources, name, name, **attributes)
        elif kind == "relu":
            self._emit("Relu", sources, name, name)
        elif kind == "relu6":
            low = self._constant(f"{name}.low", np.array(0, np.float32))
            high = self._constant(f"{name}.high", np.array(6, np.float32))
            self._emit("Clip", [*sources, low, high], name, name)
        elif kind in ("maxpool", "avgpool"):
            operator = "MaxPool" if kind == "maxpool" else "AveragePool"
            self._emit(operator, sources, name, name, **attributes_of(module_of(node)))
        elif kind == "globalpool":
            self._emit("GlobalAveragePool", sources, name, name)
        elif kind == "softmax":
            axis = module_of(node).dim
            self._emit("Softmax", sources, name, name, axis=-1 if axis is None else axis)
        elif kind == "pad":
            module = module_of(node)
            assert isinstance(module, nn.ZeroPad2d | nn.ConstantPad2d)
            left, right, top, bottom = module.padding
            pads = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
            value = self._constant(f"{name}.value", np.array(module.value, np.float32))
            self._emit("Pad", [*sources, self._constant(f"{name}.pads", pads), value], name, name)
        elif kind in SEQUENCE_KINDS:
            emit_sequence_layer(self._emitter(), node, kind, sources, name, self._shapes)
        else:
            self._emit_reshape(node, sources, name)

    def _emitter(self) -> Emitter:
        return Emitter(self._constant, self._emit)

    def _emit_reshape(self, node: torch.fx.Node, sources: list[str], name: str) -> None:
        """-1 for the batch, so that a copy with another batch size still runs."""
        shape = self._shapes[node]
        if len(shape) == 2:
            self._emit("Flatten", sources, name, name, axis=1)
            return
        target = self._constant(f"{name}.shape", np.array([-1, *shape[1:]], np.int64))
        self._emit("Reshape", [*sources, target], name, name)


class _Shapes(torch.fx.Interpreter):
    """Every node's output shape for the example input."""

    def __init__(self, graph: torch.fx.GraphModule) -> None:
        super().__init__(graph)
        self.shapes: dict[torch.fx.Node, tuple[int, ...]] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        with torch.no_grad():
            value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.shapes[n] = tuple(value.shape)
        return value


def _axis(node: torch.fx.Node) -> int:
    axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    assert isinstance(axis, int)
    return axis


def _unique_names(trainable: Trainable) -> dict[torch.fx.Node, str]:
    """Layer names; a second call of a module, or a layer named like the output, is numbered."""
    names: dict[torch.fx.Node, str] = {}
    taken = {trainable.output_name}
    for node in trainable.graph.graph.nodes:
        wanted = trainable.input_name if node.op == "placeholder" else layer_name(node)
        name, count = wanted, 1
        while name in taken:
            count += 1
            name = f"{wanted}_{count}"
        taken.add(name)
        names[node] = name
    return names
