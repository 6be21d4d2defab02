"""One ONNX for everything that follows: static shapes, batch 1, float32, slimmed, named."""

from __future__ import annotations

from typing import Any

import onnx
import onnxslim

from edgecompress.errors import BadInput, UnreadableModel
from edgecompress.model.export import first_line
from edgecompress.model.importer.operators import OPERATORS
from edgecompress.model.names import name_nodes

# Merging BatchNormalization away would leave nothing to re-estimate after pruning.
_SLIM_OPTIONS: dict[str, Any] = {"skip_fusion_patterns": ["FusionConvBN", "FusionConvTransposeBN"]}
_HOW = "Give it with --input-shape, e.g. --input-shape 1,3,32,32 (input_shape=(1, 3, 32, 32))."


def normalize(
    model: onnx.ModelProto, name: str, input_shape: tuple[int, ...] | None
) -> onnx.ModelProto:
    """The float form the importer reads. `model` is not changed.

    Raises:
        BadInput: a dimension is not static and not given, or the input is not one float32 tensor.
        UnreadableModel: shape inference or onnxslim refuses the graph.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    fix_shapes(copy, name, input_shape)
    require_float_input(copy, name)
    name_nodes(copy, frozenset(OPERATORS))
    try:
        inferred = onnx.shape_inference.infer_shapes(copy, data_prop=True)
        slimmed = onnxslim.slim(inferred, **_SLIM_OPTIONS)
        assert isinstance(slimmed, onnx.ModelProto)
        slimmed = onnx.shape_inference.infer_shapes(slimmed, data_prop=True)
    except Exception as error:
        raise UnreadableModel(
            f"{name}: the graph cannot be simplified: {first_line(error)}.",
            next_step="Check it with onnx.checker and onnxslim.",
        ) from error
    strip_descriptions(slimmed)
    return slimmed


def real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Graph inputs that are not also initializers (old exporters list both)."""
    constants = {initializer.name for initializer in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in constants]


def fix_shapes(model: onnx.ModelProto, name: str, input_shape: tuple[int, ...] | None) -> None:
    """Writes static dimensions into the one input, in place; a free first dimension becomes 1.

    Raises:
        BadInput: naming the dimension that is free, or both shapes where they disagree.
    """
    inputs = real_inputs(model)
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise BadInput(
            f"{name} has {len(inputs)} inputs and {len(model.graph.output)} outputs; "
            "one of each is supported.",
            next_step="Export only the part between one input and one output.",
        )
    tensor = inputs[0].type.tensor_type
    if not tensor.HasField("shape"):
        if input_shape is None:
            raise BadInput(f"{name}: input '{inputs[0].name}' has no shape.", next_step=_HOW)
        for size in input_shape:
            tensor.shape.dim.add().dim_value = size
    dimensions = list(tensor.shape.dim)
    declared = [d.dim_value if d.dim_value > 0 else (d.dim_param or "?") for d in dimensions]
    shape = _resolve(name, inputs[0].name, declared, input_shape)
    for dimension, size in zip(dimensions, shape, strict=True):
        dimension.Clear()
        dimension.dim_value = size
    # What was inferred for the free dimensions would contradict the fixed ones.
    del model.graph.value_info[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")


def _resolve(
    name: str, tensor: str, declared: list[int | str], given: tuple[int, ...] | None
) -> tuple[int, ...]:
    where = f"{name}: input '{tensor}'"
    if given is not None:
        agrees = len(given) == len(declared) and all(
            isinstance(size, str) or size == wanted
            for size, wanted in zip(declared, given, strict=True)
        )
        if not agrees:
            raise BadInput(
                f"{where} has shape {_show(declared)}, but the given shape is {list(given)}.",
                next_step="Leave --input-shape out, or give one that agrees.",
            )
        sizes = list(given)
    else:
        sizes = [1 if i == 0 and isinstance(d, str) else d for i, d in enumerate(declared)]
    for index, size in enumerate(sizes):
        if isinstance(size, str):
            raise BadInput(
                f"{where} has shape {_show(declared)}: dimension {index} ('{size}') is dynamic.",
                next_step=_HOW,
            )
    if not sizes or sizes[0] != 1:
        raise BadInput(
            f"{where} has shape {_show(sizes)}; the first dimension must be a batch of 1.",
            next_step="Export the model with batch size 1 or a dynamic batch.",
        )
    return tuple(int(size) for size in sizes)


def _show(dimensions: list[int | str] | list[int]) -> str:
    return "[" + ", ".join(str(dimension) for dimension in dimensions) + "]"


def require_float_input(model: onnx.ModelProto, name: str) -> None:
    """Raises BadInput unless the input tensor is float32."""
    value = real_inputs(model)[0]
    kind = value.type.tensor_type.elem_type
    if kind != onnx.TensorProto.FLOAT:
        shown = onnx.TensorProto.DataType.Name(kind).lower()
        raise BadInput(
            f"{name}: input '{value.name}' is {shown}; a float model must take float32.",
            next_step="Export the model in float32, or bring an int8 QDQ ONNX.",
        )


def strip_descriptions(model: onnx.ModelProto) -> None:
    """Removes doc strings and metadata, in place: exporters write file paths there."""
    model.ClearField("doc_string")
    del model.metadata_props[:]
    model.graph.ClearField("doc_string")
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
        del value.metadata_props[:]
    for initializer in model.graph.initializer:
        del initializer.metadata_props[:]
