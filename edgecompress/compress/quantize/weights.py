"""Weights to int8 and biases to int32."""

from __future__ import annotations

import numpy as np

# A channel this much smaller than the largest is noise; a finer step would only make requantize
# multipliers vanish (a dead BatchNorm channel folds to weights of 1e-20 and less).
_SMALLEST_RATIO = 2.0**-20
# |bias| stays below 2^30 so that the accumulator has as much left: 2^30 / (127 * 255) > 33000
# products, more than any layer here.
_BIAS_LIMIT = 2.0**30


def quantize_weight(
    weight: np.ndarray, bias: np.ndarray, input_scale: np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric, one scale for each output channel (axis 0).

    scale[c] = max|w[c]| / 127, not below what lets bias[c] / (input_scale * scale[c]) fit 2^30.

    Args:
        weight: float32 [O, ...].
        bias: float32 [O].

    Returns:
        int8 [O, ...] in [-127, 127], and float32 [O] scales.
    """
    largest = np.abs(weight.reshape(len(weight), -1)).max(axis=1).astype(np.float64) / 127
    floor = largest.max() * _SMALLEST_RATIO if largest.max() > 0 else 2.0**-7
    for_bias = np.abs(bias.astype(np.float64)) / (np.float64(input_scale) * _BIAS_LIMIT)
    scale = np.maximum(np.maximum(largest, floor), for_bias).astype(np.float32)
    steps = weight / scale.astype(np.float64).reshape((-1,) + (1,) * (weight.ndim - 1))
    return np.clip(np.rint(steps), -127, 127).astype(np.int8), scale


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
