"""What each single change does to the outputs, measured: the planner's objective.

Damage is the mean KL divergence from the original's class probabilities to the changed model's
(mean squared error over the original's variance where the output is no classification), on the
calibration samples, with BatchNorm of both taking its statistics from those very samples: the one
forward pass that measures is also the re-estimation.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from edgecompress.compress.groups import ChannelGroup
from edgecompress.compress.layers import ends_in_softmax
from edgecompress.model.trainable import Trainable
from edgecompress.plan.candidates import rounded
from edgecompress.plan.choices import Choices
from edgecompress.plan.cost import step_macs
from edgecompress.plan.network import Network
from edgecompress.plan.probes import Option, all_probes
from edgecompress.progress import Progress
from edgecompress.records import WeightStorage

_LEAST_WEIGHT = 0.05
"""Of the mean: a group whose narrowing cannot be told from noise is not free of damage."""
_OFFERED_FRACTIONS = (0.125, 0.1875, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)
_MOST_SAMPLES = 256
_FEWEST_SAMPLES = 16
_WORK = 5e10
_WORK_AN_ELEMENT = 60
"""In MACs: what moving one activation costs beside computing it."""
_BATCH_BYTES = 1 << 26
_SLOPE = 1e-6
"""Damage of the last percent never measures as exactly nothing: wider is better at equal size."""


def measure(
    trainable: Trainable,
    network: Network,
    groups: Sequence[ChannelGroup],
    calibration: torch.Tensor,
    progress: Progress,
    formats: Sequence[WeightStorage] = (),
) -> Choices:
    """Damage curves of every group's width, and of every heavy layer's ranks and storages.

    Args:
        calibration: [N, ...] float32; fewer of them are used the more work the model is.
        formats: the storages the image can hold.

    Returns:
        Damages rise as widths fall, as 1 / fraction kept does.
    """
    probes = all_probes(trainable, network, groups, calibration, formats)
    x = calibration[: _sample_count(network, len(probes))]
    copied = replace(trainable, graph=copy.deepcopy(trainable.graph))
    reference = outputs(copied, x, batch_statistics=True)
    progress.stage("Measure sensitivity", len(probes))
    damages: dict[tuple[str, str], dict[Option, float]] = {}
    for probe in probes:
        with probe.changed() as model:
            made = outputs(model, x, batch_statistics=True)
        damages.setdefault((probe.kind, probe.name), {})[probe.option] = damage(reference, made)
        progress.advance()
    return _choices(groups, damages).model_copy(update={"storages": tuple(formats)})


def _sample_count(network: Network, probes: int) -> int:
    macs = sum(step_macs(network, step, {}) for step in network.steps)
    elements = sum(network.tensors[step.output].size_bytes({}) for step in network.steps)
    work = macs + _WORK_AN_ELEMENT * elements
    affordable = int(_WORK / max(1, work * max(1, probes)))
    return max(_FEWEST_SAMPLES, min(_MOST_SAMPLES, affordable))


def outputs(
    trainable: Trainable,
    x: torch.Tensor,
    *,
    batch_statistics: bool = False,
    raw: bool = False,
) -> torch.Tensor:
    """Model outputs [N, ...]; classes as log-probabilities.

    Args:
        raw: as the model gives them.
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
    return made if raw else as_classes(made, probabilities=ends_in_softmax(trainable.graph))


def as_classes(made: torch.Tensor, *, probabilities: bool) -> torch.Tensor:
    """Class scores as log-probabilities; any other output as it is."""
    if made.dim() != 2 or made.shape[1] < 2:
        return made
    return made.clamp_min(1e-9).log() if probabilities else made.log_softmax(1)


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
    damages: dict[tuple[str, str], dict[Option, float]],
) -> Choices:
    slopes = {
        group.name: width_slope(damages.get(("width", group.name), {}), group.channels)
        for group in groups
    }
    least = _LEAST_WEIGHT * float(np.mean(list(slopes.values()))) if slopes else 0.0
    widths: dict[str, tuple[int, ...]] = {}
    width_damage: dict[str, tuple[float, ...]] = {}
    for group in groups:
        offered = sorted({rounded(group.channels * f, group.channels) for f in _OFFERED_FRACTIONS})
        slope = max(slopes[group.name], least) + _SLOPE
        widths[group.name] = tuple(offered)
        width_damage[group.name] = tuple(curve(slope, group.channels, offered))
    kept: dict[str, dict[str, tuple]] = {"rank": {}, "format": {}}
    for (kind, name), found in damages.items():
        if kind != "width":
            kept[kind][name] = tuple((option, value + _SLOPE) for option, value in found.items())
    options = {
        kind: {name: tuple(option for option, _ in pairs) for name, pairs in kept[kind].items()}
        for kind in kept
    }
    damage_of = {
        kind: {name: tuple(value for _, value in pairs) for name, pairs in kept[kind].items()}
        for kind in kept
    }
    return Choices(
        widths=widths,
        width_damage=width_damage,
        ranks=options["rank"],
        rank_damage=damage_of["rank"],
        formats=options["format"],
        format_damage=damage_of["format"],
    )


def unmeasured(groups: Sequence[ChannelGroup], formats: Sequence[WeightStorage] = ()) -> Choices:
    """The widths there are, every group's damage 1 / fraction kept: for uniform plans."""
    offered = {
        group.name: tuple(
            sorted({rounded(group.channels * part, group.channels) for part in _OFFERED_FRACTIONS})
        )
        for group in groups
    }
    damages = {
        group.name: tuple(curve(1.0, group.channels, offered[group.name])) for group in groups
    }
    return Choices(widths=offered, width_damage=damages, storages=tuple(formats))


def width_slope(points: Mapping[Option, float], full: int) -> float:
    """The weight w of w (1 / fraction kept - 1), least squares through the measured points."""
    steps = [full / width - 1.0 for width in points if isinstance(width, int)]
    squares = sum(step * step for step in steps)
    found = sum(step * value for step, value in zip(steps, points.values(), strict=True))
    return found / squares if squares else 0.0


def curve(slope: float, full: int, offered: Sequence[int]) -> list[float]:
    """Damage at each offered width: 0 at `full`, growing as 1 / fraction kept.

    The shape is the one that ranked plans after training; the measured KL is its weight.
    """
    return [slope * (full / width - 1.0) for width in offered]
