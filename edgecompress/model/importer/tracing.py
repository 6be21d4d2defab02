"""Where every element of a tensor comes from, followed through whatever only moves elements.

Exporters wrap sequence layers in reshapes and transposes: to put time first, to split heads, to
make rows of a matrix product. With a batch of 1 all of them permute or select elements. So each
ONNX tensor is kept as an array of *addresses* into the tensors that layers really make (roots,
batch first), and a layer asks for its input in the order it wants:

    root `dense` [1, 10, 48], addresses 0..479
    Reshape [10, 1, 3, 16], Transpose, Gather 1   ->   addresses t * 48 + 16 + e of [10, 1, 16]
    asked for as rows of 10                       ->   columns 16..31 of `dense`: a dense layer of
                                                       its own with these rows of the weight

An order that a root already has costs nothing; time and features swapped is one transpose; one
step of time is a selection; some columns of a dense layer are a smaller dense layer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgecompress.model.importer.view import Refused

DOMAIN = "edgecompress"
_PATTERNS = "only activation x constant, attention and GELU are supported"


@dataclass(frozen=True)
class Dense:
    """x W^T + b of a materialized input; weight [out, in], bias [out]."""

    source: str
    weight: np.ndarray
    bias: np.ndarray | None
    label: str


@dataclass
class Root:
    """A tensor a layer makes, [1, ...], or one that is only described until somebody wants it.

    Attributes:
        dense: the root is a dense layer's output, not emitted yet.
        deferred: what the root stands for when it can only be used in a known pattern.
    """

    name: str
    shape: tuple[int, ...]
    base: int
    dense: Dense | None = None
    deferred: tuple[str, tuple[Traced, ...]] = ("", ())

    @property
    def size(self) -> int:
        return prod(self.shape)


@dataclass
class Traced:
    """An ONNX tensor: `addresses` int64 of its shape, times `scale`."""

    addresses: np.ndarray
    scale: float = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.addresses.shape

    def moved(self, addresses: np.ndarray) -> Traced:
        return Traced(addresses, self.scale)


@dataclass
class Tracer:
    """The graph under construction."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    roots: list[Root] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)
    _made: dict[tuple, str] = field(default_factory=dict)

    def root(self, name: str, shape: tuple[int, ...]) -> Root:
        """Registers a tensor whose elements have addresses of their own."""
        base = self.roots[-1].base + self.roots[-1].size if self.roots else 0
        self.roots.append(Root(name, shape, base))
        self.shapes[name] = shape
        return self.roots[-1]

    def trace(self, root: Root, shape: tuple[int, ...] | None = None) -> Traced:
        """A root in its own order, seen in another shape."""
        addresses = np.arange(root.base, root.base + root.size)
        return Traced(addresses.reshape(root.shape if shape is None else shape))

    def of(self, traced: Traced) -> Root | None:
        """The one root a tensor comes from; None when there are several."""
        first = self._root_at(int(traced.addresses.min()))
        return first if first is self._root_at(int(traced.addresses.max())) else None

    def whole(self, traced: Traced) -> Root | None:
        """The root whose elements a tensor holds, each once, in any order."""
        root = self.of(traced)
        if root is None or traced.addresses.size != root.size:
            return None
        return root if len(np.unique(traced.addresses)) == root.size else None

    def unique(self, name: str) -> str:
        number, found = 1, name
        while found in self.taken:
            number += 1
            found = f"{name}_{number}"
        self.taken.add(found)
        return found

    def constant(self, name: str, value: np.ndarray) -> str:
        name = self.unique(name)
        self.constants[name] = value
        return name

    def emit(
        self,
        kind: str,
        inputs: list[str],
        shape: tuple[int, ...],
        label: str,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Adds a layer and returns its output's name; equal calls are made once."""
        key = (kind, tuple(inputs), shape, tuple(sorted(map(str, attributes.items()))))
        if key not in self._made:
            name = self.unique(label)
            output = self.unique(f"{name}_output")
            made = helper.make_node(kind, inputs, [output], name, domain=domain, **attributes)
            self.nodes.append(made)
            self.shapes[output] = shape
            self._made[key] = output
        return self._made[key]

    def dense(self, layer: Dense, shape: tuple[int, ...]) -> Root:
        """A dense layer that is emitted once somebody wants its columns."""
        root = self.root(self.unique(f"{layer.label}_columns"), shape)
        root.dense = layer
        return root

    def defer(self, kind: str, label: str, shape: tuple[int, ...], *inputs: Traced) -> Root:
        root = self.root(self.unique(label), shape)
        root.deferred = (kind, inputs)
        return root

    def materialize(self, traced: Traced, shape: tuple[int, ...]) -> str:
        """The name of a tensor [1, ...] that holds these elements in this shape.

        Raises:
            Refused: no layer there is can put them in this order.
        """
        flat = traced.addresses.reshape(-1)
        root = self.of(traced)
        if root is None:
            return self._joined(traced, shape)
        local = flat - root.base
        if root.dense is not None:
            return self._columns(root, local, traced.scale, shape)
        if traced.scale != 1.0:
            raise Refused("multiplies by a constant that no dense layer can take in")
        if root.deferred[0]:
            raise Refused(f"'{root.name}' is {root.deferred[0]}; {_PATTERNS}")
        if np.array_equal(local, np.arange(root.size)):
            return self.reshaped(root.name, shape)
        if local.size == root.size:
            return self._permuted(root, local.reshape(traced.shape), shape)
        return self._selected(root, local, shape)

    def reshaped(self, name: str, shape: tuple[int, ...]) -> str:
        if self.shapes[name] == shape:
            return name
        target = self.constant(f"{name}_shape", np.array(shape, np.int64))
        return self.emit("Reshape", [name, target], shape, f"{name}_reshape")

    def _columns(self, root: Root, local: np.ndarray, scale: float, shape: tuple[int, ...]) -> str:
        layer, outputs = root.dense, root.shape[-1]
        assert layer is not None
        rows = root.size // outputs
        if local.size % rows:
            whole = self._columns(root, np.arange(root.size), scale, root.shape)
            return self._selected(Root(whole, root.shape, 0), local, shape)
        table = local.reshape(rows, -1)
        columns = table[0]
        if columns.max() >= outputs or not np.array_equal(
            table, np.arange(rows)[:, None] * outputs + columns
        ):
            whole = self._columns(root, np.arange(root.size), scale, root.shape)
            made = Root(whole, root.shape, 0)
            if local.size == root.size:
                return self._permuted(made, local, shape)
            return self._selected(made, local, shape)
        all_columns = np.array_equal(columns, np.arange(outputs))
        suffix = "" if all_columns else f"_{int(columns[0])}"
        key = ("dense", root.name, columns.tobytes(), scale)
        if key not in self._made:
            weight = np.asarray(layer.weight[columns] * scale, np.float32)
            inputs = [layer.source, self.constant(f"{layer.label}_weight", weight)]
            if layer.bias is not None:
                bias = np.asarray(layer.bias[columns] * scale, np.float32)
                inputs.append(self.constant(f"{layer.label}_bias", bias))
            made_shape = (*root.shape[:-1], len(columns))
            label = f"{layer.label}{suffix}"
            self._made[key] = self.emit("Dense", inputs, made_shape, label, DOMAIN)
        return self.reshaped(self._made[key], shape)

    def _permuted(self, root: Root, local: np.ndarray, shape: tuple[int, ...]) -> str:
        """Two groups of axes swapped: one transpose of [1, a, b]."""
        flat = local.reshape(-1)
        inner = int(np.argmax(flat == 1)) if root.size > 1 else 1
        # consecutive elements of the root are `inner` apart: [b, a] with a = inner
        if inner > 0 and root.size % inner == 0:
            outer = root.size // inner
            expected = np.arange(root.size).reshape(inner, outer).T
            if np.array_equal(flat, expected.reshape(-1)):
                view = self.reshaped(root.name, (1, inner, outer))
                label = f"{root.name}_transpose"
                turned = self.emit("Transpose", [view], (1, outer, inner), label, perm=[0, 2, 1])
                return self.reshaped(turned, shape)
        raise Refused("reorders elements in a way that is more than swapping time and features")

    def _selected(self, root: Root, local: np.ndarray, shape: tuple[int, ...]) -> str:
        """One step of time of [1, time, features]."""
        features = root.shape[-1]
        if len(root.shape) == 3 and local.size == features and local[0] % features == 0:
            step = int(local[0]) // features
            if np.array_equal(local, np.arange(features) + step * features):
                label = f"{root.name}_step"
                chosen = self.emit("Select", [root.name], (1, features), label, DOMAIN, index=step)
                return self.reshaped(chosen, shape)
        raise Refused("selects part of a tensor; only one step of a sequence can be taken")

    def _joined(self, traced: Traced, shape: tuple[int, ...]) -> str:
        """Features of several roots side by side."""
        table = traced.addresses.reshape(-1, shape[-1])
        owners = [self._root_at(int(address)) for address in table[0]]
        edges = [0]
        edges += [i for i in range(1, len(owners)) if owners[i] is not owners[i - 1]]
        edges.append(len(owners))
        parts = []
        for start, end in pairwise(edges):
            part = traced.moved(table[:, start:end])
            if self.of(part) is None:
                raise Refused("joins tensors in another way than feature after feature")
            parts.append(self.materialize(part, (*shape[:-1], end - start)))
        return self.emit("Concat", parts, shape, "concat", axis=len(shape) - 1)

    def _root_at(self, address: int) -> Root:
        bases = [root.base for root in self.roots]
        return self.roots[int(np.searchsorted(bases, address, side="right")) - 1]

    def model(self, source: onnx.ModelProto, output: str, output_name: str) -> onnx.ModelProto:
        """The graph with the source's input and output names."""
        self.nodes.append(helper.make_node("Identity", [output], [output_name], "model_output"))
        made = onnx.ModelProto()
        made.CopyFrom(source)
        del made.graph.node[:], made.graph.value_info[:], made.graph.initializer[:]
        made.graph.node.extend(self.nodes)
        made.graph.initializer.extend(
            numpy_helper.from_array(value, name) for name, value in self.constants.items()
        )
        made.graph.value_info.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in self.shapes.items()
        )
        return made
