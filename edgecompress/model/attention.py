"""Attention between sequences as two functional steps with a softmax between them.

    scores = scores_of(q, k, heads)     weights = softmax(scores)     mix(weights, v, heads)

The projections around them are ordinary nn.Linear layers; the factor 1 / sqrt(size) is part of the
one that makes q. Head h is features h size ... (h + 1) size of q, k, v and of the output: removing
it means removing these rows of the three layers before, these columns of the layer behind, and one
from the `heads` argument of both nodes.
"""

from __future__ import annotations

import torch


def scores_of(q: torch.Tensor, k: torch.Tensor, heads: int) -> torch.Tensor:
    """Q K^T of each head.

    Args:
        q: [N, time, heads * size] float32.
        k: [N, other time, heads * size].

    Returns:
        [N, heads, time, other time].
    """
    return _split(q, heads) @ _split(k, heads).transpose(-1, -2)


def mix(weights: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """The values of each head averaged by its weights.

    Args:
        weights: [N, heads, time, other time], rows sum to one.
        v: [N, other time, heads * size].

    Returns:
        [N, time, heads * size].
    """
    return (weights @ _split(v, heads)).transpose(1, 2).flatten(2)


def _split(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[N, time, heads * size] as [N, heads, time, size]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
