"""A model whose every number is decided: weights on their grids, scales of all activations."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from edgecompress.compress.batchnorm import fold
from edgecompress.compress.layers import input_nodes, kind_of, layer_name, module_of
from edgecompress.compress.quantize.affine import Affine
from edgecompress.compress.quantize.sharing import Sharing
from edgecompress.compress.quantize.weights import (
    WeightGrid,
    make_grid,
    quantize_bias,
    widened,
    zeroed,
)
from edgecompress.errors import BadInput
from edgecompress.model.trainable import Trainable
from edgecompress.records import WeightStorage

Layer = nn.Conv2d | nn.Linear


@dataclass
class Quantized(Trainable):
    """A folded graph whose weights and biases are what the deployable will dequantize to.

    `quantize` writes it as it is; a forward pass of `graph` shows the weights' rounding but not
    the activations'.

    Attributes:
        activations: node name -> scale and zero point, for every tensor of `share_scales`.
        grids: layer path -> the grid its weights lie on.
        storage: layer path -> the format asked for; int8 where it is missing.
    """

    activations: dict[str, Affine] = field(default_factory=dict)
    grids: dict[str, WeightGrid] = field(default_factory=dict)
    storage: dict[str, WeightStorage] = field(default_factory=dict)


def weighted_nodes(graph: torch.fx.GraphModule) -> list[torch.fx.Node]:
    """Calls of convolutions and dense layers, in execution order."""
    return [node for node in graph.graph.nodes if kind_of(node) in ("conv", "linear")]


def input_of(node: torch.fx.Node, sharing: Sharing) -> torch.fx.Node:
    """The tensor a weighted layer reads: before the zero padding it absorbs."""
    return input_nodes(sharing.pads.get(node, node))[0]


def bias_of(layer: Layer) -> np.ndarray:
    """float32 [O], zeros where the layer has none."""
    if layer.bias is None:
        return np.zeros(len(layer.weight), np.float32)
    return layer.bias.detach().float().numpy()


def put_on_grids(
    folded: Trainable,
    sharing: Sharing,
    activations: dict[str, Affine],
    storage: dict[str, WeightStorage],
    *,
    grids: dict[str, WeightGrid] | None = None,
    per_channel: bool = True,
) -> Quantized:
    """Rounds weights and biases of `folded` in place and gathers everything `quantize` writes.

    Args:
        folded: no BatchNorm left; its graph becomes the result's.
        grids: of training, where they are known; the others are made here.
    """
    made: dict[str, WeightGrid] = {}
    scales: dict[str, np.float32] = {}
    nodes = {layer_name(node): node for node in weighted_nodes(folded.graph)}
    for node in weighted_nodes(folded.graph):
        # A layer called twice has one grid, wide enough for the finer of its inputs.
        scale = activations[input_of(node, sharing).name].scale
        scales[layer_name(node)] = min(scale, scales.get(layer_name(node), scale))
    for name, node in nodes.items():
        layer = module_of(node)
        assert isinstance(layer, Layer)
        weight = zeroed(layer.weight.detach().float().numpy(), storage.get(name))
        bias = bias_of(layer)
        if grids is not None and name in grids:
            grid = widened(grids[name], bias, scales[name])
        else:
            grid = make_grid(weight, bias, scales[name], storage.get(name), per_channel=per_channel)
        made[name] = grid
        layer.weight = nn.Parameter(torch.from_numpy(grid.real(grid.round(weight))))
        if layer.bias is not None:
            stored, step = quantize_bias(bias, scales[name], grid.scale)
            layer.bias = nn.Parameter(torch.from_numpy(stored.astype(np.float32) * step))
    return Quantized(
        folded.graph,
        folded.example,
        folded.input_name,
        folded.output_name,
        activations=activations,
        grids=made,
        storage=storage,
    )


def checked(model: Quantized, storage: dict[str, WeightStorage]) -> Quantized:
    """A copy safe to write.

    Raises:
        BadInput: the graph was changed after its numbers were decided, or other storage is asked
            for than it was made for.
    """
    copied = fold(model)
    layers = {layer_name(node): module_of(node) for node in weighted_nodes(copied.graph)}
    for name, layer in layers.items():
        grid = model.grids.get(name)
        assert isinstance(layer, Layer)
        if grid is None or len(grid.scale) != len(layer.weight):
            raise BadInput(
                f"Layer '{name}' was changed after quantization-aware training.",
                next_step="Prune and factorize first, then train, then quantize.",
            )
    if storage and storage != model.storage:
        wrong = sorted(
            name
            for name in {*storage, *model.storage}
            if storage.get(name) != model.storage.get(name)
        )
        raise BadInput(
            f"Layer '{wrong[0]}' was trained for {_shown(model.storage.get(wrong[0]))} weights, "
            f"not for {_shown(storage.get(wrong[0]))} ones.",
            next_step="Give quantize the storage that the training was given.",
        )
    assert isinstance(copied, Quantized)
    return copied


def _shown(storage: WeightStorage | None) -> str:
    return "int8" if storage is None else storage.format
