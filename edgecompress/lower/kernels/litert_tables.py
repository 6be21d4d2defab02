"""LiteRT's int8 reference algorithms for functions of one value, as tables of 256.

Each takes (input scale, input zero point, output scale, output zero point) and returns int64
[256], unclamped, for x = -128 .. 127. Sources: LiteRT kernels/internal/reference/
{requantize,leaky_relu,hard_swish}.h and activations.cc. (LOGISTIC and TANH are float tables in
LiteRT too.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgecompress.lower.kernels.fixed_point import (
    multiply_by_quantized_multiplier,
    quantize_multiplier,
    rounding_shift_right,
)

_VALUES = np.arange(-128, 128, dtype=np.int32)


def _multiplied(value: np.ndarray, real: float) -> np.ndarray:
    mantissa, exponent = quantize_multiplier(real)
    return multiply_by_quantized_multiplier(value, int(mantissa), int(exponent))


def requantize(
    input_scale: float, input_zero_point: int, output_scale: float, output_zero_point: int
) -> np.ndarray:
    """QUANTIZE from int8 to int8."""
    centred = _VALUES - np.int32(input_zero_point)
    return _multiplied(centred, input_scale / output_scale).astype(np.int64) + output_zero_point


def relu(
    input_scale: float, input_zero_point: int, output_scale: float, output_zero_point: int
) -> np.ndarray:
    """RELU and RELU6 before their bounds: QUANTIZE, but the ratio is a float32."""
    ratio = float(np.float32(input_scale) / np.float32(output_scale))
    centred = _VALUES - np.int32(input_zero_point)
    return _multiplied(centred, ratio).astype(np.int64) + output_zero_point


def leaky_relu(
    input_scale: float,
    input_zero_point: int,
    output_scale: float,
    output_zero_point: int,
    *,
    alpha: float,
) -> np.ndarray:
    """LEAKY_RELU: a multiplier for each sign, both products of float32."""
    centred = _VALUES - np.int32(input_zero_point)
    slope = np.float32(input_scale) * np.float32(alpha) / np.float32(output_scale)
    ratio = np.float32(input_scale) / np.float32(output_scale)
    positive, negative = _multiplied(centred, float(ratio)), _multiplied(centred, float(slope))
    return np.where(centred >= 0, positive, negative).astype(np.int64) + output_zero_point


def _narrow_doubling_high_multiply(a: np.ndarray, b: int) -> np.ndarray:
    """The 16-bit form, int16 in and out: round(a * b / 2^15)."""
    return (a.astype(np.int64) * b + (1 << 14)) >> 15


def _saturate16(value: np.ndarray) -> np.ndarray:
    return np.clip(value, -(2**15), 2**15 - 1)


def _narrow_multiplier(real: np.float32) -> tuple[int, int]:
    mantissa, exponent = quantize_multiplier(float(real))
    return min((int(mantissa) + (1 << 15)) >> 16, 2**15 - 1), int(exponent)


def hard_swish(
    input_scale: float, input_zero_point: int, output_scale: float, output_zero_point: int
) -> np.ndarray:
    """HARD_SWISH: 16-bit arithmetic, 7 more bits than the input."""
    high_scale = np.float32(input_scale) / np.float32(128.0)
    output_factor, output_exponent = _narrow_multiplier(high_scale / np.float32(output_scale))
    relu_factor, relu_exponent = _narrow_multiplier(high_scale / np.float32(3.0 / 32768.0))
    centred = (_VALUES.astype(np.int64) - input_zero_point) * 128
    on_output_scale = _narrow_doubling_high_multiply(centred, output_factor)
    relu_ish = centred
    if relu_exponent > 0:
        relu_ish = _saturate16(relu_ish << (relu_exponent - 1))
    relu_ish = _narrow_doubling_high_multiply(relu_ish, relu_factor)
    if relu_exponent > 0:
        relu_ish = _saturate16(relu_ish << 1)
    if relu_exponent < 0:
        relu_ish = rounding_shift_right(relu_ish, -relu_exponent)
    # from [-1, 1] to [0, 1]
    relu_ish = (relu_ish + (1 << 15)) >> 1
    # truncating toward zero here, unlike everywhere else, is LiteRT's own choice
    product = on_output_scale * relu_ish
    product = np.sign(product) * (np.abs(product) >> 15)
    return rounding_shift_right(product, -output_exponent) + output_zero_point


ALGORITHMS: dict[str, Callable[..., np.ndarray]] = {
    "requantize": requantize,
    "relu": relu,
    "nn.leakyrelu": leaky_relu,
    "hardswish": hard_swish,
}
