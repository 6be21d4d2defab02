"""BatchNorm: its statistics taken again on real data, and its absorption into the layer before."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn

from edgecompress.compress.layers import (
    input_nodes,
    kind_of,
    layer_name,
    module_of,
    replace_module,
)
from edgecompress.errors import UnsupportedOperators
from edgecompress.model.trainable import Trainable

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def reestimate(trainable: Trainable, x: torch.Tensor, *, batch_size: int = 128) -> Trainable:
    """Running means and variances replaced by the plain averages over the batches of `x`.

    Pruned and factorized layers have other statistics than the trained ones; a few forward passes
    win back most of the loss at no training cost. Weights are untouched.

    Args:
        x: calibration inputs, [N, ...] float32.
        batch_size: samples a forward pass.
    """
    graph = copy.deepcopy(trainable.graph)
    norms = [module for module in graph.modules() if isinstance(module, BatchNorm)]
    if not norms:
        return replace(trainable, graph=graph)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # None is torch's cumulative average
    graph.eval()
    for norm in norms:
        norm.train()
    # A last batch of one has no variance: it is left out.
    batches = [batch for batch in x.split(batch_size) if len(batch) > 1]
    with torch.no_grad():
        for batch in batches:
            graph(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return replace(trainable, graph=graph.eval())


def fold(trainable: Trainable) -> Trainable:
    """BatchNorm absorbed into the conv or dense layer before it; identities removed; eval mode.

    y = gamma * (w x + b - mean) / sqrt(var + eps) + beta is the same layer with
    w' = w * s and b' = (b - mean) * s + beta, s = gamma / sqrt(var + eps) (computed in float64).
    A BatchNorm2d with no layer to take it becomes a 1x1 depthwise convolution of the same name.

    Raises:
        UnsupportedOperators: a BatchNorm1d that follows no dense layer.
    """
    graph = copy.deepcopy(trainable.graph).eval()
    for node in list(graph.graph.nodes):
        if node.op != "call_module":
            continue
        kind = kind_of(node)
        if kind == "identity":
            _bypass(graph, node)
        elif kind == "batchnorm":
            _absorb(graph, node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return replace(trainable, graph=graph)


def _bypass(graph: torch.fx.GraphModule, node: torch.fx.Node) -> None:
    node.replace_all_uses_with(input_nodes(node)[0])
    graph.graph.erase_node(node)


def _scale_and_shift(norm: BatchNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """s and beta - mean * s, float64 [C]."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        shift = shift + norm.bias.detach().double()
    return scale, shift


def _absorb(graph: torch.fx.GraphModule, node: torch.fx.Node) -> None:
    norm = module_of(node)
    assert isinstance(norm, BatchNorm)
    scale, shift = _scale_and_shift(norm)
    before = input_nodes(node)[0]
    takes = before.op == "call_module" and kind_of(before) in ("conv", "linear")
    if takes and len(before.users) == 1 and _is_called_once(before):
        layer = module_of(before)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        shape = (-1,) + (1,) * (layer.weight.dim() - 1)
        weight = layer.weight.detach().double() * scale.reshape(shape)
        bias = shift if layer.bias is None else layer.bias.detach().double() * scale + shift
        layer.weight = nn.Parameter(weight.float())
        layer.bias = nn.Parameter(bias.float())
        _bypass(graph, node)
        return
    if isinstance(norm, nn.BatchNorm1d):
        reason = "a BatchNorm1d must directly follow a dense layer"
        raise UnsupportedOperators([("BatchNorm1d", layer_name(node), reason)])
    channels = norm.num_features
    depthwise = nn.Conv2d(channels, channels, 1, groups=channels)
    depthwise.weight = nn.Parameter(scale.float().reshape(channels, 1, 1, 1))
    depthwise.bias = nn.Parameter(shift.float())
    replace_module(graph, layer_name(node), depthwise)


def _is_called_once(node: torch.fx.Node) -> bool:
    return sum(other.target == node.target for other in node.graph.nodes) == 1
