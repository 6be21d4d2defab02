"""Least-squares repair: layers behind pruned channels learn to do without them, with no training.

He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", 2017, section 3.1, step
two: the weights of the layer that lost inputs become those that best reproduce its old outputs from
what is left,

    argmin over W, b of  E |y - W x' - b|^2

with y the original network's outputs of that layer and x' the pruned network's inputs to it, layer
after layer in execution order, so each one also makes up for the errors of those before it (He et
al., section 3.2). ThiNet (Luo et al., 2017, section 3.2.3) rescales the inputs by the same rule.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from edgecompress.compress.layers import is_depthwise, kind_of, layer_name, module_of
from edgecompress.compress.patches import patches_of
from edgecompress.errors import BadData
from edgecompress.model.trainable import Trainable

Layer = nn.Conv2d | nn.Linear

_BATCH = 32
_POSITIONS = 32
"""Map positions taken of each sample at random: neighbours say the same (He et al. take 10)."""
_HELD_OUT = 4
"""Every fourth sample only judges."""
_RIDGES = (1e-5, 1e-3, 1e-1)


def repair(
    original: Trainable,
    pruned: Trainable,
    kept: Mapping[str, torch.Tensor],
    calibration: torch.Tensor,
    *,
    seed: int = 0,
) -> Trainable:
    """New weights for every conv and dense layer of `pruned` that reads fewer channels than before.

    The solution is drawn towards the sliced weights by a ridge, the best of three on every fourth
    sample; a layer none of them improves there keeps its weights. Neither argument is changed.

    Args:
        kept: layer -> positions of its outputs that `pruned` still has, int64.
        calibration: [N, ...] float32, N >= 2; some hundred are plenty.
        seed: of the choice of positions in a map.

    Raises:
        BadData: fewer than two samples.
    """
    if len(calibration) < 2:
        raise BadData(
            f"Least-squares repair got {len(calibration)} samples and needs at least 2.",
            next_step="Give more data, or prune without repair.",
        )
    graph = copy.deepcopy(pruned.graph).eval()
    source = copy.deepcopy(original.graph).eval()
    for name in _narrowed_readers(original, pruned):
        layer = graph.get_submodule(name)
        assert isinstance(layer, Layer)
        fit, judge = _moments(source, graph, name, kept[name], calibration, seed)
        solution = _best(layer, fit, judge)
        if solution is not None:
            _write(layer, solution)
    return replace(pruned, graph=graph.train(pruned.graph.training))


def _narrowed_readers(original: Trainable, pruned: Trainable) -> list[str]:
    """Layers whose weights have fewer inputs than the original's, in execution order."""
    names: list[str] = []
    for node in pruned.graph.graph.nodes:
        if node.op != "call_module" or kind_of(node) not in ("conv", "linear"):
            continue
        before = original.graph.get_submodule(layer_name(node))
        after = module_of(node)
        if is_depthwise(before) or layer_name(node) in names:
            continue
        assert isinstance(before, Layer)
        assert isinstance(after, Layer)
        if after.weight.shape[1] < before.weight.shape[1]:
            names.append(layer_name(node))
    return names


@dataclass
class _Moments:
    """Sums over rows of x [D] (a 1 appended where there is a bias) and y [O], float64.

    Attributes:
        xx: [D, D]. xy: [D, O]. yy: sum of squares of y.
    """

    xx: torch.Tensor
    xy: torch.Tensor
    yy: float = 0.0

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """float32 rows; their products lose less than the data's own noise, the sums nothing."""
        self.xx += x.T @ x
        self.xy += x.T @ y
        self.yy += float(y.double().square().sum())

    def error(self, solution: torch.Tensor) -> float:
        """Sum of |y - W^T x|^2 for a solution [D, O]."""
        return self.yy + float(((self.xx @ solution - 2 * self.xy) * solution).sum())


def _moments(
    source: torch.fx.GraphModule,
    graph: torch.fx.GraphModule,
    name: str,
    outputs: torch.Tensor,
    calibration: torch.Tensor,
    seed: int,
) -> tuple[_Moments, _Moments]:
    """Of the samples to fit on, and of those to judge by."""
    layer = graph.get_submodule(name)
    assert isinstance(layer, Layer)
    size = layer.weight[0].numel() + (layer.bias is not None)
    zeros = (torch.zeros(size, size).double(), torch.zeros(size, len(outputs)).double())
    fit = _Moments(zeros[0].clone(), zeros[1].clone())
    judge = _Moments(*zeros)
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, len(calibration), _BATCH):
        batch = calibration[start : start + _BATCH]
        axis = 1 if isinstance(layer, nn.Conv2d) else -1
        wanted = [y.index_select(axis, outputs) for _, y in _calls(source, name, batch)]
        given = [x for x, _ in _calls(graph, name, batch)]
        held = torch.arange(start, start + len(batch)) % _HELD_OUT == _HELD_OUT - 1
        if len(calibration) < _HELD_OUT:
            held = torch.arange(start, start + len(batch)) == len(calibration) - 1
        for x, y in zip(given, wanted, strict=True):
            rows, targets = _rows(layer, x, y, generator)
            for moments, chosen in ((fit, ~held), (judge, held)):
                moments.add(rows[chosen].flatten(0, 1), targets[chosen].flatten(0, 1))
    return fit, judge


def _calls(
    graph: torch.fx.GraphModule, name: str, batch: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(input, output) of each call of one layer; what comes after the last is not computed."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    calls = sum(node.target == name for node in graph.graph.nodes)

    def record(_layer: nn.Module, given: tuple[Any, ...], made: torch.Tensor) -> None:
        seen.append((given[0], made))
        if len(seen) == calls:
            raise _Seen

    handle = graph.get_submodule(name).register_forward_hook(record)
    try:
        with torch.no_grad(), contextlib.suppress(_Seen):
            graph(batch)
    finally:
        handle.remove()
    return seen


class _Seen(Exception):
    """No error: it ends a forward pass early."""


def _rows(
    layer: Layer, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """[N, P, D] what the layer multiplies at P positions, and [N, P, O] what it should give."""
    if isinstance(layer, nn.Conv2d):
        patches = patches_of(layer, x)
        targets = y.flatten(2).transpose(1, 2)
        count = patches.shape[1]
        chosen = torch.randperm(count, generator=generator)[:_POSITIONS]
        patches, targets = patches[:, chosen], targets[:, chosen]
    else:
        flat = x.dim() == 2
        patches, targets = (x.unsqueeze(1), y.unsqueeze(1)) if flat else (x, y)
    if layer.bias is not None:
        ones = torch.ones(*patches.shape[:2], 1)
        patches = torch.cat([patches, ones], dim=2)
    return patches, targets


def _best(layer: Layer, fit: _Moments, judge: _Moments) -> torch.Tensor | None:
    """The solution [D, O] on all samples with the ridge that judges best; None to leave it."""
    start = layer.weight.detach().double().flatten(1).T
    if layer.bias is not None:
        start = torch.cat([start, layer.bias.detach().double()[None]])
    errors = {ridge: judge.error(_solve(fit, start, ridge)) for ridge in _RIDGES}
    ridge = min(errors, key=lambda one: errors[one])
    if not errors[ridge] < judge.error(start):
        return None
    whole = _Moments(fit.xx + judge.xx, fit.xy + judge.xy)
    return _solve(whole, start, ridge)


def _solve(moments: _Moments, start: torch.Tensor, ridge: float) -> torch.Tensor:
    """argmin |y - W^T x|^2 + l |W - start|^2, l = ridge times the mean diagonal of x x^T."""
    size = len(moments.xx)
    weight = ridge * float(moments.xx.diagonal().mean().clamp_min(1e-12))
    left = moments.xx + weight * torch.eye(size, dtype=torch.float64)
    return torch.cholesky_solve(moments.xy + weight * start, torch.linalg.cholesky(left))


def _write(layer: Layer, solution: torch.Tensor) -> None:
    if layer.bias is not None:
        layer.bias = nn.Parameter(solution[-1].float())
        solution = solution[:-1]
    layer.weight = nn.Parameter(solution.T.reshape(layer.weight.shape).float().contiguous())
