"""Single changes to a model, made and undone cheaply, so that each can be measured.

A narrower group is not pruned for that: taking the inputs that would be gone out of the layers
that read them computes exactly the same, and needs no new graph.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np
import torch

from edgecompress.compress.criteria import channel_scores
from edgecompress.compress.groups import ChannelGroup, group_labels, makes_channels, map_channels
from edgecompress.compress.layers import input_nodes, layer_name
from edgecompress.compress.lowrank import factorize
from edgecompress.model.recurrent import Recurrent
from edgecompress.model.trainable import Trainable
from edgecompress.plan.candidates import FEWEST_INT4_WEIGHTS, rounded
from edgecompress.plan.cost import weight_count
from edgecompress.plan.network import Network, PlannedStep
from edgecompress.plan.rounding import rounded_weights
from edgecompress.records import LowRank, WeightStorage

_MEASURED_FRACTIONS = (0.5, 0.25)
_MANY_GROUPS = 12
_DENSE_RANKS = (0.5, 0.25, 0.125)
_TUCKER_RANKS = (0.75, 0.5, 0.375)
"""Shares of the full ranks; of a convolution's, both shrink."""
_HEAVY_SHARE = 0.04
_HEAVY_LAYERS = 8
_STORED_SHARE = 0.01
_STORED_LAYERS = 20
"""Layers that hold at least a hundredth of the weights, the heaviest first."""
_FACTOR_SAMPLES = 32

Option = int | LowRank | WeightStorage


@dataclass(frozen=True)
class Probe:
    """One change to measure; within `changed()` there is the model it gives."""

    kind: str
    name: str
    option: Option
    changed: Callable[[], AbstractContextManager[Trainable]]


def all_probes(
    trainable: Trainable,
    network: Network,
    groups: Sequence[ChannelGroup],
    calibration: torch.Tensor,
    formats: Sequence[WeightStorage],
) -> list[Probe]:
    """Every group at a few widths, every heavy layer at a few ranks and in every storage."""
    work = replace(trainable, graph=copy.deepcopy(trainable.graph))
    return [
        *_width_probes(work, groups),
        *_rank_probes(trainable, network, calibration),
        *_format_probes(work, network, formats),
    ]


@contextlib.contextmanager
def _with_weights(work: Trainable, changed: Mapping[str, torch.Tensor]) -> Iterator[Trainable]:
    """`work` itself with other values in some parameters, by name, put back on leaving."""
    weights = {name: work.graph.get_parameter(name) for name in changed}
    kept = {name: weight.data for name, weight in weights.items()}
    for name, weight in weights.items():
        weight.data = changed[name]
    try:
        yield work
    finally:
        for name, weight in weights.items():
            weight.data = kept[name]


def _reading(work: Trainable, layer: str) -> str:
    """The name of the weight [O, I, ...] that meets a layer's inputs."""
    recurrent = isinstance(work.graph.get_submodule(layer), Recurrent)
    return f"{layer}.layer.weight_ih_l0" if recurrent else f"{layer}.weight"


def _readers(work: Trainable, group: ChannelGroup) -> list[tuple[str, str, bool]]:
    """(layer, its weight's name, whether it reads the layer's own output) of all that read a group:
    the layers behind it, and the states of recurrent layers in it."""
    found = [(layer, _reading(work, layer), False) for layer in group.consumers]
    for layer in group.producers:
        if isinstance(work.graph.get_submodule(layer), Recurrent):
            found.append((layer, f"{layer}.layer.weight_hh_l0", True))
    return found


def _width_probes(work: Trainable, groups: Sequence[ChannelGroup]) -> list[Probe]:
    channels = map_channels(work)
    labels = group_labels(work, channels)
    scores = channel_scores(work, channels, "l2", None, None)
    inputs = {
        layer_name(node): channels.of(input_nodes(node)[0])
        for node in work.graph.graph.nodes
        if makes_channels(node)
    }
    made = {
        layer_name(node): channels.of(node)
        for node in work.graph.graph.nodes
        if makes_channels(node)
    }
    fractions = _MEASURED_FRACTIONS[: 1 if len(groups) > _MANY_GROUPS else None]
    probes = []
    for group in groups:
        ranked = sorted(labels[group.name], key=lambda label: (-scores[label], label))
        widths = {rounded(group.channels * part, group.channels) for part in fractions}
        for width in sorted(widths - {group.channels}):
            gone = np.array(ranked[width:])

            def narrowed(
                group: ChannelGroup = group, gone: np.ndarray = gone
            ) -> AbstractContextManager[Trainable]:
                changed = {}
                for layer, name, own in _readers(work, group):
                    weight = work.graph.get_parameter(name).data.clone()
                    labels = made[layer] if own else inputs[layer]
                    weight[:, torch.from_numpy(np.isin(labels, gone))] = 0.0
                    changed[name] = weight
                return _with_weights(work, changed)

            probes.append(Probe("width", group.name, width, narrowed))
    return probes


def _rank_probes(trainable: Trainable, network: Network, calibration: torch.Tensor) -> list[Probe]:
    few = calibration[:_FACTOR_SAMPLES]

    def factorized(layer: str, choice: LowRank) -> AbstractContextManager[Trainable]:
        return contextlib.nullcontext(factorize(trainable, {layer: choice}, few))

    return [
        Probe("rank", layer, choice, lambda layer=layer, choice=choice: factorized(layer, choice))
        for layer, choices in rank_choices(network).items()
        for choice in choices
    ]


def _format_probes(
    work: Trainable, network: Network, formats: Sequence[WeightStorage]
) -> list[Probe]:
    def stored(layer: str, storage: WeightStorage) -> AbstractContextManager[Trainable]:
        name = f"{layer}.weight"
        rounded_off = rounded_weights(work.graph.get_parameter(name), storage)
        return _with_weights(work, {name: rounded_off})

    return [
        Probe("format", layer, storage, lambda layer=layer, storage=storage: stored(layer, storage))
        for layer in (stored_layers(network) if formats else ())
        for storage in formats
    ]


def stored_layers(network: Network) -> list[str]:
    """Layers whose storage is worth choosing: those with many weights, but the first and last."""
    linear = [step for step in network.steps if step.layer]
    total = sum(weight_count(network, step, {}) for step in linear)
    heavy = [
        step
        for step in linear[1:-1]
        if step.op != "depthwise_conv2d"
        and weight_count(network, step, {}) >= max(_STORED_SHARE * total, FEWEST_INT4_WEIGHTS)
        and len(network.tensors[step.inputs[0]].parts) == 1
        and sum(other.layer == step.layer for other in linear) == 1
    ]
    heavy.sort(key=lambda step: -weight_count(network, step, {}))
    return [step.layer for step in heavy[:_STORED_LAYERS]]


def rank_choices(network: Network) -> dict[str, tuple[LowRank, ...]]:
    """Factorizations worth measuring: the heaviest layers, at ranks that save bytes.

    A layer fed by several groups, or by the group it makes, is left as it is: the solver's
    products are written for one input and one output choice.
    """
    linear = [step for step in network.steps if step.layer]
    total = sum(weight_count(network, step, {}) for step in linear)
    heavy = [
        step
        for step in sorted(linear, key=lambda step: -weight_count(network, step, {}))
        if weight_count(network, step, {}) >= _HEAVY_SHARE * total and _can_factorize(network, step)
    ]
    offered = {step.layer: _ranks(network, step) for step in heavy[:_HEAVY_LAYERS]}
    return {layer: choices for layer, choices in offered.items() if choices}


def _can_factorize(network: Network, step: PlannedStep) -> bool:
    sources, target = network.tensors[step.inputs[0]].parts, network.tensors[step.output].parts[0]
    if len(sources) != 1 or step.channel_groups != 1:
        return False
    shared = sources[0].group is not None and sources[0].group == target.group
    called_once = sum(other.layer == step.layer for other in network.steps) == 1
    return not shared and called_once and (step.op == "dense" or step.taps > 1)


def _ranks(network: Network, step: PlannedStep) -> tuple[LowRank, ...]:
    channels_in = network.tensors[step.inputs[0]].channels({})
    channels_out = network.tensors[step.output].channels({})
    whole = weight_count(network, step, {})
    choices: list[LowRank] = []
    for fraction in _DENSE_RANKS if step.op == "dense" else _TUCKER_RANKS:
        if step.op == "dense":
            rank = rounded(
                min(channels_in, channels_out) * fraction, min(channels_in, channels_out)
            )
            choice, size = LowRank(method="svd", ranks=(rank,)), rank * (channels_in + channels_out)
        else:
            inner = rounded(channels_in * fraction, channels_in)
            outer = rounded(channels_out * fraction, channels_out)
            choice = LowRank(method="tucker2", ranks=(inner, outer))
            size = channels_in * inner + step.taps * inner * outer + outer * channels_out
        if size < 0.9 * whole and choice not in choices:
            choices.append(choice)
    return tuple(choices)
