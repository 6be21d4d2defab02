"""Which activations of a folded graph get a scale, and which of them must have the same one.

The TensorFlow Lite rules (8-bit quantization specification, "Operator specifications"): pooling,
reshape, pad and concatenation move or select values, so their outputs keep their inputs' scale and
the integer kernels need no rescaling.

    conv1 -> relu1 -> pool1 -> cat <- relu2 <- conv2
    tensors: relu1, pool1, cat, relu2       (conv1 and conv2 never exist outside their kernels)
    one scale for all four: pool1 = relu1, cat = pool1, cat = relu2
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from edgecompress.compress.layers import input_nodes, kind_of, module_of

SAME_SCALE = frozenset(
    {
        "maxpool", "avgpool", "flatten", "reshape", "pad", "cat", "relu", "relu6", "select",
        "permute",
    }
)  # fmt: skip
_TAKE_ACTIVATION = frozenset({"conv", "linear", "add"})
_ACTIVATIONS = frozenset({"relu", "relu6"})


@dataclass
class Sharing:
    """The quantized tensors of a graph.

    Attributes:
        tensors: nodes whose output is quantized, in execution order.
        fused: producer -> the activation that runs inside it (the activation is the tensor).
        pads: conv -> the zero padding node that became its `pads` attribute (not a tensor).
        owner: tensor -> the tensor whose scale it uses (itself when alone or first).
    """

    tensors: list[torch.fx.Node] = field(default_factory=list)
    fused: dict[torch.fx.Node, torch.fx.Node] = field(default_factory=dict)
    pads: dict[torch.fx.Node, torch.fx.Node] = field(default_factory=dict)
    owner: dict[torch.fx.Node, torch.fx.Node] = field(default_factory=dict)


def share_scales(graph: torch.fx.GraphModule) -> Sharing:
    """Reads a folded graph (no BatchNorm, no Identity) once, in order."""
    sharing = Sharing()
    for node in graph.graph.nodes:
        kind = kind_of(node)
        if kind == "output":
            continue
        users = list(node.users)
        if kind == "pad" and len(users) == 1 and _is_zero_pad_of_conv(node, users[0]):
            sharing.pads[users[0]] = node
            continue
        if kind in _TAKE_ACTIVATION and len(users) == 1 and kind_of(users[0]) in _ACTIVATIONS:
            sharing.fused[node] = users[0]
            continue
        sharing.tensors.append(node)
        sharing.owner[node] = node
        if kind in SAME_SCALE and node not in sharing.fused.values():
            for source in input_nodes(node):
                _join(sharing.owner, _owner(sharing.owner, source), node)
    for node in sharing.tensors:
        sharing.owner[node] = _owner(sharing.owner, node)
    return sharing


def _is_zero_pad_of_conv(pad: torch.fx.Node, user: torch.fx.Node) -> bool:
    module = module_of(pad)
    assert isinstance(module, nn.ZeroPad2d | nn.ConstantPad2d)
    grows = all(amount >= 0 for amount in module.padding)
    return kind_of(user) == "conv" and float(module.value) == 0.0 and grows


def _owner(owner: dict[torch.fx.Node, torch.fx.Node], node: torch.fx.Node) -> torch.fx.Node:
    while owner[node] is not node:
        node = owner[node]
    return node


def _join(
    owner: dict[torch.fx.Node, torch.fx.Node], first: torch.fx.Node, second: torch.fx.Node
) -> None:
    """Makes the owner `first` and the owner of `second` one; the earlier stays owner."""
    root = _owner(owner, second)
    if root is second:
        owner[second] = first
    elif root is not first:
        owner[first] = root
