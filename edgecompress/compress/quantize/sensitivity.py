"""Which layer's rounding costs the outputs most: one layer at a time in each format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from edgecompress.compress.batchnorm import fold
from edgecompress.compress.layers import input_nodes, kind_of, layer_name, module_of
from edgecompress.compress.quantize.prepared import Layer, bias_of, weighted_nodes
from edgecompress.compress.quantize.weights import make_grid, zeroed
from edgecompress.errors import BadData
from edgecompress.model.trainable import Trainable
from edgecompress.records import Record, WeightStorage

FORMATS: tuple[WeightStorage | None, ...] = (
    None,
    WeightStorage(format="int4"),
    WeightStorage(format="shared16"),
    WeightStorage(format="shared4"),
)
_BITS = {"int8": 8, "int4": 4, "shared16": 4, "shared4": 2}
_SAMPLES, _BATCH = 256, 64


class LayerSensitivity(Record):
    """What the outputs lose when one layer's weights are rounded and all else stays float.

    Attributes:
        format: "int8", "int4", "shared16", "shared4" or "sparse".
        weight_bytes: the layer's weights stored so, without scales; sparse: bitmap and values left.
        sqnr_db: 10 log10 of the outputs' energy over their error's; 200 where there is none.
        divergence: mean KL of the class distributions in nats; None where outputs are no classes.
        top1_kept_percent: inputs whose largest output stays the largest; None likewise.
    """

    layer: str
    format: str
    weight_bytes: int
    sqnr_db: float
    divergence: float | None
    top1_kept_percent: float | None


def layer_sensitivity(
    trainable: Trainable,
    calibration: np.ndarray,
    formats: Sequence[WeightStorage | None] = FORMATS,
) -> list[LayerSensitivity]:
    """One row for every convolution or dense layer and format, in execution order.

    Args:
        calibration: [N, ...] float32; at most 256 are used.
        formats: None is int8.

    Raises:
        BadData: no calibration data.
    """
    if len(calibration) == 0:
        raise BadData("Sensitivity needs at least one input.")
    graph = fold(trainable).graph
    x = torch.from_numpy(np.ascontiguousarray(calibration[:_SAMPLES], np.float32))
    last = input_nodes(next(node for node in graph.graph.nodes if node.op == "output"))[0]
    softmax = kind_of(last) == "softmax"
    exact = _outputs(graph, x)
    layers = {layer_name(node): module_of(node) for node in weighted_nodes(graph)}
    rows: list[LayerSensitivity] = []
    for name, layer in layers.items():
        assert isinstance(layer, Layer)
        for storage in formats:
            with _rounded(layer, storage):
                size = _bytes(layer, storage)
                rows.append(_row(name, storage, size, exact, _outputs(graph, x), softmax))
    return rows


@contextmanager
def _rounded(layer: Layer, storage: WeightStorage | None) -> Iterator[None]:
    """The layer's weight on its grid, for a while."""
    original = layer.weight
    weight = zeroed(original.detach().float().numpy(), storage)
    grid = make_grid(weight, bias_of(layer), np.float32(1), storage)
    layer.weight = nn.Parameter(torch.from_numpy(grid.real(grid.round(weight))))
    try:
        yield
    finally:
        layer.weight = original


def _bytes(layer: Layer, storage: WeightStorage | None) -> int:
    count = layer.weight.numel()
    if storage is not None and storage.format == "sparse":
        return -(-count // 8) + int(layer.weight.count_nonzero())
    return -(-count * _BITS["int8" if storage is None else storage.format] // 8)


def _outputs(graph: torch.fx.GraphModule, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([graph(batch) for batch in x.split(_BATCH)]).double()


def _row(
    name: str,
    storage: WeightStorage | None,
    size: int,
    exact: torch.Tensor,
    made: torch.Tensor,
    softmax: bool,
) -> LayerSensitivity:
    error = float((made - exact).square().sum())
    energy = float(exact.square().sum())
    sqnr = 200.0 if error == 0 else 10 * np.log10(max(energy, 1e-300) / error)
    divergence = kept = None
    if exact.dim() == 2 and exact.shape[1] > 1:
        ours, theirs = (
            one.clamp_min(1e-12).log() if softmax else one.log_softmax(1) for one in (made, exact)
        )
        divergence = float((theirs.exp() * (theirs - ours)).sum(1).mean())
        kept = 100.0 * float((made.argmax(1) == exact.argmax(1)).double().mean())
    return LayerSensitivity(
        layer=name,
        format="int8" if storage is None else storage.format,
        weight_bytes=size,
        sqnr_db=min(float(sqnr), 200.0),
        divergence=None if divergence is None else max(divergence, 0.0),
        top1_kept_percent=kept,
    )
