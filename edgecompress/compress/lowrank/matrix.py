"""SVD of dense layers and 1x1 convolutions, Tucker-2 of larger ones.

For y = W x the outputs' best q-dimensional basis U are the leading eigenvectors of the covariance
of y: W ~ U U^T W loses least of y (principal components of the response, Zhang et al.,
"Accelerating Very Deep Convolutional Networks", 2015, section 3.1). Inputs of a Tucker core are
whitened likewise by the covariance of the channels they carry. Tucker-2 itself: Kim et al.,
"Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile Applications",
2016, section 3.1.
"""

from __future__ import annotations

import torch
from torch import nn

from edgecompress.compress.lowrank.bounds import Layer
from edgecompress.compress.lowrank.layers import fill, window
from edgecompress.compress.lowrank.moments import Moments


def svd(layer: Layer, rank: int, moments: Moments | None) -> list[tuple[str, Layer]]:
    """`first` [rank, I] and `last` [O, rank]."""
    weight = layer.weight.detach().double().flatten(1)
    basis = leading(output_square(weight, moments), rank)
    first, last = basis.T @ weight, basis
    if isinstance(layer, nn.Linear):
        made: list[Layer] = [
            nn.Linear(layer.in_features, rank, bias=False),
            nn.Linear(rank, layer.out_features),
        ]
    else:
        made = [
            nn.Conv2d(layer.in_channels, rank, bias=False, **window(layer)),
            nn.Conv2d(rank, layer.out_channels, 1),
        ]
    fill(made[0], first, None)
    fill(made[1], last, layer.bias)
    return [("first", made[0]), ("last", made[1])]


def tucker(
    layer: nn.Conv2d, rank_in: int, rank_out: int, moments: Moments | None
) -> list[tuple[str, Layer]]:
    """`first` 1x1 [p, I], `core` [q, p, k, k], `last` 1x1 [O, q]."""
    weight = layer.weight.detach().double()
    down, up = _input_basis(weight, rank_in, moments)
    basis = leading(output_square(weight.flatten(1), moments), rank_out)
    core = torch.einsum("oikl,oq,ip->qpkl", weight, basis, up)
    first = nn.Conv2d(layer.in_channels, rank_in, 1, bias=False)
    middle = nn.Conv2d(rank_in, rank_out, bias=False, **window(layer))
    last = nn.Conv2d(rank_out, layer.out_channels, 1)
    fill(first, down, None)
    fill(middle, core, None)
    fill(last, basis, layer.bias)
    return [("first", first), ("core", middle), ("last", last)]


def output_square(weight: torch.Tensor, moments: Moments | None) -> torch.Tensor:
    """[O, O] whose eigenvectors span the outputs: E[y y^T], or W W^T for a weight [O, N]."""
    return weight @ weight.T if moments is None else moments.output


def input_square(weight: torch.Tensor, moments: Moments | None) -> torch.Tensor:
    """[I, I] whose eigenvectors span the inputs: S^1/2 W^T W S^1/2, or W^T W without data."""
    unfolded = weight.transpose(0, 1).flatten(1)
    square = unfolded @ unfolded.T
    if moments is None:
        return square
    root, _ = square_root(moments.input)
    return root @ square @ root


def _input_basis(
    weight: torch.Tensor, rank: int, moments: Moments | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """D [rank, I] and U [I, rank] with x ~ U D x for the inputs the weight looks at.

    Without data U = D^T are the leading singular vectors of the weight unfolded along I. With
    S = E[x x^T], the error of W x summed over kernel positions is tr(W S W^T): the leading
    eigenvectors V of S^1/2 W^T W S^1/2 give D = V^T S^-1/2 and U = S^1/2 V.
    """
    basis = leading(input_square(weight, moments), rank)
    if moments is None:
        return basis.T, basis
    root, inverse = square_root(moments.input)
    return basis.T @ inverse, root @ basis


def square_root(covariance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """S^1/2 and S^-1/2, symmetric; a direction the data never shows keeps a little weight, so that
    the root can be inverted."""
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp_min(max(float(values[-1]), 1e-12) * 1e-6)
    return vectors * values.sqrt() @ vectors.T, vectors * values.rsqrt() @ vectors.T


def leading(symmetric: torch.Tensor, rank: int) -> torch.Tensor:
    """Eigenvectors of the `rank` largest eigenvalues as columns; each with a positive largest
    entry, so that a rerun gives the same signs."""
    vectors = torch.linalg.eigh(symmetric).eigenvectors.flip(1)[:, :rank]
    largest = vectors.abs().argmax(dim=0)
    signs = vectors[largest, torch.arange(vectors.shape[1])].sign()
    return vectors * torch.where(signs == 0, 1.0, signs)
