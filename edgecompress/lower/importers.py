"""ONNX and TFLite models into Relax, with what importers lose: names, border quantization."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import tflite
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx, onnx_frontend
from tvm.relax.frontend.tflite import from_tflite
from tvm.relax.frontend.tflite.tflite_frontend import OperatorConverter

from edgecompress.errors import UnreadableModel, UnsupportedOperators
from edgecompress.lower import onnx_recurrent
from edgecompress.lower.node_names import named


@dataclass(frozen=True)
class Border:
    """A model input or output: its name, and (scale, zero point) where the file states them."""

    name: str
    scale: float | None = None
    zero_point: int = 0


@dataclass(frozen=True)
class Imported:
    """A Relax module whose `main` is one dataflow block; `layout` is that of its 4-D tensors."""

    module: tvm.IRModule
    layout: Literal["NCHW", "NHWC"]
    inputs: tuple[Border, ...]
    outputs: tuple[Border, ...]


class _Clip(onnx_frontend.Clip):
    """Clip by constants as one `relax.clip`: the importer's own form hides the bounds in TIR."""

    @classmethod
    def _impl_v13(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        bounds = [-np.inf, np.inf]
        for index in (1, 2):
            if index >= len(inputs) or inputs[index] is None:
                continue
            constant = onnx_frontend.get_constant(inputs[index], params)
            if not hasattr(constant, "value"):
                return super()._impl_v13(bb, inputs, attr, params)
            bounds[index - 1] = float(constant.value.numpy())
        return relax.op.clip(inputs[0], *bounds)


class _Pad(onnx_frontend.Pad):
    """Constant padding as one `relax.nn.pad`: the importer's own form hides the widths in TIR."""

    @classmethod
    def _lower_pad(
        cls, bb: Any, inputs: Any, attr: Any, params: Any, allowed_modes: set[str]
    ) -> Any:
        if attr.get("mode", b"constant") != b"constant":
            return super()._lower_pad(bb, inputs, attr, params, allowed_modes)
        before, after, fill = cls._parse_pads_and_axes(inputs, params)
        widths = [int(width) for pair in zip(before, after, strict=True) for width in pair]
        return relax.op.nn.pad(inputs[0], widths, "constant", float(fill))


@contextlib.contextmanager
def _readable_converters() -> Iterator[None]:
    """TVM offers no hook for converters: its map is replaced while one model is imported."""
    original = onnx_frontend._get_convert_map

    def _converters() -> dict[str, Any]:
        return {**original(), "Clip": _Clip, "Pad": _Pad, **onnx_recurrent.CONVERTERS}

    importer = onnx_frontend.ONNXGraphImporter
    convert = importer._convert_operator

    def _convert_named(
        self: Any, op_name: str, inputs: Any, attributes: Any, opset: int
    ) -> relax.Expr:
        converted = convert(self, op_name, inputs, attributes, opset)
        renamed = named(converted, attributes["tvm_custom"]["name"])
        return converted if renamed is converted else self.bb.normalize(renamed)

    onnx_frontend._get_convert_map = _converters
    importer._convert_operator = _convert_named
    try:
        yield
    finally:
        onnx_frontend._get_convert_map = original
        importer._convert_operator = convert


def import_onnx(model: onnx.ModelProto) -> Imported:
    """A static-shape ONNX model, float or QDQ, in NCHW.

    Raises:
        UnsupportedOperators: TVM's importer does not know every operator; all are listed.
        UnreadableModel: the importer refused the model for another reason.
    """
    known = onnx_frontend._get_convert_map()
    unknown = [
        (node.op_type, node.name or node.output[0], "TVM's ONNX importer does not know it")
        for node in model.graph.node
        if node.op_type not in {*known, *onnx_recurrent.CONVERTERS, "If", "Constant"}
    ]
    if unknown:
        raise UnsupportedOperators(unknown, next_step="Export the model without them.")
    try:
        with _readable_converters():
            module = from_onnx(model, keep_params_in_input=False)
    except Exception as error:  # whatever TVM's Python importer trips over is the model's fault
        raise UnreadableModel(
            f"TVM could not import the ONNX model: {str(error).strip().splitlines()[-1]}",
            next_step="Give it static shapes (batch 1) and simplify it with onnxslim.",
        ) from error
    initialized = {initializer.name for initializer in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in initialized]
    return Imported(
        module,
        "NCHW",
        tuple(Border(name) for name in inputs),
        tuple(Border(value.name) for value in model.graph.output),
    )


class _Converter(OperatorConverter):
    """TVM's, which refuses the padding of an int8 tensor and knows no form for it."""

    _SUPPORTED_QUANTIZED_OPS = OperatorConverter._SUPPORTED_QUANTIZED_OPS | {"PAD", "PADV2"}

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.convert_map = {code: self._naming(made) for code, made in self.convert_map.items()}

    def _naming(self, convert: Callable[..., Any]) -> Callable[..., Any]:
        """The same converter, its result named after the operator's output tensor."""

        def converted(op: Any) -> Any:
            result = convert(op=op)
            outputs = self.get_output_tensors(op)
            if result is None or len(outputs) != 1:
                return result
            name = outputs[0].tensor.Name() or b""
            renamed = named(self.bb.normalize(result), name.decode("utf-8", "replace"))
            return self.bb.normalize(renamed)

        return converted

    def convert_pad(self, op: Any) -> relax.Expr:
        """quantize(nn.pad(dequantize(x))); PAD fills with real zero, PADV2 says with what."""
        x, widths, *fill = self.get_input_tensors(op)
        if x.qnn_params is None:
            return super().convert_pad(op)
        pairs = [int(width) for width in np.asarray(self.get_tensor_value(widths)).reshape(-1)]
        value = 0.0
        if fill:
            stored = float(np.asarray(self.get_tensor_value(fill[0])).reshape(-1)[0])
            scale, zero_point = (
                float(fill[0].qnn_params[name].value.numpy()) for name in ("scale", "zero_point")
            )
            value = (stored - zero_point) * scale
        real = self.dequantize(self.get_expr(x.tensor_idx), x)
        padded = relax.op.nn.pad(real, pairs, "constant", value)
        return self.quantize(padded, self.get_output_tensors(op)[0])


def import_tflite(content: bytes) -> Imported:
    """A .tflite flatbuffer, in NHWC, with the border quantization it states.

    Raises:
        UnreadableModel: not a TFLite file, or the importer refused it.
    """
    if content[4:8] != b"TFL3":
        raise UnreadableModel("The bytes are not a TFLite model (no TFL3 mark at byte 4).")
    try:
        model = tflite.Model.GetRootAsModel(content, 0)
        module = from_tflite(model, op_converter=_Converter)
        graph = model.Subgraphs(0)
        inputs = tuple(_border(graph, index) for index in graph.InputsAsNumpy())
        outputs = tuple(_border(graph, index) for index in graph.OutputsAsNumpy())
    except Exception as error:  # a damaged flatbuffer fails anywhere
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UnreadableModel(f"TVM could not import the TFLite model: {lines[-1]}") from error
    return Imported(module, "NHWC", inputs, outputs)


def _border(graph: Any, index: int) -> Border:
    tensor = graph.Tensors(int(index))
    name, quantization = tensor.Name().decode(), tensor.Quantization()
    if quantization is None or quantization.ScaleLength() != 1:
        return Border(name)
    shift = 128 if tensor.Type() == tflite.TensorType.UINT8 else 0
    return Border(name, float(quantization.Scale(0)), int(quantization.ZeroPoint(0)) - shift)
