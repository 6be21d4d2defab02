"""Ranks from the share of a layer's energy they keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn

from edgecompress.compress.layers import kind_of, layer_name, module_of
from edgecompress.compress.lowrank.bounds import (
    Layer,
    LowRankMethod,
    factored_weights,
    methods_of,
)
from edgecompress.compress.lowrank.cp import decomposed, squared_error
from edgecompress.compress.lowrank.factorize import FITTED_TO_PATCHES
from edgecompress.compress.lowrank.matrix import input_square, output_square, square_root
from edgecompress.compress.lowrank.moments import Moments, observe
from edgecompress.compress.lowrank.spatial import columns_moment, unfolded
from edgecompress.errors import BadInput
from edgecompress.model.trainable import Trainable
from edgecompress.records import LowRank


def rank_for_energy(
    layer: Layer, method: LowRankMethod, energy: float, moments: Moments | None = None
) -> tuple[int, ...]:
    """The least ranks that keep the share `energy` of the squared weights, or of the squared
    outputs where there are `moments` (Zhang et al., 2015, section 3.4: "PCA energy").

    Both sides of tucker2 lose half of what may be lost: together they lose at most the sum (De
    Lathauwer et al., "A Multilinear Singular Value Decomposition", 2000, property 10). cp has no
    spectrum; its rank is searched up to the one at which it holds as many numbers as the layer.

    Args:
        energy: 0 < energy <= 1.

    Raises:
        BadInput: energy out of range, or a method the layer cannot take.
    """
    if not 0 < energy <= 1:
        raise BadInput(f"An energy of {energy:g} is out of range.",
                       next_step="Give the share to keep, above 0 and at most 1.")  # fmt: skip
    limits = methods_of(layer).get(method)
    if limits is None:
        raise BadInput(f"This {type(layer).__name__} cannot take {method}.")
    if method == "cp":
        return (_cp_rank(layer.weight.detach().double(), energy, moments, limits[0]),)
    return _ranks(_spectra(layer, method, moments), energy, limits)


def choose_ranks(
    trainable: Trainable,
    energy: float,
    *,
    method: LowRankMethod | None = None,
    rank: int | None = None,
    calibration: torch.Tensor | None = None,
    layers: Iterable[str] | None = None,
) -> dict[str, LowRank]:
    """Layer -> the factorization that keeps `energy` with the fewest weights.

    Layers that no factorization makes smaller are left out.

    Args:
        method: only this one; None compares all but cp, whose search is slow.
        rank: every rank is this, or a layer's full rank where that is less, whatever the energy.
        calibration: [N, ...] float32 inputs, to keep energy of the outputs.
        layers: only these; default every layer that takes a factorization.

    Raises:
        BadInput: energy or rank out of range, or an unknown layer.
    """
    if rank is not None and rank < 1:
        raise BadInput(f"A rank of {rank} is out of range; give at least 1.")
    found = _candidates(trainable, layers)
    moments = {} if calibration is None else _observed(trainable, found, method, calibration)
    chosen: dict[str, LowRank] = {}
    for name, layer in found.items():
        choices = [
            LowRank(method=one, ranks=tuple(min(rank, limit) for limit in limits))
            if rank is not None
            else LowRank(method=one, ranks=rank_for_energy(layer, one, energy, moments.get(name)))
            for one, limits in methods_of(layer).items()
            if one == method or (method is None and one != "cp")
        ]
        best = min(choices, key=lambda one: factored_weights(layer, one), default=None)
        if best is not None and factored_weights(layer, best) < layer.weight.numel():
            chosen[name] = best
    return chosen


def ranks_at_energies(
    trainable: Trainable, energies: Sequence[float], moments: Mapping[str, Moments]
) -> list[dict[str, LowRank]]:
    """`choose_ranks` at each of the energies; every layer is decomposed only once.

    Args:
        energies: each above 0 and at most 1.
        moments: `observe_all`'s, to keep energy of the outputs.
    """
    found = _candidates(trainable, None)
    spectra: dict[tuple[str, LowRankMethod], tuple[torch.Tensor, ...]] = {
        (name, method): _spectra(layer, method, moments[name])
        for name, layer in found.items()
        for method in methods_of(layer)
        if method != "cp"
    }
    chosen: list[dict[str, LowRank]] = []
    for energy in energies:
        least: dict[str, LowRank] = {}
        for (name, method), values in spectra.items():
            layer = found[name]
            ranks = _ranks(values, energy, methods_of(layer)[method])
            one = LowRank(method=method, ranks=ranks)
            known = factored_weights(layer, least[name]) if name in least else layer.weight.numel()
            if factored_weights(layer, one) < known:
                least[name] = one
        chosen.append(least)
    return chosen


def observe_all(trainable: Trainable, calibration: torch.Tensor) -> dict[str, Moments]:
    """Moments of every layer that takes a factorization, with all that any method but cp asks for.

    Args:
        calibration: [N, ...] float32 inputs.
    """
    return _observed(trainable, _candidates(trainable, None), None, calibration)


def _observed(
    trainable: Trainable,
    found: dict[str, Layer],
    method: LowRankMethod | None,
    calibration: torch.Tensor,
) -> dict[str, Moments]:
    if not found:
        return {}
    convolutions = {name for name, layer in found.items() if "spatial" in methods_of(layer)}
    fitted = convolutions if method is None or method in FITTED_TO_PATCHES else set()
    return observe(trainable.graph, found, calibration, with_patches=frozenset(fitted))


def _spectra(
    layer: Layer, method: LowRankMethod, moments: Moments | None
) -> tuple[torch.Tensor, ...]:
    """Energy of each direction, the largest first: one spectrum for each of the method's ranks."""
    weight = layer.weight.detach().double()
    if method == "spatial":
        values = torch.linalg.svdvals(unfolded(weight, columns_moment(moments, weight)))
        return (values.square(),)
    outputs = _spectrum(output_square(weight.flatten(1), moments))
    return (outputs,) if method == "svd" else (_spectrum(input_square(weight, moments)), outputs)


def _ranks(
    spectra: tuple[torch.Tensor, ...], energy: float, limits: tuple[int, ...]
) -> tuple[int, ...]:
    """Several sides share what may be lost equally."""
    each = 1 - (1 - energy) / len(spectra)
    return tuple(
        min(_enough(values, each), limit) for values, limit in zip(spectra, limits, strict=True)
    )


def _candidates(trainable: Trainable, layers: Iterable[str] | None) -> dict[str, Layer]:
    every: dict[str, Layer] = {}
    for node in trainable.graph.graph.nodes:
        if node.op == "call_module" and kind_of(node) in ("conv", "linear"):
            layer = module_of(node)
            if methods_of(layer):
                assert isinstance(layer, nn.Conv2d | nn.Linear)
                every[layer_name(node)] = layer
    if layers is None:
        return every
    wanted = [*layers]
    unknown = [name for name in wanted if name not in every]
    if unknown:
        raise BadInput(
            f"The model has no layer '{unknown[0]}' to factorize.",
            next_step=f"Layers that can be: {', '.join(every) or 'none'}.",
        )
    return {name: every[name] for name in wanted}


def _spectrum(square: torch.Tensor) -> torch.Tensor:
    """Eigenvalues of a symmetric matrix, the largest first, rounding below zero cut off."""
    return torch.linalg.eigvalsh(square).flip(0).clamp_min(0)


def _enough(values: torch.Tensor, energy: float) -> int:
    """How many of the leading values sum to the share `energy` of all."""
    total = values.cumsum(0)
    if float(total[-1]) <= 0:
        return 1
    # What rounding leaves of the total must not ask for the last, empty directions.
    missing = int((total < energy * total[-1] * (1 - 1e-12)).sum())
    return min(len(values), missing + 1)


def _cp_rank(weight: torch.Tensor, energy: float, moments: Moments | None, limit: int) -> int:
    """Bisection, as if the error fell with every rank."""
    tensor = weight
    if moments is not None:
        tensor = torch.einsum("oihw,ij->ojhw", weight, square_root(moments.input)[0])
    allowed = (1 - energy) * float(tensor.square().sum())
    # More terms than this have more numbers than the weight itself.
    low, high = 1, min(limit, max(1, weight.numel() // sum(weight.shape)))
    while low < high:
        middle = (low + high) // 2
        if squared_error(tensor, decomposed(tensor, middle, None)) <= allowed + 1e-12:
            high = middle
        else:
            low = middle + 1
    return low
