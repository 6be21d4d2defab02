"""The last factor as the data wants it, whatever the first ones are."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Refit:
    """The last factor `outputs` [O, R] and its mean squared error on the layer's outputs."""

    outputs: torch.Tensor
    error: float


def refit_outputs(weight: torch.Tensor, features: torch.Tensor, patches: torch.Tensor) -> Refit:
    """argmin over A of E |W p - A F p|^2 for the patches p a layer sees.

    With C = E[p p^T]: A = W C F^T (F C F^T)^-1. No other last factor is closer to the outputs.

    Args:
        weight: float64 [O, I, kh, kw].
        features: F, float64 [R, I * kh * kw].
        patches: C, float64.
    """
    flat = weight.flatten(1)
    gram = features @ patches @ features.T
    ridge = 1e-9 * gram.diagonal().mean().clamp_min(1e-30)
    gram = gram + ridge * torch.eye(len(gram), dtype=gram.dtype)
    outputs = torch.linalg.solve(gram, features @ patches @ flat.T).T
    missing = flat - outputs @ features
    return Refit(outputs, float(((missing @ patches) * missing).sum()))


def least_error(candidates: list[Refit]) -> int:
    """The index of the best; the first of equals."""
    return min(range(len(candidates)), key=lambda at: candidates[at].error)
