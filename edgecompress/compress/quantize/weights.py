"""Weights to int8 in each storage format, and biases to int32."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgecompress.compress.share import nearest, share_weights
from edgecompress.records import WeightStorage

# A channel this much smaller than the largest is noise; a finer step would only make requantize
# multipliers vanish (a dead BatchNorm channel folds to weights of 1e-20 and less).
_SMALLEST_RATIO = 2.0**-20
# |bias| stays below 2^30 so that the accumulator has as much left: 2^30 / (127 * 255) > 33000
# products, more than any layer here.
BIAS_LIMIT = 2.0**30
_STARTS = tuple(np.linspace(1.0, 0.3, 16))
_REFITS = 2
_BLOCK = 1 << 16
"""Weights looked at together: what they need stays in the cache."""

LIMITS = {"int8": 127, "int4": 7}
TABLE_SIZES = {"shared16": 16, "shared4": 4}


@dataclass(frozen=True)
class WeightGrid:
    """The values a layer's weights may take: scale[c] * integer.

    Attributes:
        scale: float32 [O], above 0.
        limit: integers lie in [-limit, limit].
        levels: int8, ascending: the only integers allowed; None for all of them.
        per_channel: False where all scales are one and the file stores one.
    """

    scale: np.ndarray
    limit: int = 127
    levels: np.ndarray | None = None
    per_channel: bool = True

    def round(self, weight: np.ndarray) -> np.ndarray:
        """int8 [O, ...] nearest to the float weight (ties to even, or to the lower level)."""
        steps = weight / _column(self.scale.astype(np.float64), weight)
        if self.levels is None:
            return np.clip(np.rint(steps), -self.limit, self.limit).astype(np.int8)
        return self.levels[nearest(steps, self.levels.astype(np.float64))]

    def real(self, stored: np.ndarray) -> np.ndarray:
        """float32 [O, ...]: what DequantizeLinear makes of int8 values."""
        return stored.astype(np.float32) * _column(self.scale, stored)


def make_grid(
    weight: np.ndarray,
    bias: np.ndarray,
    input_scale: np.float32,
    storage: WeightStorage | None = None,
    *,
    per_channel: bool = True,
) -> WeightGrid:
    """The grid of least error that `storage` allows; symmetric, one scale an output channel.

    int8 and sparse: scale[c] = max|w[c]| / 127. int4: 16 scales from max|w[c]| / 7 downwards,
    each refitted by least squares, and the one of least squared error refined. shared16 and
    shared4: see `share`.
    No scale is below what lets bias[c] / (input_scale * scale[c]) fit 2^30.

    Args:
        weight: float32 [O, ...].
        bias: float32 [O].
        input_scale: of the layer's input.
        storage: None is int8.
        per_channel: False takes one scale for the whole weight.
    """
    flat = weight.reshape(len(weight) if per_channel else 1, -1).astype(np.float64)
    form = "int8" if storage is None or storage.format == "sparse" else storage.format
    levels = None
    if form in TABLE_SIZES:
        levels, scale = share_weights(flat, TABLE_SIZES[form])
    else:
        scale = np.abs(flat).max(axis=1) / LIMITS[form]
        if form != "int8":
            scale = least_error_scale(flat, scale, LIMITS[form])
    grid = WeightGrid(
        np.broadcast_to(scale, len(weight)), LIMITS.get(form, 127), levels, per_channel
    )
    return widened(grid, bias, input_scale)


def widened(grid: WeightGrid, bias: np.ndarray, input_scale: np.float32) -> WeightGrid:
    """The grid with no scale too small for its bias or beside its largest one (see above)."""
    scale = grid.scale.astype(np.float64)
    floor = scale.max() * _SMALLEST_RATIO if scale.max() > 0 else 2.0**-7
    for_bias = np.abs(bias.astype(np.float64)) / (np.float64(input_scale) * BIAS_LIMIT)
    scale = np.maximum(np.maximum(scale, floor), for_bias)
    if not grid.per_channel:
        scale = np.full_like(scale, scale.max())
    return replace(grid, scale=scale.astype(np.float32))


def least_error_scale(flat: np.ndarray, largest: np.ndarray, limit: int) -> np.ndarray:
    """float64 [O] scales of least squared rounding error for rows [O, N], near or below `largest`.

    Integers q fixed, the best scale is <w, q> / <q, q> and leaves <w, w> - <w, q>^2 / <q, q>, so
    one pass over the weights rates a start by what its refit will leave. 0 for rows of zeros.
    """
    safe = np.where(largest > 0, largest, 1.0)
    found = np.empty(len(flat))
    rows = max(1, _BLOCK // max(1, flat.shape[1]))
    for first in range(0, len(flat), rows):
        part = slice(first, first + rows)
        steps = (flat[part] / safe[part, None]).astype(np.float32)
        found[part] = _least_error_ratio(steps, limit)
    return np.where(largest > 0, found * safe, 0.0)


def _least_error_ratio(steps: np.ndarray, limit: int) -> np.ndarray:
    """float32 [O]: the factor on each row's step; rows hold weights in steps, float32 [O, N]."""
    best = np.ones(len(steps), np.float32)
    explained = np.full(len(steps), -1, np.float32)
    for start in (*_STARTS, *[None] * _REFITS):
        factor = best if start is None else np.full_like(best, start)
        chosen = steps / factor[:, None]
        np.rint(chosen, out=chosen)
        np.clip(chosen, -limit, limit, out=chosen)
        energy = np.einsum("ij,ij->i", chosen, chosen)
        along = np.einsum("ij,ij->i", steps, chosen)
        fitted = along / np.where(energy > 0, energy, 1)
        gained = along * fitted
        best = np.where((gained > explained) & (fitted > 0), fitted, best)
        explained = np.maximum(gained, explained)
    return best


def zeroed(weight: np.ndarray, storage: WeightStorage | None) -> np.ndarray:
    """The weight with at least the storage's share of zeros: its smallest magnitudes go first.

    A weight that has as many zeros already is returned as it is.
    """
    if storage is None or storage.format != "sparse":
        return weight
    wanted = int(np.ceil(storage.sparsity * weight.size))
    if np.count_nonzero(weight == 0) >= wanted:
        return weight
    result = weight.copy()
    result.ravel()[np.argsort(np.abs(weight).ravel(), kind="stable")[:wanted]] = 0
    return result


def quantize_bias(
    bias: np.ndarray, input_scale: np.float32, weight_scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """int32 [O] with the accumulator's own scale, the float32 product input_scale * weight_scale.

    Args:
        bias: float32 [O].
        weight_scale: float32 [O].
    """
    scale = (np.float32(input_scale) * weight_scale).astype(np.float32)
    return np.rint(bias.astype(np.float64) / scale.astype(np.float64)).astype(np.int32), scale


def _column(scale: np.ndarray, like: np.ndarray) -> np.ndarray:
    return scale.reshape((-1,) + (1,) * (like.ndim - 1))
