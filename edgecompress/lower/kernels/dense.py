"""int8 fully connected layer by constant weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import relax, te

from edgecompress.lower.kernels.interface import CannotMatch, Match
from edgecompress.lower.kernels.loops import tile_output_channels, tile_width
from edgecompress.lower.kernels.requant import Requantize
from edgecompress.lower.kernels.weighted import channel_scale, find_weighted, fold_constants

if TYPE_CHECKING:
    from edgecompress.lower.passes.graph import Graph


@dataclass(frozen=True)
class Dense:
    """y[..., o] = requantize(bias[o] + sum_k x[..., k] * w[o, k]).

    Arguments: x int8 [..., K]; weights int8 [O, K]; bias int32 [O] with the input zero point folded
    in; the requantization tables [O]. Output int8 [..., O].
    """

    input_shape: tuple[int, ...]
    output_channels: int
    requantize: Requantize
    op: str = "dense"

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (*self.input_shape[:-1], self.output_channels)

    @property
    def macs(self) -> int:
        return int(np.prod(self.input_shape)) * self.output_channels

    def compute(self, x: Any, weights: Any, bias: Any, *tables: Any) -> Any:
        k = te.reduce_axis((0, self.input_shape[-1]), "input")

        def accumulate(*at: Any) -> Any:
            value = x(*at[:-1], k).astype("int32")
            return te.sum(value * weights[at[-1], k].astype("int32"), [k])

        shape = self.output_shape
        accumulator = te.compute(shape, accumulate, name="accumulator")
        # its own stage: otherwise the cast to int64 is pushed through the addition
        biased = te.compute(shape, lambda *at: accumulator(*at) + bias[at[-1]], name="biased")
        return te.compute(
            shape,
            lambda *at: self.requantize.compute(biased(*at), tables, at[-1]),
            name="output",
        )

    def schedule(self, schedule: Any, function_name: str) -> None:
        tile_output_channels(schedule, function_name, tile_width(self.output_channels))

    def reference(
        self, x: np.ndarray, weights: np.ndarray, bias: np.ndarray, *tables: np.ndarray
    ) -> np.ndarray:
        total = x.astype(np.int64) @ weights.astype(np.int64).T + bias
        return self.requantize.reference(total, *tables)


def match(graph: Graph, value: relax.Var) -> Match | None:
    """`matmul` of an activation by constant 2-D weights, as both importers write it."""
    layer = find_weighted(graph, value, "matmul")
    if layer is None:
        return None
    if layer.weights.values.ndim != 2:
        raise CannotMatch(f"its weights have {layer.weights.values.ndim} axes, not 2")
    if graph.is_image(layer.call.args[0]):
        raise CannotMatch("it multiplies the last axis of an NCHW tensor")
    weights = layer.weights.values.T
    order = graph.storage_order(layer.x.value)
    if order is not None:  # the device stores this flattened image in NHWC order
        weights = weights[:, order]
    weights = np.ascontiguousarray(weights)
    channels = weights.shape[0]
    scale = channel_scale(layer.weights.scale, channels, axes=(1,))
    constants = fold_constants(graph, layer, weights, scale, form="single")
    kernel = Dense(graph.device_shape(layer.x.value), channels, constants.requantize)
    return Match(kernel, (layer.x.value,), (weights, constants.bias, *constants.tables))
