"""Fixed-point arithmetic of LiteRT's reference kernels, written once for numpy and for TE.

Every function takes numpy int32 arrays or TE int32 expressions alike (both know `astype`, `+`, `*`,
`>>`), so a kernel and its twin share the formula. Formulas: gemmlowp `fixedpoint.h` and LiteRT
`kernels/internal/common.h`. A value in Qm.n is a 32-bit integer worth raw / 2^n, m + n = 31.
"""

from __future__ import annotations

from typing import Any

import numpy as np

INT32_MAX = 2**31 - 1


def quantize_multiplier(real: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
    """Splits real >= 0 into `mantissa * 2^(exponent - 31)`, mantissa int32 in [2^30, 2^31).

    LiteRT's `QuantizeMultiplier`. Works elementwise; zero gives (0, 0).
    """
    fraction, exponent = np.frexp(np.asarray(real, np.float64))
    mantissa = np.floor(fraction * 2.0**31 + 0.5).astype(np.int64)
    rounded_up = mantissa == 2**31
    mantissa = np.where(rounded_up, 2**30, mantissa)
    exponent = np.where(rounded_up, exponent + 1, exponent)
    return mantissa.astype(np.int32), np.asarray(exponent, np.int32)


def doubling_high_multiply(a: Any, b: Any) -> Any:
    """round(a * b / 2^31), half up: gemmlowp's `SaturatingRoundingDoublingHighMul`.

    gemmlowp writes trunc((ab + (ab >= 0 ? 2^30 : 1 - 2^30)) / 2^31), the same number; this form
    uses `ab` once, which keeps TIR simplification fast. a = b = -2^31 is outside the domain.
    """
    wide_b = b if isinstance(b, int) else b.astype("int64")
    return ((a.astype("int64") * wide_b + 2**30) >> 31).astype("int32")


def rounding_shift_right(value: Any, bits: int) -> Any:
    """value / 2^bits rounded half away from zero: gemmlowp's `RoundingDivideByPOT`.

    Needs |value| + 2^(bits - 1) < 2^31.
    """
    if bits == 0:
        return value
    return (value + ((1 << (bits - 1)) + (value >> 31))) >> bits


def multiply_by_quantized_multiplier(value: Any, mantissa: int, exponent: int) -> Any:
    """value * mantissa * 2^(exponent - 31), rounded twice: LiteRT's function of the same name."""
    left, right = max(exponent, 0), max(-exponent, 0)
    shifted = value << left if left else value
    return rounding_shift_right(doubling_high_multiply(shifted, mantissa), right)


def _saturating_shift_left(raw: np.ndarray, bits: int) -> np.ndarray:
    return np.clip(raw.astype(np.int64) << bits, -(2**31), INT32_MAX).astype(np.int32)


def _exp_minus_quarter_to_zero(raw: np.ndarray) -> np.ndarray:
    """exp(x) in Q0.31 for x in [-1/4, 0) in Q0.31: Taylor series around -1/8, fourth power."""
    exp_minus_eighth, one_third = 1895147668, 715827883
    x = raw + np.int32(1 << 28)
    square = doubling_high_multiply(x, x)
    cube = doubling_high_multiply(square, x)
    fourth = doubling_high_multiply(square, square)
    tail = doubling_high_multiply(rounding_shift_right(fourth, 2) + cube, one_third) + square
    series = x + rounding_shift_right(tail, 1)
    return np.int32(exp_minus_eighth) + doubling_high_multiply(series, exp_minus_eighth)


def exp_of_negative(raw: np.ndarray, integer_bits: int = 5) -> np.ndarray:
    """exp(x) in Q0.31 for int32 x <= 0 in Q`integer_bits`: gemmlowp's `exp_on_negative_values`."""
    fractional_bits = 31 - integer_bits
    quarter = 1 << (fractional_bits - 2)
    folded = (raw & np.int32(quarter - 1)) - np.int32(quarter)
    result = _exp_minus_quarter_to_zero(_saturating_shift_left(folded, integer_bits))
    remainder = folded - raw
    # exp(-2^k) in Q0.31, k = -2 .. 4
    factors = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
    for power, factor in zip(range(-2, 5), factors, strict=True):
        if integer_bits > power:
            present = (remainder & np.int32(1 << (fractional_bits + power))) != 0
            result = np.where(present, doubling_high_multiply(result, factor), result)
    return np.where(raw == 0, np.int32(INT32_MAX), result).astype(np.int32)


def reciprocal_of_one_plus(raw: np.ndarray) -> np.ndarray:
    """1 / (1 + x) in Q0.31 for x in [0, 1) in Q0.31: three Newton-Raphson steps in Q2.29.

    gemmlowp's `one_over_one_plus_x_for_x_in_0_1`; `softmax.py` has the same steps in TE.
    """
    half = half_of_one_plus(raw)
    x = doubling_high_multiply(half, NEWTON_SLOPE) + np.int32(NEWTON_START)
    for _ in range(3):
        error = np.int32(1 << 29) - doubling_high_multiply(half, x)
        x = x + _saturating_shift_left(doubling_high_multiply(x, error), 2)
    return _saturating_shift_left(x, 1)


# 48/17 and -32/17 in Q2.29: the line closest to 1/x on [1/2, 1]
NEWTON_START = 1515870810
NEWTON_SLOPE = -1010580540


def half_of_one_plus(raw: Any) -> Any:
    """(1 + x) / 2 in Q0.31 for x >= 0 in Q0.31, one being 2^31 - 1: `RoundingHalfSum(x, One)`."""
    return ((raw.astype("int64") + 2**31) >> 1).astype("int32")


def input_radius(integer_bits: int, left_shift: int) -> int:
    """Largest |x| that stays in Q`integer_bits` after `left_shift`: LiteRT CalculateInputRadius."""
    return int((2**integer_bits - 1) * 2 ** (31 - integer_bits) / 2**left_shift)
