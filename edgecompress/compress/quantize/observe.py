"""Activation ranges from calibration data: smallest and largest value, or least squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from edgecompress.compress.layers import kind_of
from edgecompress.compress.quantize.sharing import Sharing

Observer = Literal["mse", "minmax"]

_BINS = 2048
_SHRINK = np.linspace(0.3, 1.0, 71)


@dataclass(frozen=True)
class Affine:
    """real = scale * (stored - zero_point), stored in int8 [-128, 127]."""

    scale: np.float32
    zero_point: int

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """Round half to even, saturate: the ONNX QuantizeLinear rule. Returns float of integers."""
        stored = np.rint(values / np.float64(self.scale)) + self.zero_point
        return np.clip(stored, -128, 127)

    def dequantize(self, stored: np.ndarray) -> np.ndarray:
        return (stored - self.zero_point) * np.float64(self.scale)


SOFTMAX = Affine(np.float32(1 / 256), -128)


def affine_from_range(low: float, high: float) -> Affine:
    """Asymmetric int8 for [low, high], widened to contain 0 so that padding is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    # Below this a float32 scale product would lose precision or vanish; the tensor is all zeros.
    span = max(high - low, 1e-6)
    scale = np.float32(span / 255)
    zero_point = int(np.clip(np.rint(-128 - low / np.float64(scale)), -128, 127))
    return Affine(scale, zero_point)


def observe(
    graph: torch.fx.GraphModule, sharing: Sharing, calibration: np.ndarray, observer: Observer
) -> dict[torch.fx.Node, Affine]:
    """The scale and zero point of every tensor of `sharing`; tensors of one owner get the same.

    The range of an owner is that of all its tensors together. Model input and output keep their
    whole range (the input is what the device is given, the output's order is the answer); softmax
    is always 1/256, -128. "mse" narrows the others where clipping a rare value costs less squared
    error than the finer step wins.

    Args:
        calibration: [N, ...] float32.
    """
    ranges = _ranges(graph, sharing, calibration)
    histograms = _histograms(graph, sharing, calibration, ranges) if observer == "mse" else {}
    result: dict[torch.fx.Node, Affine] = {}
    fixed = _whole_range_owners(sharing)
    for node in sharing.tensors:
        owner = sharing.owner[node]
        if owner in result:
            continue
        if kind_of(owner) == "softmax":
            result[owner] = SOFTMAX
        elif owner in fixed or owner not in histograms:
            result[owner] = affine_from_range(*ranges[owner])
        else:
            result[owner] = _least_squared_error(*ranges[owner], histograms[owner])
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

    def __init__(self, graph: torch.fx.GraphModule, sharing: Sharing, see: Any) -> None:
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


def _least_squared_error(low: float, high: float, histogram: np.ndarray) -> Affine:
    """The best of 71 shrunken ranges by squared error at the bins' centres."""
    edges = np.linspace(low, high, _BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    best, least = affine_from_range(low, high), np.inf
    for factor in _SHRINK[::-1]:
        candidate = affine_from_range(low * factor, high * factor)
        error = centres - candidate.dequantize(candidate.quantize(centres))
        total = float(np.sum(histogram * error * error))
        if total < least:
            best, least = candidate, total
    return best
