"""Canonical polyadic decomposition of a convolution: a sum of `rank` products of four vectors.

Lebedev et al., "Speeding-up Convolutional Neural Networks Using Fine-tuned CP-Decomposition", 2015,
section 3: W[o, i, h, w] ~ sum over r of A[o, r] B[i, r] P[h, r] Q[w, r] becomes a 1x1 convolution
(B), a k x 1 and a 1 x k depthwise one (P, Q) and a 1x1 one (A). The vectors are found by
alternating least squares (Kolda and Bader, "Tensor Decompositions and Applications", 2009, section
3.4) with a small proximal term, which keeps terms from growing against each other.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecompress.compress.lowrank.bounds import Layer
from edgecompress.compress.lowrank.layers import fill, window_along
from edgecompress.compress.lowrank.matrix import square_root
from edgecompress.compress.lowrank.moments import Moments
from edgecompress.compress.lowrank.refit import least_error, refit_outputs

Factors = list[torch.Tensor]

_SWEEPS = 300
_TOLERANCE = 1e-4
"""A sweep that lowers the error by less than this share of it is the last."""
_PROXIMAL = 1e-5
_STARTS = 2
_LETTERS = "oihw"


def cp(layer: nn.Conv2d, rank: int, moments: Moments | None) -> list[tuple[str, Layer]]:
    """`first` 1x1 [r, I], `vertical` and `horizontal` depthwise [r], `last` 1x1 [O, r].

    A side of the kernel that is 1 has no layer; its vector is part of `first`.
    """
    weight = layer.weight.detach().double()
    outputs, inputs, *sides = decomposed(weight, rank, None)
    if moments is not None and moments.patches is not None:
        patches = moments.patches
        _, aware, *aware_sides = decomposed(weight, rank, moments)
        tried = ([inputs, *sides], [aware, *aware_sides])
        candidates = [refit_outputs(weight, _effective(one), patches) for one in tried]
        best = least_error(candidates)
        inputs, *sides = tried[best]
        outputs = candidates[best].outputs
    made: list[tuple[str, Layer]] = []
    for axis, (name, side) in enumerate(zip(("vertical", "horizontal"), sides, strict=True)):
        if len(side) == 1:
            inputs = inputs * side
            continue
        depthwise = nn.Conv2d(rank, rank, groups=rank, bias=False, **window_along(layer, axis))
        fill(depthwise, side.T, None)
        made.append((name, depthwise))
    first = nn.Conv2d(layer.in_channels, rank, 1, bias=False)
    last = nn.Conv2d(rank, layer.out_channels, 1)
    fill(first, inputs.T, None)
    fill(last, outputs, layer.bias)
    return [("first", first), *made, ("last", last)]


def decomposed(weight: torch.Tensor, rank: int, moments: Moments | None) -> Factors:
    """A [O, r], B [I, r], P [kh, r], Q [kw, r] of least squared error found.

    With `moments` the error is that of the outputs, channels whitened as for Tucker-2: the input
    side of the tensor is multiplied by S^1/2, and B by its inverse afterwards.
    """
    identity = torch.eye(weight.shape[1], dtype=weight.dtype)
    root, inverse = (identity, identity) if moments is None else square_root(moments.input)
    tensor = torch.einsum("oihw,ij->ojhw", weight, root)
    best: Factors = []
    least = float("inf")
    for start in range(_STARTS):
        factors = _alternate(tensor, _initial(tensor, rank, start))
        error = squared_error(tensor, factors)
        if error < least * (1 - 1e-6):
            best, least = factors, error
        if least <= 1e-12 * float(tensor.square().sum()):
            break
    best[1] = inverse @ best[1]
    return best


def squared_error(tensor: torch.Tensor, factors: Factors) -> float:
    """Sum of squares of what the factors leave of the tensor."""
    return float((tensor - torch.einsum("or,ir,hr,wr->oihw", *factors)).square().sum())


def _initial(tensor: torch.Tensor, rank: int, start: int) -> Factors:
    """Leading singular vectors of each unfolding; random columns beyond them, and from the second
    start on everywhere."""
    generator = torch.Generator().manual_seed(start)
    factors: Factors = []
    for mode, size in enumerate(tensor.shape):
        made = torch.randn(size, rank, generator=generator, dtype=torch.float64)
        if start == 0:
            unfolding = tensor.movedim(mode, 0).flatten(1)
            left = torch.linalg.eigh(unfolding @ unfolding.T).eigenvectors.flip(1)
            known = min(rank, size)
            made[:, :known] = left[:, :known]
        factors.append(made / made.norm(dim=0).clamp_min(1e-12))
    return factors


def _alternate(tensor: torch.Tensor, factors: Factors) -> Factors:
    """Each factor in turn the least-squares one for the others, until nothing is gained."""
    total = float(tensor.square().sum())
    before = float("inf")
    for _ in range(_SWEEPS):
        for mode in (1, 2, 3, 0):
            factors[mode] = _solved(tensor, factors, mode)
            if mode:
                factors[mode] = factors[mode] / factors[mode].norm(dim=0).clamp_min(1e-30)
        now = squared_error(tensor, factors)
        if before - now <= _TOLERANCE * now or now <= 1e-14 * total:
            break
        before = now
    return factors


def _solved(tensor: torch.Tensor, factors: Factors, mode: int) -> torch.Tensor:
    """T_(mode) (khatri-rao of the others) times the inverse of the Hadamard product of grams."""
    others = [at for at in range(4) if at != mode]
    terms = ",".join(f"{_LETTERS[at]}r" for at in others)
    equation = f"{_LETTERS},{terms}->{_LETTERS[mode]}r"
    projected = torch.einsum(equation, tensor, *(factors[at] for at in others))
    gram = torch.ones_like(factors[0].T @ factors[0])
    for at in others:
        gram = gram * (factors[at].T @ factors[at])
    weight = _PROXIMAL * gram.diagonal().mean()
    left = gram + weight * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(left, (projected + weight * factors[mode]).T).T


def _effective(parts: Factors) -> torch.Tensor:
    """[r, I * kh * kw]: what the maps before the last layer are of a patch."""
    return torch.einsum("ir,hr,wr->rihw", *parts).flatten(1)
