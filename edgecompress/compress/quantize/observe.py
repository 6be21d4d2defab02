"""Activation scales from calibration data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from edgecompress.compress.layers import kind_of
from edgecompress.compress.quantize.affine import Affine, affine_from_range, softmax_affine
from edgecompress.compress.quantize.options import QuantizeOptions
from edgecompress.compress.quantize.ranges import choose
from edgecompress.compress.quantize.sharing import Sharing

_BINS = 2048


def observe(
    graph: torch.fx.GraphModule,
    sharing: Sharing,
    calibration: np.ndarray,
    options: QuantizeOptions,
) -> dict[torch.fx.Node, Affine]:
    """The scale and zero point of every tensor of `sharing`; tensors of one owner get the same.

    The range of an owner is that of all its tensors together. Model input and output keep their
    whole range (the input is what the device is given, the output's order is the answer); softmax
    has the range TensorFlow Lite gives it. The others may clip rare values, see `ranges`.

    Args:
        calibration: [N, ...] float32.
    """
    ranges = _ranges(graph, sharing, calibration)
    clips = options.observer != "minmax"
    histograms = _histograms(graph, sharing, calibration, ranges) if clips else {}
    result: dict[torch.fx.Node, Affine] = {}
    fixed = _whole_range_owners(sharing)
    bits, symmetric = options.activation_bits, options.symmetric_activations
    for node in sharing.tensors:
        owner = sharing.owner[node]
        if owner in result:
            continue
        if kind_of(owner) == "softmax":
            result[owner] = softmax_affine(bits)
        elif owner in fixed or owner not in histograms:
            result[owner] = affine_from_range(*ranges[owner], bits=bits, symmetric=symmetric)
        else:
            result[owner] = choose(*ranges[owner], histograms[owner], options)
    return {node: result[sharing.owner[node]] for node in sharing.tensors}


def _whole_range_owners(sharing: Sharing) -> set[torch.fx.Node]:
    edges = [
        node
        for node in sharing.tensors
        if kind_of(node) == "input" or any(kind_of(user) == "output" for user in node.users)
    ]
    return {sharing.owner[node] for node in edges}


class _Recorder(torch.fx.Interpreter):
    """Runs the graph and hands every quantized tensor's values to `see`."""

    def __init__(
        self,
        graph: torch.fx.GraphModule,
        sharing: Sharing,
        see: Callable[[torch.fx.Node, torch.Tensor], None],
    ) -> None:
        super().__init__(graph)
        self._wanted = set(sharing.tensors)
        self._owner = sharing.owner
        self._see = see

    def run_node(self, n: torch.fx.Node) -> Any:
        value = super().run_node(n)
        if n in self._wanted:
            self._see(self._owner[n], value)
        return value


def _run(recorder: _Recorder, calibration: np.ndarray) -> None:
    with torch.no_grad():
        for batch in torch.from_numpy(np.ascontiguousarray(calibration, np.float32)).split(64):
            recorder.run(batch)


def _ranges(
    graph: torch.fx.GraphModule, sharing: Sharing, calibration: np.ndarray
) -> dict[torch.fx.Node, tuple[float, float]]:
    ranges: dict[torch.fx.Node, tuple[float, float]] = {}

    def see(owner: torch.fx.Node, value: torch.Tensor) -> None:
        low, high = ranges.get(owner, (0.0, 0.0))
        ranges[owner] = min(low, value.min().item()), max(high, value.max().item())

    _run(_Recorder(graph, sharing, see), calibration)
    return ranges


def _histograms(
    graph: torch.fx.GraphModule,
    sharing: Sharing,
    calibration: np.ndarray,
    ranges: dict[torch.fx.Node, tuple[float, float]],
) -> dict[torch.fx.Node, np.ndarray]:
    histograms: dict[torch.fx.Node, np.ndarray] = {}

    def see(owner: torch.fx.Node, value: torch.Tensor) -> None:
        low, high = ranges[owner]
        if high <= low:
            return
        counts = torch.histc(value.float(), _BINS, low, high).double().numpy()
        histograms[owner] = histograms.get(owner, 0) + counts

    _run(_Recorder(graph, sharing, see), calibration)
    return histograms
