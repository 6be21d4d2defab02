"""Unstructured magnitude pruning: the smallest weights become zero and stay zero.

Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015, section 3:
weights below a threshold leave, the rest is trained on. The threshold is each layer's own, or one
for the whole network. Zhu and Gupta, "To prune, or not to prune", 2017, section 3 (equation 1):
sparsity grows during training by a cubic that prunes fast while there is redundancy and slowly
towards the end.

The shapes stay as they are. What is won is flash: above 12.5 % of zeros the image stores a layer
as a bitmap and its nonzero bytes.

    masks(...)   which weights stay       -> {"conv1": bool [O, I, kh, kw], ...}
    hold(...)    zero the others again    after every optimizer step
    Gradual      both, on a schedule      the same hook, with masks that grow
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from edgecompress.compress.layers import is_depthwise, kind_of, layer_name, module_of
from edgecompress.errors import BadInput
from edgecompress.model.trainable import Trainable

Masks = dict[str, torch.Tensor]
"""Layer -> bool tensor of its weight's shape, True where the weight stays."""


def sparse_layers(graph: torch.fx.GraphModule) -> list[str]:
    """Layers whose weights are worth making sparse, in execution order: dense layers and all
    convolutions but depthwise ones, which hold few weights and need them (Zhu and Gupta, 4.1)."""
    weighted = (node for node in graph.graph.nodes if kind_of(node) in ("conv", "linear"))
    return [
        *dict.fromkeys(layer_name(node) for node in weighted if not is_depthwise(module_of(node)))
    ]


def masks(trainable: Trainable, sparsity: Mapping[str, float]) -> Masks:
    """The largest magnitudes of each named layer; at least `sparsity[layer]` of it is masked.

    Ties mask the lower index first.

    Raises:
        BadInput: no such layer, or a sparsity outside 0 <= s < 1.
    """
    return _masks(trainable.graph, sparsity)


def apply_masks(trainable: Trainable, kept: Masks) -> Trainable:
    """A copy with zeros where `kept` is False."""
    graph = copy.deepcopy(trainable.graph)
    hold(graph, kept)
    return replace(trainable, graph=graph)


def sparsify(trainable: Trainable, sparsity: Mapping[str, float]) -> Trainable:
    """`apply_masks` of `masks`, with their errors."""
    return apply_masks(trainable, masks(trainable, sparsity))


def hold(graph: torch.fx.GraphModule, kept: Masks) -> None:
    """Zeroes what the masks exclude, in place: called after each optimizer step."""
    with torch.no_grad():
        for name, mask in kept.items():
            _weight_of(graph, name).mul_(mask)


def zero_masks(trainable: Trainable) -> Masks:
    """Masks that keep today's zeros: for every layer of `sparse_layers` that has any."""
    weights = {name: _weight_of(trainable.graph, name) for name in sparse_layers(trainable.graph)}
    return {name: weight != 0 for name, weight in weights.items() if bool((weight == 0).any())}


def layer_sparsity(trainable: Trainable, fraction: float) -> dict[str, float]:
    """The same sparsity for every layer of `sparse_layers`.

    Raises:
        BadInput: `fraction` outside 0 <= s < 1, or no layer to make sparse.
    """
    _check(fraction, "The model")
    return dict.fromkeys(_required_layers(trainable), fraction)


def global_sparsity(trainable: Trainable, fraction: float) -> dict[str, float]:
    """Layer -> its share of the weights below one threshold over all layers of `sparse_layers`.

    No layer is emptied: each keeps at least its largest weight.

    Raises:
        BadInput: as `layer_sparsity`.
    """
    _check(fraction, "The model")
    names = _required_layers(trainable)
    magnitudes = {name: _weight_of(trainable.graph, name).detach().abs() for name in names}
    every = torch.cat([magnitude.flatten() for magnitude in magnitudes.values()])
    count = math.ceil(fraction * every.numel())
    smallest = every.argsort(stable=True)[:count]
    masked = torch.zeros(every.numel(), dtype=torch.bool)
    masked[smallest] = True
    parts = masked.split([magnitude.numel() for magnitude in magnitudes.values()])
    return {
        name: min(int(part.sum()), part.numel() - 1) / part.numel()
        for name, part in zip(names, parts, strict=True)
    }


def cubic_sparsity(step: int, *, begin: int, end: int, final: float, initial: float = 0.0) -> float:
    """s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (t_n - t_0))^3 (Zhu and Gupta, equation 1).

    `initial` before `begin`, `final` from `end` on.
    """
    if end <= begin:
        return initial if step < begin else final
    progress = min(max((step - begin) / (end - begin), 0.0), 1.0)
    return final + (initial - final) * (1.0 - progress) ** 3


@dataclass
class Gradual:
    """Called after every optimizer step: prunes a little more now and then, holds what is pruned.

    Attributes:
        final: layer -> sparsity from step `end` on.
        begin, end: first and last step at which masks change.
        every: steps between two changes.
        initial: sparsity at `begin`.
        kept: the masks now; a masked weight stays masked, because zero is the least magnitude.
    """

    final: Mapping[str, float]
    begin: int
    end: int
    every: int = 10
    initial: float = 0.0
    kept: Masks = field(default_factory=dict)

    def __call__(self, graph: torch.fx.GraphModule, step: int) -> None:
        """After optimizer step number `step`, counted from 1."""
        due = self.begin <= step <= self.end and (step - self.begin) % self.every == 0
        if due or step == self.end:
            now = {
                name: cubic_sparsity(
                    step, begin=self.begin, end=self.end, final=final, initial=self.initial
                )
                for name, final in self.final.items()
            }
            self.kept = _masks(graph, now)
        hold(graph, self.kept)


def _masks(graph: torch.fx.GraphModule, sparsity: Mapping[str, float]) -> Masks:
    made: Masks = {}
    for name, fraction in sparsity.items():
        _check(fraction, f"Layer '{name}'")
        weight = _weight_of(graph, name)
        order = weight.detach().abs().flatten().argsort(stable=True)
        mask = torch.ones(weight.numel(), dtype=torch.bool)
        # The subtraction keeps a fraction counted from a layer's own weights from rounding up.
        mask[order[: math.ceil(fraction * weight.numel() - 1e-9)]] = False
        made[name] = mask.reshape(weight.shape)
    return made


def _weight_of(graph: torch.fx.GraphModule, name: str) -> torch.Tensor:
    try:
        layer = graph.get_submodule(name)
    except AttributeError:
        layer = None
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        raise BadInput(
            f"The model has no convolution or dense layer '{name}' to make sparse.",
            next_step=f"Its layers are {', '.join(sparse_layers(graph))}.",
        )
    return layer.weight


def _required_layers(trainable: Trainable) -> list[str]:
    names = sparse_layers(trainable.graph)
    if not names:
        raise BadInput("The model has no convolution or dense layer to make sparse.")
    return names


def _check(fraction: float, where: str) -> None:
    if not 0 <= fraction < 1:
        raise BadInput(
            f"{where} cannot have a sparsity of {fraction:g}.",
            next_step="Give the share of zeros, from 0 to below 1, such as 0.5.",
        )
