"""Attention between sequences: the one trainable step that has no parameters of its own.

The projections around it are ordinary nn.Linear layers. Head h is features h size ... (h + 1) size
of all three inputs and of the output: removing it means removing these rows of the three layers
before it, these columns of the layer behind it, and one from the `heads` argument of its node.
"""

from __future__ import annotations

import torch


def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """softmax(Q K^T) V for each head; the factor 1 / sqrt(size) is part of the layer that makes q.

    Args:
        q: [N, time, heads * size] float32.
        k, v: [N, other time, heads * size].

    Returns:
        [N, time, heads * size].
    """
    return joined(weights_of(q, k, heads) @ split(v, heads))


def weights_of(q: torch.Tensor, k: torch.Tensor, heads: int) -> torch.Tensor:
    """[N, heads, time, other time]: each row sums to one."""
    return torch.softmax(scores_of(q, k, heads), -1)


def scores_of(q: torch.Tensor, k: torch.Tensor, heads: int) -> torch.Tensor:
    """Q K^T, [N, heads, time, other time]."""
    return split(q, heads) @ split(k, heads).transpose(-1, -2)


def split(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[N, time, heads * size] as [N, heads, time, size]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def joined(x: torch.Tensor) -> torch.Tensor:
    """[N, heads, time, size] as [N, time, heads * size]."""
    return x.transpose(1, 2).flatten(2)
