"""Every channel of a network followed through its graph as a label.

A layer that makes channels gives each a new label; layers that keep channels apart pass labels on,
an addition makes two labels one, a concatenation puts label lists side by side, a flatten repeats
each label for every position of the map. What only moves values about (reshape, permute, select)
is run on a tensor of labels, so that it says itself where the channels go.

Channels are axis 1 of maps [N, C, H, W] and of [N, features], the last axis of sequences
[N, time, features].

Attention joins all features of a head, in the three projections and behind, into one label: heads
live and die whole. A recurrent layer's label j is unit j: its rows in every gate, its column of the
recurrent weights, its feature of the output.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx.node import map_arg

from edgecompress.compress.layers import (
    input_nodes,
    is_depthwise,
    kind_of,
    layer_name,
    module_of,
)
from edgecompress.model.recurrent import Recurrent
from edgecompress.model.trainable import Trainable

_PASS = frozenset(
    {"batchnorm", "relu", "relu6", "maxpool", "avgpool", "globalpool", "identity", "pad", "gelu"}
    | {"sigmoid", "tanh", "offset"}
)
_MOVE = frozenset({"flatten", "reshape", "permute", "select", "mean"})
_AXIS_ARGUMENT = frozenset({"select", "mean"})


@dataclass
class ChannelMap:
    """Every node's channels as labels; equal resolved labels are one channel.

    Attributes:
        outputs: node -> labels along the channel axis of its output, int64 [C].
        axes: node -> that axis.
        shapes: node -> output shape for the example input.
        fixed: resolved labels that may not be removed.
    """

    outputs: dict[torch.fx.Node, np.ndarray] = field(default_factory=dict)
    axes: dict[torch.fx.Node, int] = field(default_factory=dict)
    shapes: dict[torch.fx.Node, tuple[int, ...]] = field(default_factory=dict)
    fixed: set[int] = field(default_factory=set)
    parent: list[int] = field(default_factory=list)

    def new(self, count: int) -> np.ndarray:
        first = len(self.parent)
        self.parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def find(self, label: int) -> int:
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    def resolve(self, labels: np.ndarray) -> np.ndarray:
        return np.array([self.find(int(label)) for label in labels], np.int64)

    def join(self, first: np.ndarray, second: np.ndarray) -> None:
        """Element i of both becomes one channel; the smaller label is kept."""
        for one, other in zip(first, second, strict=True):
            roots = sorted((self.find(int(one)), self.find(int(other))))
            self.parent[roots[1]] = roots[0]

    def of(self, node: torch.fx.Node) -> np.ndarray:
        """Resolved labels of a node's output channels."""
        return self.resolve(self.outputs[node])

    def by_channel(self, node: torch.fx.Node, value: torch.Tensor) -> torch.Tensor:
        """A value of the shape a node gives as [N, C, everything else]."""
        return value.movedim(self.axes[node], 1).reshape(len(value), len(self.outputs[node]), -1)


def makes_channels(node: torch.fx.Node) -> bool:
    """Whether the node is a producer: a dense or recurrent layer, or a conv that is not depthwise.

    Each of them also reads: it mixes what comes in.
    """
    if node.op != "call_module" or kind_of(node) not in ("conv", "linear", "recurrent"):
        return False
    return not is_depthwise(module_of(node))


def filters_of(module: nn.Module) -> torch.Tensor:
    """[O, N] the weights that make each output channel, detached.

    Of a recurrent unit: its rows of all gates, for the inputs and for the states before.
    """
    if isinstance(module, Recurrent):
        weights = dict(module.layer.named_parameters())
        rows = torch.cat([weights["weight_ih_l0"], weights["weight_hh_l0"]], dim=1).detach()
        return rows.reshape(module.gates, module.hidden, -1).transpose(0, 1).flatten(1)
    assert isinstance(module, nn.Conv2d | nn.Linear)
    return module.weight.detach().flatten(1)


def unit_size(channels: ChannelMap, producer: torch.fx.Node) -> int:
    """How many outputs one label stands for: 1, or the features of an attention head."""
    return min(Counter(channels.of(producer).tolist()).values())


def map_channels(trainable: Trainable) -> ChannelMap:
    """Follows every channel through the graph once."""
    walk = _Walk(trainable.graph)
    walk.run(trainable.example)
    channels = walk.channels
    channels.fixed = {channels.find(label) for label in channels.fixed}
    return channels


class _Walk(torch.fx.Interpreter):
    """Runs the example (for shapes) and labels each output as it appears."""

    def __init__(self, graph: torch.fx.GraphModule) -> None:
        super().__init__(graph)
        self.channels = ChannelMap()
        self._calls: dict[str, torch.fx.Node] = {}

    def run_node(self, n: torch.fx.Node) -> Any:
        with torch.no_grad():
            value = super().run_node(n)
        channels = self.channels
        if n.op == "output":
            self._fix(channels.outputs[input_nodes(n)[0]])
            return value
        channels.shapes[n] = tuple(value.shape)
        channels.axes[n] = 2 if value.dim() == 3 else 1
        channels.outputs[n] = self._label(n, kind_of(n))
        return value

    def _fix(self, labels: np.ndarray) -> None:
        self.channels.fixed.update(int(label) for label in labels)

    def _label(self, node: torch.fx.Node, kind: str) -> np.ndarray:
        channels = self.channels
        given = input_nodes(node)
        sources = [channels.outputs[source] for source in given]
        last = len(channels.shapes[node]) - 1
        if kind in ("conv", "linear", "recurrent"):
            reads = 1 if kind == "conv" else len(channels.shapes[given[0]]) - 1
            if channels.axes[given[0]] != reads:
                self._fix(sources[0])
            return self._label_weighted(node, sources[0])
        passes = kind in _PASS or (kind == "layernorm" and channels.axes[given[0]] == last)
        if passes or (kind == "softmax" and not self._normalizes_channels(node)):
            channels.axes[node] = channels.axes[given[0]]
            return sources[0]
        if kind in ("add", "cat"):
            joined = self._joined(node, kind, sources)
            if joined is not None:
                return joined
        if kind in ("scores", "mix"):
            return self._attention(node, kind, sources)
        if kind in _MOVE and (moved := self._moved(node, kind)) is not None:
            return moved
        # What mixes or moves channels in another way keeps them all.
        for labels in sources:
            self._fix(labels)
        fresh = channels.new(channels.shapes[node][channels.axes[node]])
        self._fix(fresh)
        return fresh

    def _normalizes_channels(self, node: torch.fx.Node) -> bool:
        module = module_of(node)
        assert isinstance(module, nn.Softmax)
        rank = len(self.channels.shapes[node])
        axis = 1 if module.dim is None else module.dim % rank
        return axis == self.channels.axes[input_nodes(node)[0]]

    def _label_weighted(self, node: torch.fx.Node, source: np.ndarray) -> np.ndarray:
        channels, module, name = self.channels, module_of(node), layer_name(node)
        axis = 1 if isinstance(module, nn.Conv2d) else len(channels.shapes[node]) - 1
        channels.axes[node] = axis
        count = channels.shapes[node][axis]
        if is_depthwise(module):
            labels = np.repeat(source, count // len(source))
        else:
            labels = channels.new(count)
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                self._fix(source)
                self._fix(labels)
        if name in self._calls:  # one module called again: the same channels in and out
            before = self._calls[name]
            channels.join(channels.outputs[input_nodes(before)[0]], source)
            channels.join(channels.outputs[before], labels)
        self._calls.setdefault(name, node)
        return labels

    def _joined(
        self, node: torch.fx.Node, kind: str, sources: list[np.ndarray]
    ) -> np.ndarray | None:
        """Labels of a sum or concatenation of tensors with the same channel axis, else None."""
        channels = self.channels
        parts = list(node.args[0]) if kind == "cat" else input_nodes(node)  # type: ignore
        axes = {channels.axes[part] for part in parts}
        if len(axes) > 1:
            return None
        axis = axes.pop()
        count = channels.shapes[node][axis]
        if kind == "add":
            if any(len(labels) != count for labels in sources):
                return None
            for other in sources[1:]:
                channels.join(sources[0], other)
        elif sum(len(channels.outputs[part]) for part in parts) != count:
            return None
        channels.axes[node] = axis
        if kind == "add":
            return sources[0]
        return np.concatenate([channels.outputs[part] for part in parts])

    def _attention(self, node: torch.fx.Node, kind: str, sources: list[np.ndarray]) -> np.ndarray:
        """Scores [N, heads, T, T'] carry a label a head; mixing joins the values' to them."""
        channels, heads = self.channels, int(node.args[2])  # type: ignore[call-overload]
        features = sources[0] if kind == "scores" else sources[1]
        each = features.reshape(heads, -1)
        channels.join(np.repeat(each[:, 0], each.shape[1]), features)
        if kind == "scores":
            channels.join(sources[0], sources[1])
            channels.axes[node] = 1
            return each[:, 0].copy()
        channels.join(sources[0], each[:, 0])
        return features

    def _moved(self, node: torch.fx.Node, kind: str) -> np.ndarray | None:
        """Labels where the operation itself puts them; None where they do not stay one axis."""
        channels, source = self.channels, input_nodes(node)[0]
        axis, shape = channels.axes[source], channels.shapes[source]
        if kind in _AXIS_ARGUMENT and _takes_axis(node, axis, len(shape)):
            return None
        view = [1] * len(shape)
        view[axis] = shape[axis]
        labels = torch.from_numpy(channels.outputs[source]).double().reshape(view).expand(shape)
        if node.op == "call_module":
            moved = module_of(node)(labels)
        else:
            args = map_arg(node.args, lambda _: labels)
            kwargs = map_arg(node.kwargs, lambda _: labels)
            moved = node.target(*args, **kwargs)  # type: ignore[operator]
        for at in sorted(range(1, moved.dim()), key=lambda one: one != channels.axes[node]):
            along = moved.movedim(at, 0).flatten(1)
            if bool((along == along[:, :1]).all()):
                channels.axes[node] = at
                return along[:, 0].long().numpy()
        return None


def _takes_axis(node: torch.fx.Node, axis: int, rank: int) -> bool:
    """Whether a reduction or selection works along the channel axis."""
    given = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    wanted = list(given) if isinstance(given, list | tuple) else [given]
    return any(one is None or int(one) % rank == axis for one in wanted)  # type: ignore
