"""The little that is read from a .tflite flatbuffer before TVM imports it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tflite

from edgecompress.errors import UnreadableModel

_IDENTIFIER = b"TFL3"
_TYPE_NAMES = {code: name for name, code in vars(tflite.TensorType).items() if name.isupper()}
_OPERATOR_NAMES = {
    code: name for name, code in vars(tflite.BuiltinOperator).items() if name.isupper()
}


@dataclass(frozen=True)
class TfliteTensor:
    """`constant_bytes` is 0 for activations."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    constant_bytes: int


@dataclass(frozen=True)
class TfliteOperator:
    """Indexes into `TfliteGraph.tensors`; an absent optional input is left out."""

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class TfliteGraph:
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]


def read_graph(content: bytes, name: str) -> TfliteGraph:
    """The first subgraph.

    Raises:
        UnreadableModel: not a TFLite flatbuffer, or cut short.
    """
    if content[4:8] != _IDENTIFIER:
        raise UnreadableModel(
            f"'{name}' is not a TFLite model (no TFL3 mark at byte 4).",
            next_step="Check that the file is what its name says.",
        )
    try:
        return _parse(content)
    except Exception as error:
        # The flatbuffers reader follows offsets blindly, so damage surfaces as almost anything.
        raise UnreadableModel(
            f"'{name}' is a damaged TFLite model: {type(error).__name__} while reading its graph.",
            next_step="Copy or export the file again.",
        ) from error


def require_int8(content: bytes, name: str) -> None:
    """Raises UnreadableModel unless the model's inputs and outputs are int8."""
    graph = read_graph(content, name)
    for role, indexes in (("input", graph.inputs), ("output", graph.outputs)):
        if len(indexes) != 1:
            raise UnreadableModel(f"'{name}' has {len(indexes)} {role}s; one is supported.")
        tensor = graph.tensors[indexes[0]]
        if tensor.dtype != "int8":
            raise UnreadableModel(
                f"'{name}' has a {tensor.dtype} {role}; only fully int8 TFLite models compile.",
                next_step="Convert it with full int8 quantization, or bring the float model as "
                "ONNX so that it can be compressed here.",
            )


def _parse(content: bytes) -> TfliteGraph:
    # The generated readers are untyped, and return None for what is not there.
    model: Any = tflite.Model.GetRootAs(content, 0)
    subgraph = model.Subgraphs(0)
    tensors = tuple(_tensor(model, subgraph, i) for i in range(subgraph.TensorsLength()))
    operators = []
    for index in range(subgraph.OperatorsLength()):
        operator = subgraph.Operators(index)
        code = model.OperatorCodes(operator.OpcodeIndex())
        # Codes above 127 live only in the newer field.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        inputs = tuple(int(i) for i in operator.InputsAsNumpy() if i >= 0)
        outputs = tuple(int(i) for i in operator.OutputsAsNumpy())
        operators.append(TfliteOperator(_OPERATOR_NAMES.get(number, str(number)), inputs, outputs))
    graph = TfliteGraph(
        inputs=tuple(int(i) for i in subgraph.InputsAsNumpy()),
        outputs=tuple(int(i) for i in subgraph.OutputsAsNumpy()),
        tensors=tensors,
        operators=tuple(operators),
    )
    named = {*graph.inputs, *graph.outputs}
    named |= {i for operator in operators for i in (*operator.inputs, *operator.outputs)}
    if not named <= set(range(len(tensors))):
        raise IndexError(f"tensor {max(named)} of {len(tensors)}")
    return graph


def _tensor(model: Any, subgraph: Any, index: int) -> TfliteTensor:
    tensor = subgraph.Tensors(index)
    shape = tuple(int(size) for size in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()
    return TfliteTensor(
        name=tensor.Name().decode() if tensor.Name() else f"tensor_{index}",
        shape=shape,
        dtype=_TYPE_NAMES.get(tensor.Type(), str(tensor.Type())).lower(),
        constant_bytes=model.Buffers(tensor.Buffer()).DataLength(),
    )
