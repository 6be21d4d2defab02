"""Coupled channels: which output channels can only be removed together.

Labels say which channels are the same (see `channels`); labels made by the same layers are a group.

    stem (8) ----------------.
      '-> conv1 (8) -> conv2 (8) -> add -> head

    stem makes a0..a7, conv1 makes b0..b7, conv2 makes c0..c7; the addition joins a_i with c_i.
    groups: stem  = 8 channels, producers stem and conv2, consumers conv1 and head
            conv1 = 8 channels, producer conv1, consumer conv2

Removing channel 3 of group `stem` removes filter 3 of stem and conv2, and input 3 of conv1 and
head. Labels that reach the model's output (or something that mixes channels, such as a grouped
convolution) are fixed and belong to no group. The heads of an attention layer and the units of a
recurrent layer are channels like any other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgecompress.compress.channels import ChannelMap, makes_channels, map_channels, unit_size
from edgecompress.compress.layers import input_nodes, is_depthwise, kind_of, layer_name, module_of
from edgecompress.model.trainable import Trainable

_FOLLOW = frozenset({"batchnorm", "layernorm", "offset"})


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that live and die together.

    Attributes:
        name: the first producer in execution order.
        channels: how many there are now.
        producers: conv, dense and recurrent layers whose filters make them.
        consumers: conv, dense and recurrent layers that read them.
        followers: depthwise, normalization and offset layers in between, which narrow along.
        unit: outputs of a producer that one channel stands for; above 1 where the channels are
            attention heads.
    """

    name: str
    channels: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    followers: tuple[str, ...] = ()
    unit: int = 1


def find_groups(trainable: Trainable) -> list[ChannelGroup]:
    """All prunable groups, in execution order of their first producer.

    Raises:
        UnsupportedOperators: a node of no known kind.
    """
    channels = map_channels(trainable)
    members: dict[int, dict[str, list[str]]] = {}
    units: dict[str, int] = {}
    for node in trainable.graph.graph.nodes:
        if node.op != "call_module":
            continue
        kind, name = kind_of(node), layer_name(node)
        if kind in _FOLLOW or (kind == "conv" and is_depthwise(module_of(node))):
            _enlist(members, "followers", name, channels.of(node))
        elif makes_channels(node):
            units[name] = unit_size(channels, node)
            _enlist(members, "consumers", name, channels.of(input_nodes(node)[0]))
            _enlist(members, "producers", name, channels.of(node))
    return [
        ChannelGroup(
            layers["producers"][0],
            len(labels),
            tuple(layers["producers"]),
            tuple(layers["consumers"]),
            tuple(layers["followers"]),
            units[layers["producers"][0]],
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
