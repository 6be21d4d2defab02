"""The low-rank candidates: one share of every layer's output energy, as much as the budget holds.

The program of `solve` knows two factorizations and weighs them layer by layer by measured damage.
These know all that `compress.lowrank` can choose between, and one number decides it: the
energy that every layer keeps (Zhang et al., 2015, section 3.4). Weight bytes and MACs say where on
the ladder of energies to look, the compiler whether what stands there fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from edgecompress.compress.lowrank import (
    Layer,
    Moments,
    factored_macs,
    factored_weights,
    ranks_at_energies,
)
from edgecompress.model.trainable import Trainable
from edgecompress.plan.candidates import (
    LOW_RANK,
    LOW_RANK_INT4,
    Candidate,
    Problem,
    bytes_worth_saving,
    int4_layers,
)
from edgecompress.plan.code_size import code_table
from edgecompress.plan.latency import DECODING
from edgecompress.plan.network import Network
from edgecompress.plan.storage import decoding_instructions, stored_bytes
from edgecompress.records import LowRank, Prediction, WeightStorage

_LEAST_LOSS, _MOST_LOSS, _RUNGS = 0.0005, 0.25, 96
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
    """One energy: its factorizations, and what all factorizable layers take under them.

    Attributes:
        macs: multiply-accumulates, and what decoding takes in units of them; an estimate.
    """

    low_rank: dict[str, LowRank]
    bytes: int
    macs: float


@dataclass(frozen=True)
class _Layers:
    """The layers that can be factorized.

    Attributes:
        positions: of the maps that each reads and makes.
        macs_per_decoding: MACs that take as long as an instruction of decoding by the table.
    """

    modules: dict[str, Layer]
    positions: dict[str, tuple[int, int]]
    macs_per_decoding: float

    @classmethod
    def of(cls, trainable: Trainable, names: Iterable[str], problem: Problem) -> _Layers:
        modules = {}
        for name in names:
            layer = trainable.graph.get_submodule(name)
            assert isinstance(layer, Layer)
            modules[name] = layer
        factor = problem.corrections.get(DECODING, 1.0)
        per_mac = code_table(problem.profile).instructions_per_mac
        return cls(modules, _positions(problem.network), factor / per_mac)

    def rung(self, chosen: Mapping[str, LowRank], weights: Mapping[str, WeightStorage]) -> _Rung:
        return _Rung(dict(chosen), self.bytes(chosen, weights), self._macs(chosen, weights))

    def bytes(self, chosen: Mapping[str, LowRank], weights: Mapping[str, WeightStorage]) -> int:
        """Constants of the layers, their last factor's channels left out: no choice changes
        those."""
        total = 0
        for name, layer in self.modules.items():
            inner = sum(chosen[name].ranks) if name in chosen else 0
            stored = stored_bytes(weights.get(name), _weights(layer, chosen.get(name)))
            total += stored + _CHANNEL_BYTES * inner
        return total

    def _macs(self, chosen: Mapping[str, LowRank], weights: Mapping[str, WeightStorage]) -> float:
        total = 0.0
        for name, layer in self.modules.items():
            choice, (inputs, outputs) = chosen.get(name), self.positions[name]
            count = _weights(layer, choice)
            if choice is None:
                total += count * outputs
            else:
                total += factored_macs(layer, choice, inputs, outputs)
            decoding = decoding_instructions(weights.get(name), count, outputs)
            total += decoding * self.macs_per_decoding
        return total


def _positions(network: Network) -> dict[str, tuple[int, int]]:
    tensors = network.tensors
    return {
        step.layer: (tensors[step.inputs[0]].positions, tensors[step.output].positions)
        for step in network.steps
        if step.layer
    }


def _weights(layer: Layer, choice: LowRank | None) -> int:
    return layer.weight.numel() if choice is None else factored_weights(layer, choice)


def low_rank_candidates(
    trainable: Trainable,
    moments: Mapping[str, Moments],
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
        moments: `observe_all`'s of this model.
        whole: the account of the model as it is.
        storages: what makes weights smaller on this device; only int4 is considered.
        exact: the compiler's account of a candidate.
    """
    ratio = (_MOST_LOSS / _LEAST_LOSS) ** (1 / (_RUNGS - 1))
    energies = [1 - _LEAST_LOSS * ratio**rung for rung in range(_RUNGS)]
    ladder = ranks_at_energies(trainable, energies, moments)
    layers = _Layers.of(trainable, ladder[-1], problem)
    gaining = [_gaining(layers, chosen) for chosen in ladder]
    if not any(gaining):
        return
    unchanged = layers.rung({}, {})
    known = _Known(whole.flash_bytes - unchanged.bytes, whole.macs - unchanged.macs)
    rungs = [layers.rung(chosen, {}) for chosen in gaining]
    int8, known = _highest(rungs, {}, problem, whole, known, exact)
    if int8 is not None:
        yield int8
    if not any(storage.format == "int4" for storage in storages):
        return
    weights = int4_layers(problem.network)
    if int8 is not None:
        weights = _largest(layers, weights, int8)
    rungs = [layers.rung(chosen, weights) for chosen in gaining]
    int4, _ = _highest(rungs, weights, problem, whole, known, exact)
    if int4 is None:
        return
    if int8 is None or int4.predicted.flash_bytes < int8.predicted.flash_bytes:
        yield replace(int4, name=LOW_RANK_INT4)


def _largest(
    layers: _Layers, weights: Mapping[str, WeightStorage], found: Candidate
) -> dict[str, WeightStorage]:
    """Those of `weights` that save most, until enough is saved of what was found without them."""
    chosen = found.low_rank
    before = layers.bytes(chosen, {})
    saved = {
        name: before - layers.bytes(chosen, {name: storage}) for name, storage in weights.items()
    }
    left, kept = bytes_worth_saving(found.predicted), {}
    for name in sorted(saved, key=lambda name: -saved[name]):
        if left <= 0:
            break
        kept[name] = weights[name]
        left -= saved[name]
    return kept


def _gaining(layers: _Layers, chosen: Mapping[str, LowRank]) -> dict[str, LowRank]:
    """The factorizations that save enough to be worth one more layer."""
    kept: dict[str, LowRank] = {}
    for name, choice in chosen.items():
        layer = layers.modules[name]
        saved = layer.weight.numel() - factored_weights(layer, choice)
        if saved - _CHANNEL_BYTES * sum(choice.ranks) >= _LEAST_SAVED_BYTES:
            kept[name] = choice
    return kept


@dataclass(frozen=True)
class _Known:
    """What everything but the layers takes, by the table or the compiler's last answer; and the
    last rung that lacks nothing but RAM, as all before it do."""

    bytes: float
    macs: float
    full: int = -1


def _highest(
    rungs: Sequence[_Rung],
    weights: dict[str, WeightStorage],
    problem: Problem,
    whole: Prediction,
    known: _Known,
    exact: Exact,
) -> tuple[Candidate | None, _Known]:
    """The first rung that fits, or one close behind it, and what its compilation has shown."""
    caps = [problem.budget.flash_bytes, problem.profile.flash_bytes]
    flash = min((cap for cap in caps if cap is not None), default=math.inf)
    limit = problem.macs_limit()
    macs = math.inf if limit is None else limit
    too_high, fitting, best, enough_ram = known.full, len(rungs), None, True
    for preview in range(_PREVIEWS):
        hopeful = (
            at
            for at in range(too_high + 1, fitting)
            if rungs[at].bytes + known.bytes <= flash and rungs[at].macs + known.macs <= macs
        )
        at = next(hopeful, None)
        if at is None and preview == 0 and too_high < fitting - 1:
            at = fitting - 1  # what is expected may be wrong: the thinnest factors show by how much
        if at is None:
            break
        if not enough_ram:
            # Neither number says anything of RAM: first whether the thinnest factors help at all.
            at = fitting - 1 if best is None else max(at, (too_high + fitting) // 2)
        candidate = Candidate(LOW_RANK, {}, rungs[at].low_rank, whole, weights)
        made = exact(candidate)
        if limit is not None:
            macs_around = limit + problem.macs_over(made) - rungs[at].macs
            known = replace(known, macs=macs_around)
        known = replace(known, bytes=made.flash_bytes - rungs[at].bytes)
        if problem.fits_exactly(made):
            best, fitting = replace(candidate, predicted=made), at
        else:
            too_high = at
            enough_ram = made.flash_bytes > flash or problem.macs_over(made) > 0
            known = known if enough_ram else replace(known, full=at)
    return best, known
