"""Recurrent and transformer graphs with the batch first and without their data movement.

Runs before the importers, on graphs that hold a sequence layer; others are left alone. What comes
out consists of ordinary ONNX nodes on [1, features], [1, time, features] and images, and of
nodes of the domain "edgecompress" that only `sequence_layers.py` reads: Dense, Recurrent, Offset,
Select, TimeMean, and Scores, AttentionSoftmax and Mix for attention.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isclose, prod

import numpy as np
import onnx

from edgecompress.model.importer import movement, patterns
from edgecompress.model.importer.recurrent import emit_recurrent
from edgecompress.model.importer.tracing import DOMAIN, Dense, Root, Traced, Tracer
from edgecompress.model.importer.view import GraphView, Refused, attribute
from edgecompress.model.names import identifier

Refusal = tuple[str, str, str]

_ALWAYS = frozenset({"LSTM", "GRU", "RNN", "LayerNormalization", "Gelu", "Erf"})
_ELEMENTWISE = frozenset({"Clip", "Gelu", "Relu", "Sigmoid", "Tanh"})


def follow_sequences(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[Refusal]]:
    """The rewritten model (the same object where there is no sequence layer), and what was refused.

    Args:
        model: shape-inferred, batch 1.
    """
    view = GraphView.of(model)
    if not any(_is_sequence_layer(node, view) for node in model.graph.node):
        return model, []
    return _Walk(model, view).run()


def _is_sequence_layer(node: onnx.NodeProto, view: GraphView) -> bool:
    if node.op_type in _ALWAYS:
        return True
    if node.op_type not in ("MatMul", "Gemm") or not node.input:
        return False
    shape = view.shapes.get(node.input[0], ())
    both_computed = all(name not in view.constants for name in node.input[:2])
    return both_computed or prod(shape[:-1]) > 1


class _Walk:
    """One pass in execution order; `values` holds every ONNX tensor as traced addresses."""

    def __init__(self, model: onnx.ModelProto, view: GraphView) -> None:
        self.model, self.view = model, view
        self.tracer = Tracer(taken={view.input_name, view.output_name})
        self.values: dict[str, Traced] = {}
        self.constants = dict(view.constants)
        self.refused: list[Refusal] = []

    def run(self) -> tuple[onnx.ModelProto, list[Refusal]]:
        view = self.view
        given = self.tracer.root(view.input_name, view.shapes[view.input_name])
        self.values[view.input_name] = self.tracer.trace(given)
        for node in self.model.graph.node:
            if node.op_type == "Constant":
                continue
            try:
                self._node(node)
            except Refused as refusal:
                self._refuse(node, str(refusal))
        result = self.values[view.output_name]
        try:
            name = self.tracer.materialize(result, view.shape(view.output_name))
        except Refused as refusal:
            self.refused.append(("Output", view.output_name, str(refusal)))
            name = view.input_name
        return self.tracer.model(self.model, name, view.output_name), self.refused

    def _refuse(self, node: onnx.NodeProto, reason: str) -> None:
        self.refused.append((node.op_type, node.name or node.output[0], reason))
        for output in filter(None, node.output):
            shape = self.view.shapes.get(output, (1,))
            self.values[output] = self.tracer.trace(self.tracer.root(f"{output}_refused", shape))

    def _node(self, node: onnx.NodeProto) -> None:
        handlers: dict[str, Callable[[onnx.NodeProto], Traced]] = {
            "Add": self._add,
            "Div": self._scale,
            "Erf": lambda node: patterns.erf(self.tracer, node, self.values[node.input[0]]),
            "Gemm": self._dense,
            "GRU": self._recurrent,
            "LSTM": self._recurrent,
            "LayerNormalization": self._layer_normalization,
            "MatMul": self._matmul,
            "Mul": self._scale,
            "ReduceMean": self._mean,
            "Softmax": self._softmax,
        }
        if node.input and self._is_constant(node):
            self._fold(node)
        elif node.op_type in movement.MOVERS:
            self._move(node)
        elif node.op_type in _ELEMENTWISE:
            self.values[node.output[0]] = self._elementwise(node)
        elif node.op_type == "RNN":
            raise Refused("only GRU and LSTM have an integer kernel, not the plain RNN")
        elif node.op_type in handlers:
            self.values[node.output[0]] = handlers[node.op_type](node)
        else:
            self._keep(node)

    def _is_constant(self, node: onnx.NodeProto) -> bool:
        """Of CastLike only the first input is a value."""
        given = node.input[:1] if node.op_type == "CastLike" else node.input
        return all(name in self.constants for name in given if name)

    def _fold(self, node: onnx.NodeProto) -> None:
        """CastLike and the like of constants, which some exporters leave."""
        if node.op_type not in ("Cast", "CastLike", "Identity", "Expand"):
            raise Refused("computes with constants alone: simplify the graph with onnxslim")
        shape = self.view.shapes.get(node.output[0], self.constants[node.input[0]].shape)
        value = np.broadcast_to(self.constants[node.input[0]], shape)
        self.constants[node.output[0]] = value

    def _label(self, node: onnx.NodeProto) -> str:
        return identifier(node.name or node.op_type.lower())

    def _move(self, node: onnx.NodeProto) -> None:
        source = self.values[node.input[0]]
        shapes = {name: self.view.shape(name) for name in node.output if name}
        moved = movement.move(node, source.addresses, self.constants, shapes)
        for name, addresses in moved.items():
            self.values[name] = source.moved(addresses)

    def _keep(self, node: onnx.NodeProto) -> None:
        """A node of another kind, on tensors in the source's own shapes."""
        inputs = []
        for name in node.input:
            if name in self.values:
                inputs.append(self.tracer.materialize(self.values[name], self.view.shape(name)))
            elif name:
                inputs.append(self._kept_constant(name))
            else:
                inputs.append("")
        output = node.output[0]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        shape = self.view.shape(output)
        label = self._label(node)
        made = self.tracer.emit(node.op_type, inputs, shape, label, node.domain, **attributes)
        self.values[output] = self.tracer.trace(self._root_of(made))

    def _root_of(self, name: str) -> Root:
        return self.tracer.root(name, self.tracer.shapes[name])

    def _kept_constant(self, name: str) -> str:
        if name not in self.tracer.constants:
            self.tracer.constants[name] = self.constants[name]
        return name

    def _elementwise(self, node: onnx.NodeProto) -> Traced:
        """Commutes with any movement: applied to the root itself where all of it is used."""
        source = self.values[node.input[0]]
        root = self.tracer.whole(source)
        plain = root is not None and not root.deferred[0]
        shape = root.shape if root is not None and plain else (1, *source.shape[1:])
        ordered = np.sort(source.addresses, axis=None) if plain else source.addresses
        name = self.tracer.materialize(source.moved(ordered.reshape(shape)), shape)
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        bounds = [self._kept_constant(other) if other else "" for other in node.input[1:]]
        label = self._label(node)
        made = self.tracer.emit(node.op_type, [name, *bounds], shape, label, **attributes)
        fresh = self._root_of(made)
        if not plain:
            return self.tracer.trace(fresh, source.shape)
        assert root is not None
        return Traced(source.addresses - root.base + fresh.base)

    def _add(self, node: onnx.NodeProto) -> Traced:
        if any(name in self.constants for name in node.input):
            return self._add_constant(node)
        first, second = (self.values[name] for name in node.input)
        if first.shape != second.shape:
            raise Refused(
                f"shapes {list(first.shape)} and {list(second.shape)} differ; broadcasting is "
                "unsupported"
            )
        order = np.argsort(first.addresses, axis=None)
        root = self.tracer.whole(first)
        shape = root.shape if root is not None else (1, *first.shape[1:])
        if root is None:
            order = np.arange(order.size)
        inputs = []
        for item in (first, second):
            ordered = item.addresses.reshape(-1)[order].reshape(shape)
            inputs.append(self.tracer.materialize(item.moved(ordered), shape))
        fresh = self._root_of(self.tracer.emit("Add", inputs, shape, self._label(node)))
        addresses = np.empty(order.size, np.int64)
        addresses[order] = np.arange(fresh.base, fresh.base + order.size)
        return Traced(addresses.reshape(first.shape))

    def _add_constant(self, node: onnx.NodeProto) -> Traced:
        """The bias of the dense layer before, or a learned offset such as a position's."""
        constant = next(name for name in node.input if name in self.constants)
        source = self.values[next(name for name in node.input if name != constant)]
        value = np.asarray(self.constants[constant], np.float32)
        root = self.tracer.whole(source)
        if root is not None and root.deferred[0] == "erf" and np.all(value == 1.0):
            return self.tracer.trace(
                self.tracer.defer("erf + 1", node.name, root.shape, *root.deferred[1])
            )
        if np.broadcast_shapes(value.shape, source.shape) != source.shape:
            raise Refused("adds a constant that is larger than the activation")
        spread = np.broadcast_to(value, source.shape)
        if not np.any(spread):
            return source
        if root is None or source.scale != 1.0 or root.deferred[0]:
            raise Refused("adds a constant to a part of a tensor")
        ordered = np.empty(root.size, np.float32)
        ordered[source.addresses.reshape(-1) - root.base] = spread.reshape(-1)
        rows = ordered.reshape(-1, root.shape[-1])
        if root.dense is not None and np.all(rows == rows[0]):
            bias = rows[0] if root.dense.bias is None else root.dense.bias + rows[0]
            layer = root.dense
            label = self._dense_label(node, constant) or layer.label
            made = Dense(layer.source, layer.weight, bias, label)
            fresh = self.tracer.dense(made, root.shape)
        else:
            name = self.tracer.materialize(self.tracer.trace(root), root.shape)
            offset = self.tracer.constant(
                f"{self._label(node)}_offset", ordered.reshape(root.shape)
            )
            label = self._label(node)
            made_name = self.tracer.emit("Offset", [name, offset], root.shape, label, DOMAIN)
            fresh = self._root_of(made_name)
        return Traced(source.addresses - root.base + fresh.base)

    def _scale(self, node: onnx.NodeProto) -> Traced:
        """By a scalar: remembered until a dense layer can take it in."""
        known = [name for name in node.input if name in self.constants]
        if not known:
            return self._product(node)
        value = self.constants[known[0]]
        if value.size != 1 or (node.op_type == "Div" and known[0] == node.input[0]):
            raise Refused("only products with one constant number are supported")
        source = self.values[next(name for name in node.input if name not in known)]
        factor = float(value.reshape(()))
        scale = source.scale / factor if node.op_type == "Div" else source.scale * factor
        shape = self.view.shape(node.output[0])
        return Traced(source.addresses.reshape(shape), 1.0 if isclose(scale, 1.0) else scale)

    def _product(self, node: onnx.NodeProto) -> Traced:
        for first, second in (node.input, node.input[::-1]):
            label = self._label(node)
            made = patterns.gelu(self.tracer, label, self.values[first], self.values[second])
            if made is not None:
                return made
        raise Refused("a product of two activations has no place in the trainable form")

    def _dense(self, node: onnx.NodeProto) -> Traced:
        source = self.values[node.input[0]]
        if attribute(node, "transA", 0):
            raise Refused("transA=1 multiplies by the transposed activation")
        weight = self._constant_input(node, 1, "weight") * attribute(node, "alpha", 1.0)
        weight = weight if attribute(node, "transB", 0) else weight.T
        bias = None
        if len(node.input) > 2 and node.input[2]:
            value = self._constant_input(node, 2, "bias") * attribute(node, "beta", 1.0)
            bias = np.broadcast_to(value.reshape(-1), (len(weight),))
        label = self._dense_label(node, node.input[2] if len(node.input) > 2 else "")
        return self._dense_root(node, source, weight, bias, label or self._label(node))

    def _dense_root(
        self,
        node: onnx.NodeProto,
        source: Traced,
        weight: np.ndarray,
        bias: np.ndarray | None,
        label: str,
    ) -> Traced:
        shape = self.view.shape(node.output[0])
        rows = prod(shape[:-1])
        inside = (1, weight.shape[1]) if rows == 1 else (1, rows, weight.shape[1])
        scaled = Traced(source.addresses) if source.scale != 1.0 else source
        name = self.tracer.materialize(scaled, inside)
        layer = Dense(name, weight * source.scale, bias, label)
        root = self.tracer.dense(layer, (*inside[:-1], len(weight)))
        return self.tracer.trace(root, shape)

    def _constant_input(self, node: onnx.NodeProto, index: int, what: str) -> np.ndarray:
        name = node.input[index]
        if name not in self.constants:
            raise Refused(f"{what} ('{name}') is computed, not a constant")
        return self.constants[name]

    def _dense_label(self, node: onnx.NodeProto, bias: str) -> str:
        """'enc.layers.0.linear1.bias' names the layer where the node has no name of its own."""
        generic = node.name.startswith(("val_", "node_", "/"))
        path = bias.removesuffix(".bias").removesuffix(".in_proj_bias").removesuffix("_bias")
        return identifier(path) if generic and path != bias and self.view.uses[bias] == 1 else ""

    def _matmul(self, node: onnx.NodeProto) -> Traced:
        first, second = node.input
        if second in self.constants and first not in self.constants:
            weight = self.constants[second]
            if weight.ndim != 2:
                raise Refused(f"weight has {weight.ndim} dimensions instead of 2")
            return self._dense_root(node, self.values[first], weight.T, None, self._label(node))
        if first in self.constants:
            raise Refused("only activation x constant is supported, in this order")
        a, b = self.values[first], self.values[second]
        root = self.tracer.whole(a)
        if root is not None and root.deferred[0] == "softmax":
            shape = self.view.shape(node.output[0])
            return patterns.attention(self.tracer, self._label(node), root, a, b, shape)
        product = self.tracer.defer(
            "a product of activations", node.name, self.view.shape(node.output[0]), a, b
        )
        return self.tracer.trace(product)

    def _softmax(self, node: onnx.NodeProto) -> Traced:
        source = self.values[node.input[0]]
        rank = source.addresses.ndim
        axis = int(attribute(node, "axis", -1 if self.view.opset >= 13 else 1)) % rank
        root = self.tracer.whole(source)
        if root is not None and root.deferred[0] == "a product of activations" and axis == rank - 1:
            queries, keys = root.deferred[1]
            scaled = Traced(queries.addresses, queries.scale * keys.scale * source.scale)
            plain = Traced(keys.addresses)
            return self.tracer.trace(
                self.tracer.defer("softmax", node.name, source.shape, scaled, plain)
            )
        shape = source.shape
        if axis != rank - 1 or prod(shape[:-1]) != 1:
            raise Refused(f"over axis {axis} of {rank} dimensions outside attention")
        name = self.tracer.materialize(source, (1, shape[-1]))
        made = self.tracer.emit("Softmax", [name], (1, shape[-1]), self._label(node), axis=1)
        return self.tracer.trace(self._root_of(made), shape)

    def _layer_normalization(self, node: onnx.NodeProto) -> Traced:
        source = self.values[node.input[0]]
        rank, features = source.addresses.ndim, source.shape[-1]
        if int(attribute(node, "axis", -1)) % rank != rank - 1:
            raise Refused("over more than the last axis")
        rows = source.addresses.size // features
        shape = (1, features) if rows == 1 else (1, rows, features)
        inputs = [self.tracer.materialize(source, shape)]
        inputs += [self._kept_constant(name) for name in node.input[1:] if name]
        epsilon = float(attribute(node, "epsilon", 1e-5))
        label = self._label(node)
        made = self.tracer.emit(
            node.op_type, inputs, shape, label, axis=len(shape) - 1, epsilon=epsilon
        )
        return self.tracer.trace(self._root_of(made), source.shape)

    def _mean(self, node: onnx.NodeProto) -> Traced:
        """Over time of [time, features]; over an image as the source has it."""
        source = self.values[node.input[0]]
        given = self.constants.get(node.input[1]) if len(node.input) > 1 else None
        axes = attribute(node, "axes", None) if given is None else given.reshape(-1).tolist()
        wide = [i for i in sorted(int(a) % source.addresses.ndim for a in axes or [])]
        long = [axis for axis, size in enumerate(source.shape) if size > 1]
        reduced = [axis for axis in wide if source.shape[axis] > 1]
        if source.addresses.ndim == 4 or len(long) != 2 or reduced != long[:1]:
            self._keep(node)
            return self.values[node.output[0]]
        time, features = (source.shape[axis] for axis in long)
        name = self.tracer.materialize(source, (1, time, features))
        label = self._label(node)
        made = self.tracer.emit("TimeMean", [name], (1, features), label, DOMAIN)
        return self.tracer.trace(self._root_of(made), self.view.shape(node.output[0]))

    def _recurrent(self, node: onnx.NodeProto) -> Traced:
        time, batch, inputs = self.view.shape(node.input[0])
        if int(attribute(node, "layout", 0)) == 1:
            time, batch = batch, time
        if batch != 1:
            raise Refused(f"a batch of {batch} (the second dimension of its input); only 1 is")
        x = self.tracer.materialize(self.values[node.input[0]], (1, time, inputs))
        constants = [self.constants.get(name) if name else None for name in node.input]
        kinds = [bool(name) for name in node.input]
        cell = node.output[2] if len(node.output) > 2 else ""
        directions = emit_recurrent(
            self.tracer, node, x, constants, kinds, self._label(node),
            uses_cell=bool(cell and self.view.uses[cell]),
        )  # fmt: skip
        roots = [self._root_of(name) for name in directions]
        hidden = roots[0].shape[-1]
        states = [self.tracer.trace(root).addresses[0] for root in roots]
        reverse = [attribute(node, "direction", "forward") == "reverse", True]
        last = [s[0 if r else -1] for s, r in zip(states, reverse, strict=False)]
        if len(node.output) > 1 and node.output[1]:
            shape = (len(roots), 1, hidden)
            self.values[node.output[1]] = Traced(np.stack(last).reshape(shape))
        return Traced(np.stack(states, axis=1)[:, :, None, :])
