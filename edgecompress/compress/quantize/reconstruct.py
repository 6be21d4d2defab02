"""Layer by layer, the quantized network is brought back to the float one's outputs.

Both networks run side by side on calibration data, node after node, so that a layer is adjusted
for inputs that carry the rounding of everything before it.

    rounding  every weight up or down, see `adaround`
    bias      the mean error of each output channel is taken off its bias (Nagel et al., "Data-Free
              Quantization", 2019, section 4.2, with the means taken from data)
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx.node import map_arg

from edgecompress.compress.layers import input_nodes, kind_of, layer_name, module_of
from edgecompress.compress.quantize.adaround import adaround, moments
from edgecompress.compress.quantize.fake import FakeActivation
from edgecompress.compress.quantize.options import QuantizeOptions
from edgecompress.compress.quantize.prepared import Layer, Quantized, input_of
from edgecompress.compress.quantize.sharing import Sharing, share_scales
from edgecompress.compress.quantize.weights import BIAS_LIMIT
from edgecompress.model.trainable import Trainable

_SAMPLES = 256
"""More would be kept in memory twice for little."""


def reconstruct(
    quantized: Quantized, folded: Trainable, calibration: np.ndarray, options: QuantizeOptions
) -> Quantized:
    """A copy with the weights and biases the options ask for.

    Args:
        folded: the float model `quantized` was made of, with the same nodes.
        calibration: [N, ...] float32; at most 256 are used.
    """
    made = replace(quantized, graph=copy.deepcopy(quantized.graph))
    walk = _Walk(made, folded, options)
    with torch.no_grad():
        walk.run(torch.from_numpy(np.ascontiguousarray(calibration[:_SAMPLES], np.float32)))
    return made


Pair = tuple[torch.Tensor, torch.Tensor]


class _Walk:
    """One pass over the nodes of both graphs; `values` holds (float, quantized) of live nodes."""

    def __init__(self, made: Quantized, folded: Trainable, options: QuantizeOptions) -> None:
        self._made, self._options = made, options
        self._sharing: Sharing = share_scales(made.graph)
        self._float = {node.name: node for node in folded.graph.graph.nodes}
        self._done: set[str] = set()
        self._values: dict[torch.fx.Node, Pair] = {}

    def run(self, x: torch.Tensor) -> None:
        nodes = list(self._made.graph.graph.nodes)
        last = {source: node for node in nodes for source in input_nodes(node)}
        for node in nodes:
            if node.op == "output":
                return
            self._values[node] = self._step(node, x)
            for source in input_nodes(node):
                if last[source] is node:
                    self._values.pop(source, None)

    def _step(self, node: torch.fx.Node, x: torch.Tensor) -> Pair:
        kind = kind_of(node)
        if kind == "input":
            exact = rounded = x
        else:
            exact = self._evaluate(self._float[node.name], node, 0)
            if kind in ("conv", "linear") and layer_name(node) not in self._done:
                self._done.add(layer_name(node))
                self._adjust(node, exact)
            rounded = self._evaluate(node, node, 1)
        affine = self._made.activations.get(node.name)
        return exact, rounded if affine is None else FakeActivation(affine)(rounded)

    def _evaluate(self, node: torch.fx.Node, keys: torch.fx.Node, side: int) -> torch.Tensor:
        """Computes `node` on the values of `keys`' inputs: 0 the float ones, 1 the quantized."""

        def value(argument: torch.fx.Node) -> Any:
            return self._values[argument][side]

        arguments, named = map_arg((keys.args, keys.kwargs), value)
        if node.op == "call_module":
            return module_of(node)(*arguments, **named)
        assert callable(node.target)
        return node.target(*arguments, **named)

    def _adjust(self, node: torch.fx.Node, exact: torch.Tensor) -> None:
        layer, original = module_of(node), module_of(self._float[node.name])
        assert isinstance(layer, Layer)
        assert isinstance(original, Layer)
        x, rounded_x = self._values[input_nodes(node)[0]]
        grid = self._made.grids[layer_name(node)]
        if self._options.rounding == "adaround":
            known = moments(layer, x, rounded_x)
            storage = self._made.storage.get(layer_name(node))
            weight = original.weight
            if storage is not None and storage.format == "sparse":
                weight = weight * (layer.weight != 0)
            with torch.enable_grad():
                layer.weight = nn.Parameter(adaround(weight.detach(), grid, known))
        if self._options.correct_bias:
            channel = 1 if isinstance(layer, nn.Conv2d) else exact.dim() - 1
            error = (layer(rounded_x) - exact).transpose(0, channel).flatten(1).mean(1)
            bias = torch.zeros(len(error)) if layer.bias is None else layer.bias
            source = input_of(node, self._sharing)
            step = self._made.activations[source.name].scale * grid.scale.astype(np.float64)
            limit = torch.from_numpy((step * BIAS_LIMIT).astype(np.float32))
            layer.bias = nn.Parameter((bias - error).clamp(-limit, limit))
