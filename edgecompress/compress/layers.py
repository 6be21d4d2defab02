"""What the nodes of a trainable graph are, in one vocabulary for every compression step."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.fx.node import map_arg

from edgecompress.errors import UnsupportedOperators
from edgecompress.model.attention import mix, scores_of
from edgecompress.model.offset import Offset
from edgecompress.model.recurrent import GRU, LSTM

_MODULES: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv",
    nn.Linear: "linear",
    nn.BatchNorm1d: "batchnorm",
    nn.BatchNorm2d: "batchnorm",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.MaxPool2d: "maxpool",
    nn.AvgPool2d: "avgpool",
    nn.AdaptiveAvgPool2d: "globalpool",
    nn.Flatten: "flatten",
    nn.Softmax: "softmax",
    nn.Identity: "identity",
    nn.Dropout: "identity",
    nn.ZeroPad2d: "pad",
    nn.ConstantPad2d: "pad",
    GRU: "recurrent",
    LSTM: "recurrent",
    nn.LayerNorm: "layernorm",
    nn.GELU: "gelu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    Offset: "offset",
}
_FUNCTIONS: dict[Callable[..., Any] | str, str] = {
    operator.add: "add",
    operator.iadd: "add",
    torch.add: "add",
    torch.cat: "cat",
    torch.flatten: "flatten",
    torch.reshape: "reshape",
    torch.relu: "relu",
    nn.functional.relu: "relu",
    torch.select: "select",
    torch.mean: "mean",
    torch.permute: "permute",
    scores_of: "scores",
    mix: "mix",
}


def kind_of(node: torch.fx.Node) -> str:
    """One word for what a node does: conv, linear, batchnorm, relu, relu6, maxpool, avgpool,
    globalpool, flatten, reshape, softmax, identity, pad, add, cat; of sequences recurrent,
    layernorm, gelu, sigmoid, tanh, offset, select, mean, permute, scores, mix; or "input" and
    "output".

    Raises:
        UnsupportedOperators: the node is none of these.
    """
    if node.op in ("placeholder", "output"):
        return {"placeholder": "input", "output": "output"}[node.op]
    if node.op == "call_module":
        module = module_of(node)
        kind = _MODULES.get(type(module))
        if kind is not None:
            return kind
        raise UnsupportedOperators([(type(module).__name__, layer_name(node), "no such step")])
    kind = _FUNCTIONS.get(node.target) if node.op == "call_function" else None
    if kind is None:
        operation = getattr(node.target, "__name__", str(node.target))
        raise UnsupportedOperators([(operation, node.name, "no such step")])
    return kind


def module_of(node: torch.fx.Node) -> nn.Module:
    """The leaf module a call_module node calls."""
    owner = node.graph.owning_module
    assert owner is not None
    return owner.get_submodule(str(node.target))


def layer_name(node: torch.fx.Node) -> str:
    """The name every record uses: the module's path, or the node's own name for functions."""
    return str(node.target) if node.op == "call_module" else node.name


def input_nodes(node: torch.fx.Node) -> list[torch.fx.Node]:
    """The activations a node reads, in argument order (x + x lists x twice)."""
    found: list[torch.fx.Node] = []
    map_arg((node.args, node.kwargs), found.append)
    return found


def is_depthwise(module: nn.Module) -> bool:
    """Each input channel has its own filters and meets no other."""
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels


def replace_module(graph: torch.fx.GraphModule, name: str, module: nn.Module) -> None:
    """Puts `module` at the path `name`, making it follow the graph's train/eval mode."""
    parent_name, _, leaf = name.rpartition(".")
    setattr(graph.get_submodule(parent_name), leaf, module.train(graph.training))


def ends_in_softmax(graph: torch.fx.GraphModule) -> bool:
    """Whether the graph's output is already probabilities."""
    last = next(node for node in graph.graph.nodes if node.op == "output")
    return kind_of(input_nodes(last)[0]) == "softmax"
