"""From a histogram of a tensor's values to the range its integers cover.

    minmax       all of it
    percentile   all but the rarest values on either side of zero
    mse          least squared error of rounding and clipping together
    entropy      least information lost: KL divergence between the values' distribution and the one
                 the integers can tell apart (Migacz, "8-bit Inference with TensorRT", GTC 2017)

mse and entropy try 71 ranges from the whole one to 0.3 of it, both ends shrunk alike. Too few
values make no distribution: entropy leaves such a tensor its whole range.
"""

from __future__ import annotations

import numpy as np

from edgecompress.compress.quantize.affine import Affine, affine_from_range
from edgecompress.compress.quantize.options import QuantizeOptions

SHRINK = np.linspace(1.0, 0.3, 71)

_LEAST_COUNT = 4
"""Values a bin, on average; with fewer the divergence is that of the sampling."""


def choose(low: float, high: float, histogram: np.ndarray, options: QuantizeOptions) -> Affine:
    """The scale for values counted in equal bins over [low, high], low <= 0 <= high.

    Args:
        histogram: [bins] counts, not all zero.
    """
    if options.observer == "minmax":
        return _affine(low, high, options)
    if options.observer == "percentile":
        return _affine(*_percentile_range(low, high, histogram, options.percentile), options)
    edges = np.linspace(low, high, len(histogram) + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    lost = _squared_error
    if options.observer == "entropy":
        if histogram.sum() < _LEAST_COUNT * len(histogram):
            return _affine(low, high, options)
        lost, histogram = _divergence, without_zeros(histogram, low, high)
    best, least = _affine(low, high, options), np.inf
    for factor in SHRINK:
        candidate = _affine(low * factor, high * factor, options)
        total = lost(centres, histogram, candidate)
        if total < least:
            best, least = candidate, total
    return best


def without_zeros(histogram: np.ndarray, low: float, high: float) -> np.ndarray:
    """The bin of zero filled like its neighbours.

    Zero is stored exactly whatever the range, but where a ReLU puts half of all values into one
    bin, that bin alone would decide.
    """
    zero = min(int(len(histogram) * -low / (high - low)), len(histogram) - 1)
    around = [one for one in (zero - 1, zero + 1) if 0 <= one < len(histogram)]
    smoothed = histogram.copy()
    smoothed[zero] = np.mean(histogram[around]) if around else histogram[zero]
    return smoothed if smoothed.any() else histogram


def _affine(low: float, high: float, options: QuantizeOptions) -> Affine:
    symmetric = options.symmetric_activations
    return affine_from_range(low, high, bits=options.activation_bits, symmetric=symmetric)


def _percentile_range(
    low: float, high: float, histogram: np.ndarray, percentile: float
) -> tuple[float, float]:
    """Values up to `percentile` of the positive ones, and likewise of the negative ones."""
    edges = np.linspace(low, high, len(histogram) + 1)
    found = []
    for side in (-1, 1):
        outer = np.abs(edges[:-1] if side < 0 else edges[1:])
        members = (edges[:-1] < 0) if side < 0 else (edges[1:] > 0)
        order = np.argsort(outer[members])
        counts = np.cumsum(histogram[members][order])
        if len(counts) == 0 or counts[-1] == 0:
            found.append(0.0)
            continue
        index = int(np.searchsorted(counts, counts[-1] * percentile / 100 * (1 - 1e-12)))
        found.append(side * float(outer[members][order][index]))
    return found[0], found[1]


def _squared_error(centres: np.ndarray, histogram: np.ndarray, affine: Affine) -> float:
    error = centres - affine.dequantize(affine.quantize(centres))
    return float(np.sum(histogram * error * error))


def _divergence(centres: np.ndarray, histogram: np.ndarray, affine: Affine) -> float:
    """KL(P || Q) in nats over the bins inside the range.

    P is the histogram with what lies outside added to the outermost bins inside. Q spreads the
    count of each integer, without what lies outside, evenly over those of its bins that hold
    anything; so both rounding and clipping cost.
    """
    low, high = affine.dequantize(np.array([affine.lowest, affine.highest]))
    half = float(affine.scale) / 2
    inside = np.flatnonzero((centres >= low - half) & (centres <= high + half))
    first, last = inside[0], inside[-1]
    counts = histogram[first : last + 1].astype(np.float64)
    reference = counts.copy()
    reference[0] += histogram[:first].sum()
    reference[-1] += histogram[last + 1 :].sum()
    stored = (affine.quantize(centres[first : last + 1]) - affine.lowest).astype(np.int64)
    filled = counts > 0
    totals = np.bincount(stored, counts)
    members = np.bincount(stored, filled.astype(np.float64))
    spread = np.where(filled, totals[stored] / np.maximum(members[stored], 1), 0)
    occupied = reference > 0
    p = reference[occupied] / reference.sum()
    # An outermost bin that held nothing itself still has to stand for what was clipped.
    q = np.maximum(spread[occupied], 1e-4) / max(float(spread.sum()), 1e-4)
    return float(np.sum(p * np.log(p / q)))
