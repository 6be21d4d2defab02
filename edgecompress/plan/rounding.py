"""What a storage does to a layer's weights, the rest left float: for measuring it alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from edgecompress.compress.quantize.storage import storage_of_layers
from edgecompress.compress.quantize.weights import make_grid
from edgecompress.model.trainable import Trainable
from edgecompress.records import WeightStorage


def rounded_weights(weight: torch.Tensor, storage: WeightStorage) -> torch.Tensor:
    """The nearest weights a storage can express, [O, ...] float32, as the deployable will hold.

    A BatchNorm behind the layer only scales whole channels, so folding it first would change
    nothing: every channel has its own scale.
    """
    values = weight.detach().float().numpy()
    if storage.format == "sparse":
        masked = int(values.size * storage.sparsity)
        if masked:
            threshold = np.partition(np.abs(values).ravel(), masked - 1)[masked - 1]
            values = np.where(np.abs(values) <= threshold, np.float32(0), values)
    grid = make_grid(values, np.zeros(len(values), np.float32), np.float32(1), storage)
    return torch.from_numpy(grid.real(grid.round(values)))


def round_weights(trainable: Trainable, weights: Mapping[str, WeightStorage]) -> Trainable:
    """A copy with every layer a plan stores small rounded to it, factors of a layer included."""
    graph = copy.deepcopy(trainable.graph)
    for layer, storage in storage_of_layers(graph, weights).items():
        weight = graph.get_submodule(layer).weight
        assert isinstance(weight, torch.Tensor)
        with torch.no_grad():
            weight.copy_(rounded_weights(weight, storage))
    return replace(trainable, graph=graph)
