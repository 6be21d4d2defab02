"""What each single change does to the outputs, measured: the planner's objective.

Damage is the mean KL divergence from the original's class probabilities to the changed model's
(mean squared error over the original's variance where the output is no classification), on the
calibration samples, with BatchNorm taking its statistics from those very samples: the one forward
pass that measures is also the re-estimation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edgecompress.compress.groups import ChannelGroup
from edgecompress.compress.layers import kind_of
from edgecompress.compress.lowrank import factorize
from edgecompress.compress.prune import prune
from edgecompress.model.trainable import Trainable
from edgecompress.plan.candidates import rounded
from edgecompress.plan.cost import step_macs, weight_count
from edgecompress.plan.network import Network, PlannedStep
from edgecompress.plan.solve import Choices
from edgecompress.progress import Progress
from edgecompress.records import LowRank

_MEASURED_FRACTIONS = (0.75, 0.5, 0.25)
_OFFERED_FRACTIONS = (0.125, 0.1875, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
_RANK_FRACTIONS = (0.75, 0.5, 0.375)
_HEAVY_SHARE = 0.04
_HEAVY_LAYERS = 8
_MOST_SAMPLES = 256
_FEWEST_SAMPLES = 32
_WORK_MACS = 3e11
_BATCH_BYTES = 1 << 26
_SLOPE = 1e-6
"""Damage of the last percent never measures as exactly nothing: wider is better at equal size."""


@dataclass(frozen=True)
class Probe:
    """One change to measure and the model it gives."""

    kind: str
    name: str
    option: int | LowRank
    make: Callable[[], Trainable]


def measure(
    trainable: Trainable,
    network: Network,
    groups: Sequence[ChannelGroup],
    calibration: torch.Tensor,
    progress: Progress,
) -> Choices:
    """Damage curves of every group's width and every heavy layer's ranks.

    Args:
        calibration: [N, ...] float32; fewer of them are used the more work the model is.

    Returns:
        Damages rise as widths fall (a curve measured otherwise is flattened upwards).
    """
    probes = [*_width_probes(trainable, groups), *_rank_probes(trainable, network, calibration)]
    x = calibration[: _sample_count(network, len(probes))]
    reference = outputs(trainable, x)
    progress.stage("Measure sensitivity", len(probes))
    damages: dict[tuple[str, str], dict[int | LowRank, float]] = {}
    for probe in probes:
        changed = outputs(probe.make(), x, batch_statistics=True)
        found = damages.setdefault((probe.kind, probe.name), {})
        found[probe.option] = damage(reference, changed)
        progress.advance()
    floor = damage(reference, outputs(prune(trainable, {}), x, batch_statistics=True))
    return _choices(groups, damages, floor)


def _width_probes(trainable: Trainable, groups: Sequence[ChannelGroup]) -> list[Probe]:
    probes = []
    for group in groups:
        measured = {rounded(group.channels * part, group.channels) for part in _MEASURED_FRACTIONS}
        for width in sorted(measured - {group.channels}):
            change = {group.name: width}
            probes.append(
                Probe("width", group.name, width, lambda change=change: prune(trainable, change))
            )
    return probes


def _rank_probes(trainable: Trainable, network: Network, calibration: torch.Tensor) -> list[Probe]:
    return [
        Probe(
            "rank",
            layer,
            choice,
            lambda layer=layer, choice=choice: factorize(
                trainable, {layer: choice}, calibration[:_FEWEST_SAMPLES]
            ),
        )
        for layer, choices in rank_choices(network).items()
        for choice in choices
    ]


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
    for fraction in _RANK_FRACTIONS:
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


def _sample_count(network: Network, probes: int) -> int:
    macs = sum(step_macs(network, step, {}) for step in network.steps)
    affordable = int(_WORK_MACS / max(1, macs * max(1, probes)))
    return max(_FEWEST_SAMPLES, min(_MOST_SAMPLES, affordable))


def outputs(
    trainable: Trainable, x: torch.Tensor, *, batch_statistics: bool = False
) -> torch.Tensor:
    """Model outputs [N, ...]; classes as log-probabilities.

    Args:
        batch_statistics: BatchNorm normalises by the samples themselves. Changes the running
            statistics of `trainable`: for throw-away models only.
    """
    graph = trainable.graph
    modes = {module: module.training for module in graph.modules()}
    graph.eval()
    for module in graph.modules():
        if batch_statistics and isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.train()
    with torch.inference_mode():
        made = torch.cat([graph(batch) for batch in x.split(_batch_size(x))])
    for module, training in modes.items():
        module.training = training
    if made.dim() != 2 or made.shape[1] < 2:
        return made
    if ends_in_softmax(trainable):
        return made.clamp_min(1e-9).log()
    return made.log_softmax(1)


def ends_in_softmax(trainable: Trainable) -> bool:
    """Whether the graph's output is already probabilities."""
    last = next(node for node in trainable.graph.graph.nodes if node.op == "output")
    return kind_of(last.all_input_nodes[0]) == "softmax"


def damage(reference: torch.Tensor, changed: torch.Tensor) -> float:
    """KL(reference || changed) in nats for classes; relative squared error for anything else."""
    if reference.dim() == 2 and reference.shape[1] > 1:
        divergence = (reference.exp() * (reference - changed)).sum(1)
        return max(0.0, float(divergence.mean()))
    error = (reference - changed).square().mean()
    return float(error / reference.var().clamp_min(1e-12))


def _batch_size(x: torch.Tensor) -> int:
    """As many samples at once as keep a typical widest activation (32 x input) near 64 MiB."""
    widest = 4 * 32 * x[0].numel()
    return max(8, min(len(x), _BATCH_BYTES // widest))


def _choices(
    groups: Sequence[ChannelGroup],
    damages: dict[tuple[str, str], dict[int | LowRank, float]],
    floor: float,
) -> Choices:
    """Curves through the measured points; `floor` is what batch statistics alone cost."""
    widths: dict[str, tuple[int, ...]] = {}
    width_damage: dict[str, tuple[float, ...]] = {}
    for group in groups:
        full = group.channels
        measured = damages.get(("width", group.name), {})
        offered = sorted({rounded(full * part, full) for part in _OFFERED_FRACTIONS})
        points = {int(width): value for width, value in measured.items()}  # type: ignore[arg-type]
        widths[group.name] = tuple(offered)
        width_damage[group.name] = tuple(curve(points, full, floor, offered))
    ranks: dict[str, tuple[LowRank, ...]] = {}
    rank_damage: dict[str, tuple[float, ...]] = {}
    for (kind, name), found in damages.items():
        if kind == "rank":
            ranks[name] = tuple(option for option in found if isinstance(option, LowRank))
            rank_damage[name] = tuple(max(0.0, found[o] - floor) + _SLOPE for o in ranks[name])
    return Choices(widths, width_damage, ranks, rank_damage)


def curve(points: dict[int, float], full: int, floor: float, offered: Sequence[int]) -> list[float]:
    """Monotone damage at each offered width: 0 at `full`, linear between measured points.

    Below the narrowest measured width the last slope continues, doubled: what was not measured
    must not look cheap.
    """
    measured = sorted(points.items(), reverse=True)
    known_widths, known = [full], [0.0]
    for width, value in measured:
        known_widths.append(width)
        known.append(max(known[-1], value - floor))
    slope = 0.0
    if len(known) > 1:
        slope = 2 * (known[-1] - known[-2]) / max(1, known_widths[-2] - known_widths[-1])
    inside = np.interp(offered, known_widths[::-1], known[::-1])
    return [
        float(value + slope * max(0, known_widths[-1] - width) + _SLOPE * (full - width) / full)
        for width, value in zip(offered, inside, strict=True)
    ]
