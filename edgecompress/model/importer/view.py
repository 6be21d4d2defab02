"""What the operator files ask of an ONNX graph, and what they answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from torch import nn


class Refused(Exception):
    """This node cannot be imported; the text is the reason the user reads."""


@dataclass(frozen=True)
class Step:
    """One ONNX node as torch.

    Either `modules` run one after the other on the single input (suffix of the name, module), or
    `function(*inputs, *extra)` is called (`function([inputs], *extra)` where `packed`), or neither:
    the output is the input.

    Attributes:
        output: the ONNX tensor this step produces.
        absorbed: the ONNX name of a following node this step also covers, or "".
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    modules: tuple[tuple[str, nn.Module], ...] = ()
    function: Callable[..., Any] | None = None
    extra: tuple[Any, ...] = ()
    packed: bool = False
    absorbed: str = ""


@dataclass(frozen=True)
class GraphView:
    """Lookups over a shape-inferred, batch-1 ONNX graph."""

    model: onnx.ModelProto
    input_name: str
    output_name: str
    opset: int
    constants: dict[str, np.ndarray] = field(repr=False)
    shapes: dict[str, tuple[int, ...]] = field(repr=False)
    producers: dict[str, onnx.NodeProto] = field(repr=False)
    consumers: dict[str, list[onnx.NodeProto]] = field(repr=False)
    uses: Counter[str] = field(repr=False)

    @classmethod
    def of(cls, model: onnx.ModelProto) -> GraphView:
        graph = model.graph
        constants = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                constants[node.output[0]] = _constant_value(node)
        consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                consumers.setdefault(name, []).append(node)
        uses = Counter(name for node in graph.node for name in node.input)
        uses.update(output.name for output in graph.output)
        values = [*graph.input, *graph.value_info, *graph.output]
        shapes = {v.name: s for v in values if (s := static_shape(v)) is not None}
        return cls(
            model=model,
            input_name=next(v.name for v in graph.input if v.name not in constants),
            output_name=graph.output[0].name,
            opset=max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")),
            constants=constants,
            shapes=shapes | {name: array.shape for name, array in constants.items()},
            producers={name: node for node in graph.node for name in node.output},
            consumers=consumers,
            uses=uses,
        )

    def shape(self, tensor: str) -> tuple[int, ...]:
        """Raises Refused where the shape is not static."""
        if tensor not in self.shapes:
            raise Refused(f"the shape of '{tensor}' is not static")
        return self.shapes[tensor]

    def activation(self, node: onnx.NodeProto, index: int = 0) -> str:
        """The name of an input that must not be a constant."""
        name = node.input[index]
        if name in self.constants:
            raise Refused(f"input {index} ('{name}') is a constant")
        return name

    def constant(self, node: onnx.NodeProto, index: int, what: str) -> np.ndarray:
        """The value of an input that must be a constant."""
        if len(node.input) <= index or not node.input[index]:
            raise Refused(f"{what} (input {index}) is missing")
        if node.input[index] not in self.constants:
            raise Refused(f"{what} ('{node.input[index]}') is computed, not a constant")
        return self.constants[node.input[index]]

    def optional(self, node: onnx.NodeProto, index: int, what: str) -> np.ndarray | None:
        """Like `constant`, or None where the input is left out."""
        given = len(node.input) > index and node.input[index]
        return self.constant(node, index, what) if given else None

    def input_or_attribute(self, node: onnx.NodeProto, index: int, key: str) -> np.ndarray | None:
        """A value newer opsets pass as input `index` and older ones as attribute `key`."""
        value = self.optional(node, index, key)
        if value is not None:
            return value
        given = attribute(node, key, None)
        return None if given is None else np.asarray(given)


def attribute(node: onnx.NodeProto, key: str, default: Any) -> Any:
    """An attribute's Python value; strings decoded."""
    for entry in node.attribute:
        if entry.name == key:
            value = onnx.helper.get_attribute_value(entry)
            return value.decode() if isinstance(value, bytes) else value
    return default


def single_output(node: onnx.NodeProto, view: GraphView) -> str:
    """The first output; the others (Dropout's mask, MaxPool's indices) must be unused."""
    for extra in node.output[1:]:
        if extra and view.uses[extra]:
            raise Refused(f"its second output ('{extra}') is used")
    return node.output[0]


def static_shape(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    sizes = [dimension.dim_value for dimension in tensor.shape.dim]
    return tuple(sizes) if all(size > 0 for size in sizes) else None


def _constant_value(node: onnx.NodeProto) -> np.ndarray:
    value = onnx.helper.get_attribute_value(node.attribute[0])
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.array(value)
