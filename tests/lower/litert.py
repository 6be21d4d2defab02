"""LiteRT as an oracle: builds small int8 .tflite files and runs LiteRT's reference kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

RELU = schema.ActivationFunctionType.RELU
RELU6 = schema.ActivationFunctionType.RELU6
SAME, VALID = schema.Padding.SAME, schema.Padding.VALID


class TinyModel:
    """A one-subgraph int8 model written with the flatbuffers object API."""

    def __init__(self) -> None:
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.buffers = [schema.BufferT()]
        self._model.operatorCodes = []
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._model.subgraphs = [self._graph]
        self._codes: dict[int, int] = {}

    def tensor(
        self,
        shape: Sequence[int],
        scale: float | np.ndarray | None = None,
        zero_point: int = 0,
        data: np.ndarray | None = None,
        channel_axis: int = 0,
    ) -> int:
        """Adds a tensor (int8, or the dtype of `data`) and returns its index."""
        dtype = np.dtype(np.int8) if data is None else data.dtype
        tensor = schema.TensorT()
        tensor.name = f"t{len(self._graph.tensors)}"
        tensor.shape = [int(size) for size in shape]
        tensor.type = {"int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32}[dtype.name]
        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self._model.buffers.append(buffer)
            tensor.buffer = len(self._model.buffers) - 1
        if scale is not None:
            quantization = schema.QuantizationParametersT()
            quantization.scale = np.atleast_1d(np.asarray(scale, np.float32))
            quantization.zeroPoint = np.full(quantization.scale.shape, zero_point, np.int64)
            quantization.quantizedDimension = channel_axis
            tensor.quantization = quantization
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def operator(
        self, name: str, inputs: Sequence[int], output: int, version: int = 2, **options: Any
    ) -> int:
        """Adds a builtin operator, as "AVERAGE_POOL_2D"; options as in the schema's table."""
        code = getattr(schema.BuiltinOperator, name)
        if code not in self._codes:
            entry = schema.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode = code, min(code, 127)
            entry.version = version
            self._model.operatorCodes.append(entry)
            self._codes[code] = len(self._model.operatorCodes) - 1
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes[code]
        operator.inputs, operator.outputs = list(inputs), [output]
        table = _OPTION_TABLES.get(name)
        if table is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            operator.builtinOptions = getattr(schema, table + "T")()
            for key, option in options.items():
                setattr(operator.builtinOptions, key, option)
        self._graph.operators.append(operator)
        return output

    def content(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        self._graph.inputs, self._graph.outputs = list(inputs), list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


_OPTION_TABLES = {
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "ADD": "AddOptions",
    "MUL": "MulOptions",
    "MEAN": "ReducerOptions",
    "SOFTMAX": "SoftmaxOptions",
    "CONCATENATION": "ConcatenationOptions",
    "LEAKY_RELU": "LeakyReluOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "RESHAPE": "ReshapeOptions",
}


@dataclass(frozen=True)
class Layer:
    """One operator of a model: the activations it reads, its first constant's size, its output.

    `inputs` are seen through reshapes, which are only other names for the same bytes.
    """

    op: str
    inputs: tuple[int, ...]
    constant_size: int
    output: int


_RESHAPES = ("RESHAPE", "EXPAND_DIMS", "SQUEEZE")


class Reference:
    """LiteRT's reference kernels on one model, every tensor kept."""

    def __init__(self, content: bytes) -> None:
        self._interpreter = Interpreter(
            model_content=content,
            experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
            experimental_preserve_all_tensors=True,
        )
        self._interpreter.allocate_tensors()
        self.inputs = [entry["index"] for entry in self._interpreter.get_input_details()]
        self.output = self._interpreter.get_output_details()[0]["index"]
        self.layers = self._layers()

    def _layers(self) -> list[Layer]:
        """The operators that compute something, in the file's order."""
        layers: list[Layer] = []
        original = {index: index for index in self.inputs}
        for entry in self._interpreter._get_ops_details():
            inputs, output = [int(index) for index in entry["inputs"]], int(entry["outputs"][0])
            varying = tuple(original[index] for index in inputs if index in original)
            if entry["op_name"] in _RESHAPES:
                original[output] = varying[0]
                continue
            fixed = [index for index in inputs if index not in original and index >= 0]
            size = self._interpreter.get_tensor(fixed[0]).size if fixed else 0
            original[output] = output
            layers.append(Layer(entry["op_name"], varying, size, output))
        return layers

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        return [tuple(e["shape"].tolist()) for e in self._interpreter.get_input_details()]

    def run(self, *inputs: np.ndarray) -> dict[int, np.ndarray]:
        """Tensor index -> value of every input and layer output."""
        for index, array in zip(self.inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, array)
        self._interpreter.invoke()
        kept = [*self.inputs, *(layer.output for layer in self.layers)]
        return {index: self._interpreter.get_tensor(index).copy() for index in kept}


def sample_inputs(shape: Sequence[int], count: int, seed: int = 0) -> np.ndarray:
    """[count, ...] int8: even ones white noise, odd ones smooth over the whole range.

    `shape` begins with the batch of 1, which becomes `count`.
    """
    random = np.random.default_rng(seed)
    samples = []
    for index in range(count):
        if index % 2 == 0:
            samples.append(random.integers(-128, 128, shape[1:]).astype(np.float64))
            continue
        smooth = random.normal(0, 1, shape[1:])
        for axis in range(smooth.ndim):
            for _ in range(3 if smooth.shape[axis] > 4 else 0):
                smooth = (smooth + np.roll(smooth, 1, axis) + np.roll(smooth, 2, axis)) / 2
        spread = float(np.ptp(smooth)) or 1.0
        samples.append((smooth - smooth.min()) / spread * 255 - 128)
    return np.clip(np.round(np.stack(samples)), -128, 127).astype(np.int8)
