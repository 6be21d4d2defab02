"""A k x k convolution as a k x 1 and a 1 x k one.

Jaderberg et al., "Speeding up Convolutional Neural Networks with Low Rank Expansions", 2014, scheme
2: W[o, i, h, w] ~ sum over r of V[r, i, h] H[o, r, w]. Unfolded to [(i, h), (o, w)] the best
filters are a truncated SVD (Tai et al., "Convolutional Neural Networks with Low-Rank
Regularization", 2016, theorem 1). On data (Jaderberg's "data reconstruction") the columns a
vertical filter sees are whitened first, and the horizontal filters are then the least-squares ones
for the layer's outputs.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecompress.compress.lowrank.bounds import Layer
from edgecompress.compress.lowrank.layers import fill, window_along
from edgecompress.compress.lowrank.matrix import square_root
from edgecompress.compress.lowrank.moments import Moments
from edgecompress.compress.lowrank.refit import least_error, refit_outputs


def spatial(layer: nn.Conv2d, rank: int, moments: Moments | None) -> list[tuple[str, Layer]]:
    """`first` k x 1 [rank, I] and `last` 1 x k [O, rank]."""
    weight = layer.weight.detach().double()
    columns, _, _, wide = weight.shape
    vertical, horizontal = _decomposed(weight, rank, None)
    seen = columns_moment(moments, weight)
    if seen is not None:
        assert moments is not None
        assert moments.patches is not None
        tried = (vertical, _decomposed(weight, rank, seen)[0])
        patches = moments.patches
        candidates = [refit_outputs(weight, _effective(one, wide), patches) for one in tried]
        best = least_error(candidates)
        vertical = tried[best]
        horizontal = candidates[best].outputs.reshape(columns, rank, wide)
    first = nn.Conv2d(layer.in_channels, rank, bias=False, **window_along(layer, 0))
    last = nn.Conv2d(rank, layer.out_channels, **window_along(layer, 1))
    fill(first, vertical, None)
    fill(last, horizontal, layer.bias)
    return [("first", first), ("last", last)]


def unfolded(weight: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
    """[(i, h), (o, w)], its rows whitened by the moment of the columns seen."""
    matrix = weight.permute(1, 2, 0, 3).flatten(0, 1).flatten(1)
    return matrix if seen is None else square_root(seen)[0] @ matrix


def _decomposed(
    weight: torch.Tensor, rank: int, seen: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """V [rank, I, kh] and H [O, rank, kw], both with the root of the singular values."""
    columns, rows, tall, wide = weight.shape
    left, values, right = torch.linalg.svd(unfolded(weight, seen), full_matrices=False)
    signs = left[left.abs().argmax(0), torch.arange(left.shape[1])].sign()
    root = values[:rank].sqrt() * torch.where(signs == 0, 1.0, signs)[:rank]
    vertical = (left[:, :rank] * root).T
    if seen is not None:
        vertical = vertical @ square_root(seen)[1]
    horizontal = (root[:, None] * right[:rank]).reshape(rank, columns, wide).transpose(0, 1)
    return vertical.reshape(rank, rows, tall), horizontal


def columns_moment(moments: Moments | None, weight: torch.Tensor) -> torch.Tensor | None:
    """[I * kh] squared: what a vertical filter sees, the mean over the kernel's columns of the
    patches' moment within one; None without data."""
    if moments is None or moments.patches is None:
        return None
    _, rows, tall, wide = weight.shape
    within = moments.patches.reshape(rows * tall, wide, rows * tall, wide)
    return torch.diagonal(within, dim1=1, dim2=3).mean(2)


def _effective(vertical: torch.Tensor, wide: int) -> torch.Tensor:
    """[(r, w), (i, h, w')]: what the intermediate maps are of a patch, at each column."""
    rank, rows, tall = vertical.shape
    same = torch.eye(wide, dtype=vertical.dtype)
    spread = torch.einsum("rih,wv->rwihv", vertical, same)
    return spread.reshape(rank * wide, rows * tall * wide)
