"""Layers cut to the channels that stay, in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from edgecompress.compress.channels import ChannelMap
from edgecompress.compress.layers import input_nodes, is_depthwise, kind_of, layer_name
from edgecompress.model.offset import Offset
from edgecompress.model.recurrent import Recurrent


def narrow(
    graph: torch.fx.GraphModule,
    original: torch.fx.GraphModule,
    channels: ChannelMap,
    removed: set[int],
) -> None:
    """Slices every layer of `graph`, a copy of `original`, to the channels that stay."""
    done: set[str] = set()
    for node, twin in zip(original.graph.nodes, graph.graph.nodes, strict=True):
        kind = kind_of(node)
        if kind == "reshape":
            _resize_reshape(twin, channels, node, removed)
        elif kind in ("scores", "mix"):
            heads = node if kind == "scores" else input_nodes(node)[0]
            twin.args = (*twin.args[:2], len(kept(channels.of(heads), removed)))
        if node.op != "call_module" or layer_name(node) in done:
            continue
        done.add(layer_name(node))
        keep_in = kept(channels.of(input_nodes(node)[0]), removed)
        keep_out = kept(channels.of(node), removed)
        module = graph.get_submodule(layer_name(node))
        if isinstance(module, Offset):
            _slice_offset(module, channels.axes[node], keep_out)
        else:
            _slice(module, keep_in, keep_out)
    graph.recompile()


def kept(labels: np.ndarray, removed: set[int]) -> torch.Tensor:
    """Positions that stay, int64."""
    return torch.tensor([at for at, label in enumerate(labels) if int(label) not in removed])


def _slice(module: nn.Module, keep_in: torch.Tensor, keep_out: torch.Tensor) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        _slice_weighted(module, keep_in, keep_out)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        _slice_norm(module, keep_out)
    elif isinstance(module, nn.LayerNorm):
        _slice_layer_norm(module, keep_out)
    elif isinstance(module, Recurrent):
        _slice_recurrent(module, keep_in, keep_out)


def _slice_weighted(
    module: nn.Conv2d | nn.Linear, keep_in: torch.Tensor, keep_out: torch.Tensor
) -> None:
    weight = module.weight.detach()[keep_out]
    if isinstance(module, nn.Linear):
        module.in_features, module.out_features = len(keep_in), len(keep_out)
        weight = weight[:, keep_in]
    elif is_depthwise(module):
        module.groups = len(keep_in)
    elif module.groups == 1:
        weight = weight[:, keep_in]
    if isinstance(module, nn.Conv2d):
        module.in_channels, module.out_channels = len(keep_in), len(keep_out)
    module.weight = nn.Parameter(weight.clone())
    if module.bias is not None:
        module.bias = nn.Parameter(module.bias.detach()[keep_out].clone())


def _slice_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, keep: torch.Tensor) -> None:
    module.num_features = len(keep)
    if module.affine:
        module.weight = nn.Parameter(module.weight.detach()[keep].clone())
        module.bias = nn.Parameter(module.bias.detach()[keep].clone())
    if module.running_mean is not None and module.running_var is not None:
        module.running_mean = module.running_mean[keep].clone()
        module.running_var = module.running_var[keep].clone()


def _slice_layer_norm(module: nn.LayerNorm, keep: torch.Tensor) -> None:
    module.normalized_shape = (len(keep),)
    for name in ("weight", "bias"):
        value = getattr(module, name)
        if value is not None:
            setattr(module, name, nn.Parameter(value.detach()[keep].clone()))


def _slice_offset(module: Offset, axis: int, keep: torch.Tensor) -> None:
    """One value for all channels stays as it is."""
    if module.value.shape[axis] > 1:
        module.value = nn.Parameter(module.value.detach().index_select(axis, keep))


def _slice_recurrent(module: Recurrent, keep_in: torch.Tensor, keep_out: torch.Tensor) -> None:
    """Unit j is rows j, hidden + j, ... of every gate and column j of the recurrent weights."""
    rows = torch.cat([gate * module.hidden + keep_out for gate in range(module.gates)])
    old = {name: value.detach() for name, value in module.layer.named_parameters()}
    narrowed = type(module)(
        len(keep_in), len(keep_out), reverse=module.reverse, sequence=module.sequence
    ).layer.train(module.training)
    cut = {
        "weight_ih_l0": old["weight_ih_l0"][rows][:, keep_in],
        "weight_hh_l0": old["weight_hh_l0"][rows][:, keep_out],
        "bias_ih_l0": old["bias_ih_l0"][rows],
        "bias_hh_l0": old["bias_hh_l0"][rows],
    }
    with torch.no_grad():
        for name, value in narrowed.named_parameters():
            value.copy_(cut[name])
    module.layer, module.inputs, module.hidden = narrowed, len(keep_in), len(keep_out)


def _resize_reshape(
    twin: torch.fx.Node, channels: ChannelMap, node: torch.fx.Node, removed: set[int]
) -> None:
    """The number of channels is written into the shape, unless it is the -1."""
    axis, count = channels.axes[node], len(kept(channels.of(node), removed))

    def resized(value: Any) -> Any:
        sizes = [*value]
        if sizes[axis] > 0:
            sizes[axis] = count
        return type(value)(sizes)

    if len(twin.args) > 1:
        twin.args = (twin.args[0], resized(twin.args[1]))
    else:
        twin.kwargs = {**twin.kwargs, "shape": resized(twin.kwargs["shape"])}
