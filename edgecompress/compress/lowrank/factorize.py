"""Layers replaced by their factors in a graph."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from edgecompress.compress.layers import layer_name
from edgecompress.compress.lowrank.bounds import Layer, methods_of
from edgecompress.compress.lowrank.cp import cp
from edgecompress.compress.lowrank.matrix import svd, tucker
from edgecompress.compress.lowrank.moments import Moments, observe
from edgecompress.compress.lowrank.spatial import spatial
from edgecompress.errors import BadInput
from edgecompress.model.trainable import Trainable
from edgecompress.records import LowRank

FACTOR_ENDINGS = ("first", "vertical", "horizontal", "core", "last")
"""What is appended to the name of a layer for each of its factors, where the method has them."""
FITTED_TO_PATCHES = frozenset({"spatial", "cp"})


def factorize(
    trainable: Trainable,
    low_rank: Mapping[str, LowRank],
    calibration: torch.Tensor | None = None,
    moments: Mapping[str, Moments] | None = None,
) -> Trainable:
    """Replaces each named layer by its factors `<layer>_first`, ..., `<layer>_last`.

    No activation stands between the factors; the last one carries the bias. At full rank the
    network computes what it did, up to float rounding (cp: up to what its search finds).

    Args:
        low_rank: layer name -> method and ranks.
        calibration: [N, ...] float32 inputs, or None to approximate the weights alone.
        moments: of at least these layers on `calibration`, where they are known already.

    Raises:
        BadInput: no such layer, a method the layer cannot take, or a rank out of range.
    """
    layers = {name: _checked_layer(trainable, name, low_rank[name]) for name in low_rank}
    if moments is None:
        moments = {}
        if calibration is not None and layers:
            fitted = {name for name, one in low_rank.items() if one.method in FITTED_TO_PATCHES}
            moments = observe(trainable.graph, layers, calibration, with_patches=frozenset(fitted))
    graph = copy.deepcopy(trainable.graph)
    for name, layer in layers.items():
        _replace(graph, name, factors_of(layer, low_rank[name], moments.get(name)))
    graph.delete_all_unused_submodules()
    graph.recompile()
    return replace(trainable, graph=graph.train(trainable.graph.training))


def factors_of(layer: Layer, choice: LowRank, moments: Moments | None) -> list[tuple[str, Layer]]:
    """The layers that replace `layer`, with their name endings, in order."""
    if choice.method == "svd":
        return svd(layer, choice.ranks[0], moments)
    assert isinstance(layer, nn.Conv2d)
    if choice.method == "tucker2":
        return tucker(layer, choice.ranks[0], choice.ranks[1], moments)
    return (cp if choice.method == "cp" else spatial)(layer, choice.ranks[0], moments)


def _checked_layer(trainable: Trainable, name: str, choice: LowRank) -> Layer:
    try:
        layer = trainable.graph.get_submodule(name)
    except AttributeError as error:
        raise BadInput(f"The model has no layer '{name}' to factorize.") from error
    methods = methods_of(layer)
    limits = methods.get(choice.method)
    if limits is None or len(limits) != len(choice.ranks):
        takes = " or ".join(f"{method} with ranks {ranks}" for method, ranks in methods.items())
        raise BadInput(
            f"Layer '{name}' ({type(layer).__name__}) cannot take {choice.method} with ranks "
            f"{choice.ranks}; it takes {takes or 'no factorization'}."
        )
    for rank, limit in zip(choice.ranks, limits, strict=True):
        if not 1 <= rank <= limit:
            raise BadInput(f"Layer '{name}': rank {rank} is not in 1..{limit}.")
    assert isinstance(layer, Layer)
    return layer


def _replace(graph: torch.fx.GraphModule, name: str, factors: list[tuple[str, Layer]]) -> None:
    for ending, layer in factors:
        graph.add_submodule(f"{name}_{ending}", layer)
    for node in list(graph.graph.nodes):
        if node.op != "call_module" or layer_name(node) != name:
            continue
        value = node.args[0]
        with graph.graph.inserting_before(node):
            for ending, _ in factors:
                value = graph.graph.call_module(f"{name}_{ending}", (value,))
        node.replace_all_uses_with(value)
        graph.graph.erase_node(node)
