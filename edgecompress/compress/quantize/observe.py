"""Activation scales from calibration data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from edgecompress.compress.layers import kind_of
from edgecompress.compress.quantize.affine import Affine, affine_from_range, softmax_affine
from edgecompress.compress.quantize.options import QuantizeOptions
from edgecompress.compress.quantize.ranges import choose
from edgecompress.compress.quantize.sharing import Sharing
from edgecompress.errors import BadData

_BINS = 2048
_KEPT_BYTES = 1 << 28
"""Of tensors from the first pass over calibration data: 256 MiB."""


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

    Raises:
        BadData: a tensor holds infinity or NaN.
    """
    clips = options.observer != "minmax"
    first = _FirstPass(room_bytes=_KEPT_BYTES if clips else 0)
    ranges = first.ranges(graph, sharing, calibration)
    histograms = _histograms(graph, sharing, calibration, ranges, first) if clips else {}
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


def _batches(calibration: np.ndarray) -> tuple[torch.Tensor, ...]:
    return torch.from_numpy(np.ascontiguousarray(calibration, np.float32)).split(64)


@dataclass
class _FirstPass:
    """Finds ranges and keeps what the first batches' tensors held, as far as there is room: a
    second pass, for the histograms, is then for the other samples only."""

    room_bytes: int
    values: list[tuple[torch.fx.Node, torch.Tensor]] = field(default_factory=list)
    samples: int = 0

    def ranges(
        self, graph: torch.fx.GraphModule, sharing: Sharing, calibration: np.ndarray
    ) -> dict[torch.fx.Node, tuple[float, float]]:
        ranges: dict[torch.fx.Node, tuple[float, float]] = {}
        keeping = self.room_bytes > 0
        made: list[tuple[torch.fx.Node, torch.Tensor]] = []

        def see(owner: torch.fx.Node, value: torch.Tensor) -> None:
            low, high = ranges.get(owner, (0.0, 0.0))
            least, most = value.min().item(), value.max().item()
            if not math.isfinite(least + most):
                raise _not_finite(owner, calibration)
            ranges[owner] = min(low, least), max(high, most)
            if keeping:
                made.append((owner, value.clone()))  # a later layer may work in place

        recorder = _Recorder(graph, sharing, see)
        with torch.no_grad():
            for batch in _batches(calibration):
                recorder.run(batch)
                size = sum(value.nbytes for _, value in made)
                keeping = keeping and size <= self.room_bytes
                if keeping:
                    self.room_bytes -= size
                    self.values += made
                    self.samples += len(batch)
                made.clear()
        return ranges


def _not_finite(owner: torch.fx.Node, calibration: np.ndarray) -> BadData:
    return BadData(
        f"The model's tensor {owner.name} holds infinity or NaN on calibration data, whose values "
        f"reach {np.abs(calibration).max():.3g}: no scale can store it.",
        next_step="Scale the data as it was for training, or look for such weights in the model.",
    )


def _histograms(
    graph: torch.fx.GraphModule,
    sharing: Sharing,
    calibration: np.ndarray,
    ranges: dict[torch.fx.Node, tuple[float, float]],
    first: _FirstPass,
) -> dict[torch.fx.Node, np.ndarray]:
    histograms: dict[torch.fx.Node, np.ndarray] = {}

    def see(owner: torch.fx.Node, value: torch.Tensor) -> None:
        low, high = ranges[owner]
        if high <= low:
            return
        counts = torch.histc(value.float(), _BINS, low, high).double().numpy()
        histograms[owner] = histograms.get(owner, 0) + counts

    for owner, value in first.values:
        see(owner, value)
    recorder = _Recorder(graph, sharing, see)
    with torch.no_grad():
        for batch in _batches(calibration[first.samples :]):
            if len(batch):
                recorder.run(batch)
    return histograms
