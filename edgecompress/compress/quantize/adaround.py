"""Each weight up or down, as its layer's output wants it.

Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020, section 3:
with W = s * clip(floor(W / s) + h(V)) and h the rectified sigmoid (equation 23), minimise

    ||W x - W~ x~||^2 + lambda * sum(1 - |2 h(V) - 1|^beta)      (equations 21, 24 and 25)

where x~ are the inputs as the quantized network makes them; beta falls from 20 to 2, so that h
ends at 0 or 1. The first term is a quadratic form in W~, so it is evaluated from the second
moments of the inputs, once gathered; the activation function behind the layer is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from edgecompress.compress.quantize.prepared import Layer
from edgecompress.compress.quantize.weights import WeightGrid

_ITERATIONS = 300
_LEARNING_RATE = 1e-2
_REGULARIZATION = 0.01
_WARM = 0.2
_BETAS = (20.0, 2.0)
_STRETCH = (-0.1, 1.1)
_POSITIONS_A_BATCH = 32


@dataclass
class Moments:
    """Second moments of a layer's input patches, mean over samples and positions, by group.

    Attributes:
        rounded: E[x~ x~^T], [groups, K, K] float32; K weights make one output.
        mixed: E[x x~^T], likewise.
        float: E[x x^T], likewise.
    """

    rounded: torch.Tensor
    mixed: torch.Tensor
    float: torch.Tensor

    def error(self, weight: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        """E[(W x - W~ x~)^2] of every output, [O].

        Args:
            weight, rounded: [O, K] float32, O a multiple of the groups.
        """
        w, r = self._by_group(weight), self._by_group(rounded)
        total = (r @ self.rounded - 2 * (w @ self.mixed)) * r + (w @ self.float) * w
        return total.sum(2).flatten()

    def pull(self, weight: torch.Tensor) -> torch.Tensor:
        """W E[x x~^T], [O, K]: what `slope` needs of the float weight."""
        return (self._by_group(weight) @ self.mixed).flatten(0, 1)

    def slope(self, pull: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        """Gradient of `error`, summed over the outputs, by W~: 2 (W~ E[x~ x~^T] - pull), [O, K]."""
        return 2 * ((self._by_group(rounded) @ self.rounded).flatten(0, 1) - pull)

    def _by_group(self, weight: torch.Tensor) -> torch.Tensor:
        return weight.reshape(len(self.rounded), -1, weight.shape[1])


def moments(layer: Layer, x: torch.Tensor, rounded: torch.Tensor) -> Moments:
    """From the layer's inputs in the float network and in the quantized one, [N, ...] each."""
    made: list[torch.Tensor] = []
    batches = zip(x.split(_POSITIONS_A_BATCH), rounded.split(_POSITIONS_A_BATCH), strict=True)
    for ours, theirs in batches:
        a, b = _patches(layer, ours), _patches(layer, theirs)
        parts = [b @ b.mT, a @ b.mT, a @ a.mT]
        made = [sum_ + part for sum_, part in zip(made, parts, strict=True)] if made else parts
    count = x.shape[0] * _patches(layer, x[:1]).shape[2]
    return Moments(*(total / count for total in made))


def _patches(layer: Layer, x: torch.Tensor) -> torch.Tensor:
    """[groups, K, positions]: what each output is a product of."""
    if isinstance(layer, nn.Linear):
        return x.reshape(-1, layer.in_features).T.unsqueeze(0)
    left, right, top, bottom = layer._reversed_padding_repeated_twice
    padded = nn.functional.pad(x, (left, right, top, bottom))
    columns = nn.functional.unfold(
        padded, layer.kernel_size, dilation=layer.dilation, stride=layer.stride
    )
    samples, _, positions = columns.shape
    grouped = columns.reshape(samples, layer.groups, -1, positions)
    return grouped.permute(1, 2, 0, 3).reshape(layer.groups, -1, samples * positions)


def adaround(weight: torch.Tensor, grid: WeightGrid, known: Moments) -> torch.Tensor:
    """float32 [O, ...] on the grid; no output's error is above that of rounding to nearest.

    Zeros stay zeros. A grid of shared levels has no step up or down: nearest.
    """
    flat = weight.flatten(1)
    nearest = torch.from_numpy(grid.real(grid.round(flat.numpy())))
    if grid.levels is not None:
        return nearest.reshape(weight.shape)
    scale = torch.from_numpy(grid.scale).unsqueeze(1)
    lower = (flat / scale).floor()
    share = (flat / scale - lower).clamp(0.01, 0.99)
    low, high = _STRETCH
    raised = torch.logit((share - low) / (high - low)).requires_grad_()
    movable = (flat != 0).float()
    optimizer = torch.optim.Adam([raised], lr=_LEARNING_RATE, fused=True)
    pull = known.pull(flat)

    def soft() -> torch.Tensor:
        return (torch.sigmoid(raised) * (high - low) + low).clamp(0, 1) * movable

    for iteration in range(_ITERATIONS):
        up = soft()
        made = (lower + up).clamp(-grid.limit, grid.limit) * scale
        # A linear stand-in with the error's gradient: one product with the moments, not six.
        loss = (known.slope(pull, made.detach()) * made).sum()
        progress = (iteration / _ITERATIONS - _WARM) / (1 - _WARM)
        if progress > 0:
            beta = _BETAS[1] + (_BETAS[0] - _BETAS[1]) * (1 - progress)
            spread = 1 - (2 * up - 1).abs().pow(beta)
            loss = loss + _REGULARIZATION * (spread * movable).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        chosen = (lower + (soft() >= 0.5)).clamp(-grid.limit, grid.limit) * scale
        better = known.error(flat, chosen) < known.error(flat, nearest)
        return torch.where(better.unsqueeze(1), chosen, nearest).reshape(weight.shape)
