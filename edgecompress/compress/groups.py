"""Coupled channels: which output channels can only be removed together.

Every channel made by a conv or dense layer gets a label; layers that keep channels apart pass
labels on, an addition makes two labels one, a concatenation puts label lists side by side, a
flatten repeats each label for every position of the map.

    stem (8) ----------------.
      '-> conv1 (8) -> conv2 (8) -> add -> head

    stem makes a0..a7, conv1 makes b0..b7, conv2 makes c0..c7; the addition joins a_i with c_i.
    groups: stem  = 8 channels, producers stem and conv2, consumers conv1 and head
            conv1 = 8 channels, producer conv1, consumer conv2

Removing channel 3 of group `stem` removes filter 3 of stem and conv2, and input 3 of conv1 and
head. Labels that reach the model's output (or something that mixes channels, such as a grouped
convolution) are fixed and belong to no group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from edgecompress.compress.layers import (
    input_nodes,
    is_depthwise,
    kind_of,
    layer_name,
    module_of,
)
from edgecompress.model.trainable import Trainable

_PASS = frozenset(
    {"batchnorm", "relu", "relu6", "maxpool", "avgpool", "globalpool", "identity", "pad"}
)


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that live and die together.

    Attributes:
        name: the first producer in execution order.
        channels: how many there are now.
        producers: conv and dense layers whose filters make them.
        consumers: conv and dense layers that read them.
        followers: depthwise and BatchNorm layers in between, which narrow along.
    """

    name: str
    channels: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    followers: tuple[str, ...] = ()


@dataclass
class ChannelMap:
    """Every node's channels as labels; equal resolved labels are one channel.

    Attributes:
        outputs: node -> labels of axis 1 of its output, int64 [C].
        shapes: node -> output shape for the example input.
        fixed: resolved labels that may not be removed.
    """

    outputs: dict[torch.fx.Node, np.ndarray] = field(default_factory=dict)
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


def find_groups(trainable: Trainable) -> list[ChannelGroup]:
    """All prunable groups, in execution order of their first producer.

    Raises:
        UnsupportedOperators: a node of no known kind.
    """
    channels = map_channels(trainable)
    members: dict[int, dict[str, list[str]]] = {}
    for node in trainable.graph.graph.nodes:
        if node.op != "call_module":
            continue
        kind, name = kind_of(node), layer_name(node)
        if kind == "batchnorm" or (kind == "conv" and is_depthwise(module_of(node))):
            _enlist(members, "followers", name, channels.of(node))
        elif kind in ("conv", "linear"):
            _enlist(members, "consumers", name, channels.of(input_nodes(node)[0]))
            _enlist(members, "producers", name, channels.of(node))
    return [
        ChannelGroup(
            layers["producers"][0],
            len(labels),
            tuple(layers["producers"]),
            tuple(layers["consumers"]),
            tuple(layers["followers"]),
        )
        for labels, layers in _components(members, channels)
    ]


def group_labels(trainable: Trainable, channels: ChannelMap) -> dict[str, list[int]]:
    """Group name -> its labels in ascending order, for the same groups as `find_groups`."""
    members: dict[int, dict[str, list[str]]] = {}
    for node in trainable.graph.graph.nodes:
        if makes_channels(node):
            _enlist(members, "producers", layer_name(node), channels.of(node))
    return {layers["producers"][0]: labels for labels, layers in _components(members, channels)}


def makes_channels(node: torch.fx.Node) -> bool:
    """Whether the node is a producer: a dense layer, or a conv that is not depthwise."""
    if node.op != "call_module" or kind_of(node) not in ("conv", "linear"):
        return False
    return not is_depthwise(module_of(node))


def _enlist(
    members: dict[int, dict[str, list[str]]], role: str, name: str, labels: np.ndarray
) -> None:
    for label in np.unique(labels):
        roles = members.setdefault(int(label), {"producers": [], "consumers": [], "followers": []})
        if name not in roles[role]:
            roles[role].append(name)


def _components(
    members: dict[int, dict[str, list[str]]], channels: ChannelMap
) -> list[tuple[list[int], dict[str, list[str]]]]:
    """Labels gathered over shared producers; a component with a fixed label is dropped.

    Concatenation followed by addition gives one group of several producers with different labels:
    a makes 0-3, b makes 4-9, c makes 0-9.
    """
    groups: list[tuple[list[int], dict[str, list[str]]]] = []
    of_producer: dict[str, int] = {}
    for label in sorted(members):
        producers = members[label]["producers"]
        found = sorted({of_producer[name] for name in producers if name in of_producer})
        home = found[0] if found else len(groups)
        if not found:
            groups.append(([], {"producers": [], "consumers": [], "followers": []}))
        for other in found[1:]:
            _merge(groups[home], groups[other])
            of_producer = {name: home if at == other else at for name, at in of_producer.items()}
            groups[other] = ([], {"producers": [], "consumers": [], "followers": []})
        _merge(groups[home], ([label], members[label]))
        of_producer.update(dict.fromkeys(producers, home))
    nodes = reversed([*enumerate(channels.outputs)])
    order = {layer_name(node): at for at, node in nodes}
    for _, roles in groups:
        for names in roles.values():
            names.sort(key=lambda name: order[name])
    prunable = [
        (sorted(labels), roles)
        for labels, roles in groups
        if roles["producers"] and not channels.fixed.intersection(labels)
    ]
    return sorted(prunable, key=lambda group: order[group[1]["producers"][0]])


def _merge(
    home: tuple[list[int], dict[str, list[str]]], other: tuple[list[int], dict[str, list[str]]]
) -> None:
    home[0].extend(other[0])
    for role, names in other[1].items():
        home[1][role].extend(name for name in names if name not in home[1][role])


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
        if n.op == "output":
            self._fix(self.channels.outputs[input_nodes(n)[0]])
            return value
        self.channels.shapes[n] = tuple(value.shape)
        self.channels.outputs[n] = self._label(n, kind_of(n))
        return value

    def _fix(self, labels: np.ndarray) -> None:
        self.channels.fixed.update(int(label) for label in labels)

    def _label(self, node: torch.fx.Node, kind: str) -> np.ndarray:
        channels = self.channels
        count = channels.shapes[node][1]
        sources = [channels.outputs[source] for source in input_nodes(node)]
        if kind in ("conv", "linear"):
            return self._label_weighted(node, sources[0], count)
        if kind in _PASS:
            return sources[0]
        if kind == "add" and all(len(labels) == count for labels in sources):
            for other in sources[1:]:
                channels.join(sources[0], other)
            return sources[0]
        if kind == "cat" and sum(map(len, sources)) == count:
            return np.concatenate([channels.outputs[part] for part in node.args[0]])  # type: ignore
        if kind in ("flatten", "reshape"):
            shape = channels.shapes[input_nodes(node)[0]]
            if math.prod(shape[1:]) == count:
                return np.repeat(sources[0], count // shape[1])
        # What mixes or moves channels in another way (softmax, a reshape to a map) keeps them all.
        for labels in sources:
            self._fix(labels)
        if kind == "softmax":
            return sources[0]
        fresh = channels.new(count)
        self._fix(fresh)
        return fresh

    def _label_weighted(self, node: torch.fx.Node, source: np.ndarray, count: int) -> np.ndarray:
        channels, module, name = self.channels, module_of(node), layer_name(node)
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
