"""The low-rank candidates: one share of every layer's output energy, as much as the budget holds.

The program of `solve` knows two factorizations and weighs them layer by layer by measured damage.
These know all that `compress.lowrank` can choose between, and one number decides it: the
energy that every layer keeps (Zhang et al., 2015, section 3.4). Weight bytes say where on the
ladder of energies to look, the compiler whether what stands there fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from edgecompress.compress.lowrank import factored_weights, ranks_at_energies
from edgecompress.model.trainable import Trainable
from edgecompress.plan.candidates import (
    LOW_RANK,
    LOW_RANK_INT4,
    Candidate,
    Problem,
    bytes_worth_saving,
    int4_layers,
)
from edgecompress.plan.storage import stored_bytes
from edgecompress.records import LowRank, Prediction, WeightStorage

_LEAST_LOSS, _MOST_LOSS, _RUNGS = 0.0005, 0.12, 96
"""Energy lost at either end: above that, recovery takes longer than candidates are given."""
_PREVIEWS = 6
_CHANNEL_BYTES = 8
"""Bias and multiplier of each channel between two factors."""
_LEAST_SAVED_BYTES = 512
"""Below this a layer saves less than another step costs in code, stack and accuracy."""

__all__ = ["LOW_RANK", "low_rank_candidates"]

Exact = Callable[[Candidate], Prediction]


@dataclass(frozen=True)
class _Rung:
    """One energy: its factorizations and the bytes of all factorizable layers under them."""

    low_rank: dict[str, LowRank]
    bytes: int


def low_rank_candidates(
    trainable: Trainable,
    calibration: torch.Tensor,
    problem: Problem,
    whole: Prediction,
    storages: Sequence[WeightStorage],
    exact: Exact,
) -> Iterator[Candidate]:
    """The candidate that keeps most energy and fits as compiled: in int8, then with int4.

    Made when asked for; none where no layer can be factorized at a gain or nothing on the ladder
    fits. Where int8 fits, only as many of the largest layers get four bits as save the share of
    `candidates.bytes_worth_saving`, and there is no such candidate if the image does not shrink.

    Args:
        calibration: [N, ...] float32 inputs.
        whole: the account of the model as it is.
        storages: what makes weights smaller on this device; only int4 is considered.
        exact: the compiler's account of a candidate.
    """
    ratio = (_MOST_LOSS / _LEAST_LOSS) ** (1 / (_RUNGS - 1))
    energies = [1 - _LEAST_LOSS * ratio**rung for rung in range(_RUNGS)]
    ladder = ranks_at_energies(trainable, energies, calibration)
    layers = {
        name: layer
        for name in ladder[-1]
        if isinstance(layer := trainable.graph.get_submodule(name), nn.Conv2d | nn.Linear)
    }
    gaining = [_gaining(layers, chosen) for chosen in ladder]
    if not any(gaining):
        return
    around = whole.flash_bytes - _bytes(layers, {}, {})
    rungs = [_Rung(chosen, _bytes(layers, chosen, {})) for chosen in gaining]
    int8, slow = _highest(rungs, {}, problem, whole, around, exact)
    if int8 is not None:
        yield int8
    if not any(storage.format == "int4" for storage in storages):
        return
    weights = int4_layers(problem.network)
    if int8 is not None:
        weights = _largest(layers, weights, int8)
    rungs = [_Rung(chosen, _bytes(layers, chosen, weights)) for chosen in gaining]
    int4, _ = _highest(rungs, weights, problem, whole, around, exact, slow)
    if int4 is None:
        return
    if int8 is None or int4.predicted.flash_bytes < int8.predicted.flash_bytes:
        yield replace(int4, name=LOW_RANK_INT4)


def _largest(
    layers: Mapping[str, nn.Module], weights: Mapping[str, WeightStorage], found: Candidate
) -> dict[str, WeightStorage]:
    """Those of `weights` that save most, until enough is saved of what was found without them."""
    chosen = found.low_rank
    before = _bytes(layers, chosen, {})
    saved = {
        name: before - _bytes(layers, chosen, {name: storage}) for name, storage in weights.items()
    }
    left, kept = bytes_worth_saving(found.predicted), {}
    for name in sorted(saved, key=lambda name: -saved[name]):
        if left <= 0:
            break
        kept[name] = weights[name]
        left -= saved[name]
    return kept


def _gaining(layers: Mapping[str, nn.Module], chosen: Mapping[str, LowRank]) -> dict[str, LowRank]:
    """The factorizations that save enough to be worth one more layer."""
    kept: dict[str, LowRank] = {}
    for name, choice in chosen.items():
        layer = layers[name]
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        saved = layer.weight.numel() - factored_weights(layer, choice)
        if saved - _CHANNEL_BYTES * sum(choice.ranks) >= _LEAST_SAVED_BYTES:
            kept[name] = choice
    return kept


def _bytes(
    layers: Mapping[str, nn.Module],
    chosen: Mapping[str, LowRank],
    weights: Mapping[str, WeightStorage],
) -> int:
    """Constants of the layers, their last factor's channels left out: no choice changes those."""
    total = 0
    for name, layer in layers.items():
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        choice = chosen.get(name)
        count = layer.weight.numel() if choice is None else factored_weights(layer, choice)
        inner = 0 if choice is None else sum(choice.ranks)
        total += stored_bytes(weights.get(name), count) + _CHANNEL_BYTES * inner
    return total


def _highest(
    rungs: Sequence[_Rung],
    weights: dict[str, WeightStorage],
    problem: Problem,
    whole: Prediction,
    around: float,
    exact: Exact,
    slow: int = -1,
) -> tuple[Candidate | None, int]:
    """The first rung that fits, or one close behind it; and the last that only time or RAM forbids.

    Args:
        around: flash bytes of everything but the layers; corrected by each answer of the compiler.
        slow: a rung known not to fit for another reason than flash, as none before it.
    """
    caps = [problem.budget.flash_bytes, problem.profile.flash_bytes]
    flash = min((cap for cap in caps if cap is not None), default=math.inf)
    too_high, fitting, best, enough = slow, len(rungs), None, True
    for _ in range(_PREVIEWS):
        between = range(too_high + 1, fitting)
        at = next((rung for rung in between if rungs[rung].bytes + around <= flash), None)
        if at is None:
            break
        if not enough:
            # RAM or time: bytes say nothing, so first whether the thinnest factors help at all.
            at = fitting - 1 if best is None else max(at, (too_high + fitting) // 2)
        candidate = Candidate(LOW_RANK, {}, rungs[at].low_rank, whole, weights)
        candidate = replace(candidate, predicted=exact(candidate))
        needed = candidate.predicted.flash_bytes
        around = needed - rungs[at].bytes
        if problem.fits_exactly(candidate.predicted):
            best, fitting = candidate, at
        else:
            too_high, enough = at, needed > flash
            slow = slow if enough else at
    return best, slow
