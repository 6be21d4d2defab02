"""Which layer of a graph a plan's weight storage means."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from edgecompress.compress.layers import kind_of, layer_name
from edgecompress.compress.lowrank import FACTOR_ENDINGS
from edgecompress.errors import BadInput
from edgecompress.records import WeightStorage


def storage_of_layers(
    graph: torch.fx.GraphModule, weights: Mapping[str, WeightStorage]
) -> dict[str, WeightStorage]:
    """Storage of every convolution and dense layer that `weights` names, by its own path.

    A name that is no layer here means the factors `<name>_first`, ..., `<name>_last` that
    factorization made of it.

    Raises:
        BadInput: a name that is neither.
    """
    layers = [
        layer_name(node)
        for node in graph.graph.nodes
        if node.op == "call_module" and kind_of(node) in ("conv", "linear")
    ]
    found: dict[str, WeightStorage] = {}
    for name, storage in weights.items():
        factors = [f"{name}_{ending}" for ending in FACTOR_ENDINGS]
        meant = [name] if name in layers else [one for one in factors if one in layers]
        if not meant:
            raise BadInput(
                f"The model has no layer '{name}' whose weights could be {storage.format}.",
                next_step=f"Its layers are {', '.join(dict.fromkeys(layers))}.",
            )
        # A more exact name wins over the layer it is a factor of.
        found |= {one: storage for one in meant if one not in weights or one == name}
    return found
