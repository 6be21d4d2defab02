"""Quantization simulated in a graph that still trains: the straight-through estimator.

A forward pass rounds weights and activations as the deployable will; the backward pass takes the
rounding for the identity inside the range and for a constant outside it (Bengio et al., 2013;
Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from edgecompress.compress.layers import layer_name, replace_module
from edgecompress.compress.quantize.affine import Affine
from edgecompress.compress.quantize.prepared import Layer, weighted_nodes
from edgecompress.compress.quantize.weights import WeightGrid, make_grid, zeroed
from edgecompress.records import WeightStorage

_REFRESH_EVERY = 20


class _StraightThrough(torch.autograd.Function):
    """A rounding forwards, the identity backwards."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ARG004 - torch's interface
        x: torch.Tensor,
        rounding: Callable[[torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        return rounding(x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ARG004
        return grad_outputs[0], None


class FakeActivation(nn.Module):
    """Rounds a tensor to its scale.

    A clamp and a division cost an eighth of torch.fake_quantize_per_tensor_affine on a CPU, which
    is not vectorized (torch 2.13), and divide as onnxruntime does.
    """

    def __init__(self, affine: Affine) -> None:
        super().__init__()
        self._scale = float(affine.scale)
        self._low = (affine.lowest - affine.zero_point) * self._scale
        self._high = (affine.highest - affine.zero_point) * self._scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        clipped = nn.functional.hardtanh(x, self._low, self._high)
        return _StraightThrough.apply(clipped, self._round)

    def _round(self, x: torch.Tensor) -> torch.Tensor:
        return x.div(self._scale).round_().mul_(self._scale)


class FakeWeight(nn.Module):
    """Rounds a weight to its storage format.

    int8 and sparse scales follow the largest weight of their channel. int4 scales and shared
    levels follow by one least-squares step (of k-means, for the levels) every 20 batches.
    """

    def __init__(self, layer: Layer, storage: WeightStorage | None) -> None:
        super().__init__()
        weight = layer.weight.detach().float().numpy()
        kept = zeroed(weight, storage)
        grid = make_grid(kept, np.zeros(len(weight), np.float32), np.float32(1), storage)
        self.storage, self.limit = storage, grid.limit
        self.scale: torch.Tensor
        self.levels: torch.Tensor | None
        self.mask: torch.Tensor | None
        self.register_buffer("scale", torch.from_numpy(grid.scale.copy()))
        levels = None if grid.levels is None else torch.from_numpy(grid.levels.astype(np.float32))
        self.register_buffer("levels", levels)
        sparse = storage is not None and storage.format == "sparse"
        self.register_buffer("mask", torch.from_numpy(kept != 0).float() if sparse else None)
        self._follows_largest = storage is None or sparse
        self._batches = 0

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """[O, ...] float32, rounded."""
        if self.mask is not None:
            weight = weight * self.mask
        if self._follows_largest:
            largest = weight.detach().abs().flatten(1).amax(1) / self.limit
            self.scale.copy_(largest.clamp_min(1e-12))
        elif self.training:
            self._batches += 1
            if self._batches % _REFRESH_EVERY == 0:
                self._refresh(weight.detach())
        if self.levels is not None:
            return _StraightThrough.apply(weight, self._shared)
        steps = self._steps(weight)
        if not self._follows_largest:
            steps = nn.functional.hardtanh(steps, -self.limit, self.limit)
        return _StraightThrough.apply(steps, torch.round) * self._column(weight)

    def grid(self) -> WeightGrid:
        """What the weight must be rounded to for the same values."""
        levels = None
        if self.levels is not None:
            levels = np.unique(self.levels.cpu().numpy().round()).astype(np.int8)
        return WeightGrid(self.scale.cpu().numpy().copy(), self.limit, levels)

    def _column(self, weight: torch.Tensor) -> torch.Tensor:
        return self.scale.reshape((-1,) + (1,) * (weight.dim() - 1))

    def _steps(self, weight: torch.Tensor) -> torch.Tensor:
        return weight / self._column(weight)

    def _index(self, weight: torch.Tensor) -> torch.Tensor:
        assert self.levels is not None
        middles = (self.levels[1:] + self.levels[:-1]) / 2
        return torch.bucketize(self._steps(weight).contiguous(), middles)

    def _shared(self, weight: torch.Tensor) -> torch.Tensor:
        assert self.levels is not None
        return self.levels[self._index(weight)] * self._column(weight)

    def _refresh(self, weight: torch.Tensor) -> None:
        """Lloyd's step for the levels, then the best scale of every channel for them."""
        steps = self._steps(weight)
        if self.levels is None:
            chosen = steps.round().clamp(-self.limit, self.limit)
        else:
            index = self._index(weight).flatten()
            squares = self._column(weight).square().expand_as(weight).flatten()
            mass = torch.zeros_like(self.levels).scatter_add_(0, index, squares)
            sums = torch.zeros_like(self.levels).scatter_add_(0, index, squares * steps.flatten())
            moved = torch.where(mass > 0, sums / mass.clamp_min(1e-30), self.levels)
            self.levels.copy_(moved.round().clamp(-127, 127).sort().values)
            chosen = self.levels[self._index(weight)]
        flat, picked = weight.flatten(1), chosen.flatten(1)
        energy = (picked * picked).sum(1)
        fitted = (flat * picked).sum(1) / energy.clamp_min(1e-30)
        self.scale.copy_(torch.where(fitted > 0, fitted, self.scale))


class FakeLayer(nn.Module):
    """A convolution or dense layer that computes with its rounded weight."""

    def __init__(self, layer: Layer, rounding: FakeWeight) -> None:
        super().__init__()
        self.layer, self.rounding = layer, rounding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.rounding(self.layer.weight)
        if isinstance(self.layer, nn.Conv2d):
            return self.layer._conv_forward(x, weight, self.layer.bias)
        return nn.functional.linear(x, weight, self.layer.bias)


def fake_weights(graph: torch.fx.GraphModule, storage: Mapping[str, WeightStorage]) -> None:
    """Every weighted layer of `graph` rounds its weight from now on, in place."""
    for name in dict.fromkeys(layer_name(node) for node in weighted_nodes(graph)):
        layer = graph.get_submodule(name)
        assert isinstance(layer, Layer)
        wrapped = FakeLayer(layer, FakeWeight(layer, storage.get(name)))
        replace_module(graph, name, wrapped.to(layer.weight.device))


def fake_activations(graph: torch.fx.GraphModule, activations: Mapping[str, Affine]) -> None:
    """Every quantized tensor of a folded graph is rounded from now on, in place.

    The graph's layers may round their weights already.
    """
    for node in list(graph.graph.nodes):
        affine = activations.get(node.name)
        if affine is None:
            continue
        name = f"{node.name}_rounding"
        graph.add_submodule(name, FakeActivation(affine))
        with graph.graph.inserting_after(node):
            rounded = graph.graph.call_module(name, (node,))
        node.replace_all_uses_with(rounded)
        rounded.update_arg(0, node)
    graph.recompile()


def real_weights(graph: torch.fx.GraphModule) -> dict[str, WeightGrid]:
    """Undoes `fake_weights` in place: plain layers with the weights training moved.

    Returns:
        The grids the layers were rounded to. Zeros of a mask are written into the weights.
    """
    grids: dict[str, WeightGrid] = {}
    for name, module in list(graph.named_modules()):
        if isinstance(module, FakeLayer):
            grids[name] = module.rounding.grid()
            if module.rounding.mask is not None:
                module.layer.weight.data.mul_(module.rounding.mask)
            replace_module(graph, name, module.layer)
    return grids
