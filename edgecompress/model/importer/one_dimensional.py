"""Layers over [N, C, L] become layers over [N, C, 1, L], so that there is one kind of convolution.

    x [N, 6, 128] -> Conv (k = 5) -> BatchNormalization -> MaxPool (2) -> Flatten

    x [N, 6, 128] -> Reshape -> [N, 6, 1, 128] -> Conv (1 x 5) -> BatchNormalization
        -> MaxPool (1 x 2) -> [N, 16, 1, 64] -> Reshape [1, 1024]

The height of one is added where the first such layer reads a tensor and taken away where anything
else does; in between elementwise layers and concatenations follow along. The model's own input and
output keep their shapes. Everything behind the importer (pruning, low rank, kernels) then knows
two dimensions only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgecompress.model.importer.shaping import RESHAPES
from edgecompress.model.importer.view import GraphView, attribute

_WINDOWS = frozenset({"Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
_ELEMENTWISE = frozenset(
    {"Add", "Clip", "Concat", "Dropout", "Identity", "Relu", "Sigmoid", "Softmax", "Tanh"}
)


def lift_one_dimensional(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with a height of one; the model itself where nothing is one-dimensional.

    Args:
        model: shape-inferred, batch 1.

    Returns:
        A shape-inferred model with the same names, input and output. Reshapes in it have the batch
        of 1 written in, which the importer reads as "the batch".
    """
    view = GraphView.of(model)
    if not any(_starts(node, view) for node in model.graph.node):
        return model
    return _Lift(model, view).run()


def _starts(node: onnx.NodeProto, view: GraphView) -> bool:
    """Whether a node is a layer over [N, C, L]."""
    shape = view.shapes.get(node.input[0], ()) if node.input else ()
    if len(shape) != 3:
        return False
    if node.op_type == "Conv":
        weight = view.constants.get(node.input[1])
        return weight is not None and weight.ndim == 3
    if node.op_type == "Pad":
        return _pads_length_only(node, view)
    return node.op_type in _WINDOWS or node.op_type == "BatchNormalization"


def _pads_length_only(node: onnx.NodeProto, view: GraphView) -> bool:
    pads = view.constants.get(node.input[1]) if len(node.input) > 1 else None
    has_axes = len(node.input) > 3 and bool(node.input[3])
    return pads is not None and not has_axes and not np.any(pads.reshape(-1)[[0, 1, 3, 4]])


class _Lift:
    """One walk; `lifted` maps a tensor to its [N, C, 1, L] twin."""

    def __init__(self, model: onnx.ModelProto, view: GraphView) -> None:
        self.model, self.view = model, view
        self.lifted: dict[str, str] = {}
        self.present = {*view.constants, view.input_name}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def run(self) -> onnx.ModelProto:
        for node in self.model.graph.node:
            self._add(node)
        self._plain(self.view.output_name)
        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        del copy.graph.node[:]
        del copy.graph.value_info[:]
        copy.graph.node.extend(self.nodes)
        copy.graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in self.constants.items()
        )
        return onnx.shape_inference.infer_shapes(copy, data_prop=True)

    def _add(self, node: onnx.NodeProto) -> None:
        follows = node.op_type in _ELEMENTWISE and any(name in self.lifted for name in node.input)
        rewrite: dict[str, Callable[[onnx.NodeProto], bool]] = {
            "Conv": self._conv,
            "Concat": self._concat,
            "Pad": self._pad,
            "ReduceMean": self._mean,
            "Softmax": lambda _: False,
        }
        if _starts(node, self.view) or follows or node.op_type == "ReduceMean":
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            if rewrite.get(node.op_type, self._same)(copy):
                return
        if node.op_type in RESHAPES and node.input[0] in self.lifted:
            self._reshape(node)
            return
        for name in node.input:
            self._plain(name)
        self.nodes.append(node)
        self.present.update(node.output)

    def _image(self, name: str) -> str:
        """The four-dimensional twin of a tensor, made by a Reshape where there is none."""
        if name in self.lifted or not name:
            return self.lifted.get(name, "")
        twin = f"{name}_image"
        if name in self.view.constants:
            self.constants[twin] = np.expand_dims(self.view.constants[name], -2)
        else:
            batch, channels, length = self.view.shapes[name]
            self._insert(name, twin, (batch, channels, 1, length))
        self.lifted[name] = twin
        return twin

    def _plain(self, name: str) -> None:
        """Makes sure that the tensor of the original shape exists."""
        if name in self.lifted and name not in self.present:
            self._insert(self.lifted[name], name, self.view.shapes[name])

    def _insert(self, source: str, output: str, shape: tuple[int, ...], name: str = "") -> None:
        target = self._constant(f"{output}_shape", np.array(shape, np.int64))
        name = name or f"{output}_reshape"
        self.nodes.append(helper.make_node("Reshape", [source, target], [output], name))
        self.present.add(output)

    def _constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = value
        return name

    def _finish(self, node: onnx.NodeProto) -> bool:
        """The node writes the twin of its first output; further outputs are dropped."""
        name = node.output[0]
        del node.output[1:]
        node.output[0] = self.lifted[name] = f"{name}_image"
        self.nodes.append(node)
        return True

    def _same(self, node: onnx.NodeProto) -> bool:
        """Windows and elementwise layers: lists of one number a dimension get another."""
        shaped = [name for name in node.input if name and not self._broadcasts(name)]
        if any(len(self.view.shapes.get(name, ())) != 3 for name in shaped):
            return False
        if any(name and self.view.uses[name] for name in node.output[1:]):
            return False
        _widen(node)
        for index, name in enumerate(node.input):
            if name and not self._broadcasts(name):
                node.input[index] = self._image(name)
        return self._finish(node)

    def _broadcasts(self, name: str) -> bool:
        """Bounds, scales and rows stay as they are: they align with the last dimension."""
        return name in self.view.constants and self.view.constants[name].ndim <= 1

    def _conv(self, node: onnx.NodeProto) -> bool:
        _widen(node)
        node.input[0] = self._image(node.input[0])
        node.input[1] = self._image(node.input[1])
        return self._finish(node)

    def _concat(self, node: onnx.NodeProto) -> bool:
        axis = int(attribute(node, "axis", 1)) % 3
        _set_attribute(node, "axis", 3 if axis == 2 else axis)
        for index, name in enumerate(node.input):
            node.input[index] = self._image(name)
        return self._finish(node)

    def _pad(self, node: onnx.NodeProto) -> bool:
        pads = self.view.constants[node.input[1]].reshape(-1)
        wide = np.array([0, 0, 0, pads[2], 0, 0, 0, pads[5]], np.int64)
        node.input[0] = self._image(node.input[0])
        node.input[1] = self._constant(f"{node.output[0]}_image_pads", wide)
        return self._finish(node)

    def _mean(self, node: onnx.NodeProto) -> bool:
        """The mean over L of a lifted tensor is that over height and width."""
        axes = self.view.constants.get(node.input[1]) if len(node.input) > 1 else None
        given = attribute(node, "axes", None) if axes is None else axes.reshape(-1)
        if node.input[0] not in self.lifted or given is None or [int(a) % 3 for a in given] != [2]:
            return False
        twin = self.lifted[node.input[0]]
        if axes is None:
            _set_attribute(node, "axes", [2, 3])
        else:
            node.input[1] = self._constant("image_mean_axes", np.array([2, 3], np.int64))
        node.input[0] = twin
        if attribute(node, "keepdims", 1):
            return self._finish(node)
        self.nodes.append(node)
        self.present.update(node.output)
        return True

    def _reshape(self, node: onnx.NodeProto) -> None:
        """The same elements in the same order: any reshape reads the twin as well."""
        shape = self.view.shapes[node.output[0]]
        self._insert(self.lifted[node.input[0]], node.output[0], shape, node.name)


def _widen(node: onnx.NodeProto) -> None:
    """kernel_shape [5] becomes [1, 5]; pads [2, 1] become [0, 2, 0, 1]."""
    for key, first in (("kernel_shape", 1), ("strides", 1), ("dilations", 1)):
        value = attribute(node, key, None)
        if value is not None:
            _set_attribute(node, key, [first, *value])
    pads = attribute(node, "pads", None)
    if pads is not None:
        _set_attribute(node, "pads", [0, pads[0], 0, pads[1]])


def _set_attribute(node: onnx.NodeProto, key: str, value: int | list[int]) -> None:
    kept = [entry for entry in node.attribute if entry.name != key]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(key, value)])
