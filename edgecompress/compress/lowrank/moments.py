"""What a layer's inputs and outputs look like on calibration data: their second moments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from edgecompress.compress.layers import layer_name, module_of
from edgecompress.compress.lowrank.bounds import Layer
from edgecompress.compress.patches import patches_of

_BATCH = 64
_POSITIONS = 24
"""Places of a map whose patches are taken, drawn anew for each batch; neighbours overlap."""


class Moments:
    """Second moments of one layer, float64.

    Attributes:
        input: [I, I] of the input channels.
        output: [O, O] of the outputs without bias.
        patches: [I * kh * kw] squared, of everything one output looks at, in the weight's order;
            None where it was not asked for.
    """

    def __init__(self, layer: Layer, *, with_patches: bool) -> None:
        rows, columns = layer.weight.shape[1], layer.weight.shape[0]
        self._layer = layer
        self.input = torch.zeros(rows, rows, dtype=torch.float64)
        self.output = torch.zeros(columns, columns, dtype=torch.float64)
        self.patches: torch.Tensor | None = None
        if with_patches:
            size = layer.weight[0].numel()
            self.patches = torch.zeros(size, size, dtype=torch.float64)
        self._generator = torch.Generator().manual_seed(0)

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """x [N, I, ...], y [N, O, ...]; the last factor keeps the bias, so it is not in y."""
        bias = self._layer.bias
        # Channels are axis 1 of maps and the last one of what a dense layer takes.
        axis = 1 if isinstance(self._layer, nn.Conv2d) else -1
        flat = [tensor.detach().double().movedim(axis, 0).flatten(1) for tensor in (x, y)]
        if bias is not None:
            flat[1] = flat[1] - bias.detach().double().unsqueeze(1)
        self.input += flat[0] @ flat[0].T / flat[0].shape[1]
        self.output += flat[1] @ flat[1].T / flat[1].shape[1]
        if self.patches is not None:
            assert isinstance(self._layer, nn.Conv2d)
            rows = sampled_patches(self._layer, x, self._generator)
            self.patches += rows.T @ rows / len(rows)


def sampled_patches(layer: nn.Conv2d, x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """[rows, I * kh * kw] float32: what the layer multiplies, at some places of each map."""
    patches = patches_of(layer, x.detach())
    chosen = torch.randperm(patches.shape[1], generator=generator)[:_POSITIONS]
    return patches[:, chosen].flatten(0, 1)


def observe(
    graph: torch.fx.GraphModule,
    layers: Mapping[str, Layer],
    calibration: torch.Tensor,
    *,
    with_patches: frozenset[str] = frozenset(),
) -> dict[str, Moments]:
    """Moments of each named layer over all its calls, in one pass over `calibration`.

    Args:
        with_patches: layers whose patches are wanted too.
    """
    moments = {
        name: Moments(layer, with_patches=name in with_patches) for name, layer in layers.items()
    }

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if n.op == "call_module" and layer_name(n) in moments:
                assert isinstance(module_of(n), Layer)
                moments[layer_name(n)].add(self.env[n.all_input_nodes[0]], value)
            return value

    training = graph.training
    recorder = Recorder(graph.eval(), garbage_collect_values=False)
    with torch.no_grad():
        for batch in calibration.split(_BATCH):
            recorder.run(batch)
    graph.train(training)
    return moments
