"""Requantization: an int32 accumulator back to int8, defined once for every weighted layer.

With real multiplier r = input_scale * weight_scale / output_scale (one per output channel),

    output = clamp(zero_point + round(accumulator * r), low, high)

in one of three integer forms:

`smmla` (the default) rounds once. With M = round(r * 2^(32 + S)) < 2^31 and a common shift S >= 1,
    ((accumulator * M) >> 32) + (zero_point << S) + 2^(S - 1)) >> S
    The floor of a floor is one floor, and adding half makes it round-half-up. It is SMMLA, ASR
    and SSAT on a Cortex-M4 or later. Example: r = 0.3 gives S = 0, which has no room for the half,
    so the accumulator is shifted left by one first and S becomes 1.

`double` is LiteRT's convolution: `SaturatingRoundingDoublingHighMul`, then `RoundingDivideByPOT`
    (gemmlowp fixedpoint.h), with r = m * 2^(e - 31). Rounds twice.

`single` is LiteRT's int8 fully connected: one 64-bit multiply, round half up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from tvm import te, tirx

from edgecompress.errors import BuildFailed
from edgecompress.lower.kernels.fixed_point import doubling_high_multiply, quantize_multiplier

INT32_LIMIT = 2**31
_MOST_SHIFT = 22  # leaves (zero_point << S) + 2^(S-1) + 2^30 below 2^31


@dataclass(frozen=True)
class Requantize:
    """One layer's requantization; the multipliers themselves are constant arguments.

    `left_shift` is applied to the accumulator ("smmla"), `shift` is S. For "double" and "single"
    a second table holds each channel's exponent e; `has_left` and `has_unit` say whether some
    channel has e > 0 (multiplier >= 1) and e >= 0 (no rounding shift), which cost instructions.
    """

    form: Literal["smmla", "double", "single"]
    zero_point: int
    low: int
    high: int
    left_shift: int = 0
    shift: int = 0
    has_left: bool = False
    has_unit: bool = False

    @property
    def table_count(self) -> int:
        return 1 if self.form == "smmla" else 2

    def compute(self, accumulator: Any, tables: tuple[Any, ...], channel: Any) -> Any:
        """TE int8 expression of one int32 accumulator of output channel `channel`."""
        if self.form == "smmla":
            value = self._smmla(accumulator, tables[0][channel])
        else:
            exponent = tables[1][channel].astype("int32")
            form = self._double if self.form == "double" else self._single
            value = form(accumulator, tables[0][channel], exponent)
        low, high = tirx.const(self.low, "int32"), tirx.const(self.high, "int32")
        return te.max(te.min(value, high), low).astype("int8")

    def reference(self, accumulator: np.ndarray, *tables: np.ndarray) -> np.ndarray:
        """The same numbers in numpy: int32 `[..., channels]` to int8, tables `[channels]`."""
        accumulator = accumulator.astype(np.int32)
        if self.form == "smmla":
            value = self._smmla(accumulator, tables[0])
        elif self.form == "double":
            value = self._double(accumulator, tables[0], tables[1].astype(np.int32))
        else:
            value = self._single(accumulator, tables[0], tables[1].astype(np.int32))
        return np.clip(value, self.low, self.high).astype(np.int8)

    # The three forms are written in operators that numpy arrays and TE expressions share, and use
    # each value once: TVM's simplifiers copy shared subexpressions and slow down steeply.

    def _smmla(self, accumulator: Any, multiplier: Any) -> Any:
        if self.left_shift:
            accumulator = accumulator << self.left_shift
        product = accumulator.astype("int64") * multiplier.astype("int64")
        high = (product >> 32).astype("int32")
        return (high + ((self.zero_point << self.shift) + (1 << (self.shift - 1)))) >> self.shift

    def _double(self, accumulator: Any, multiplier: Any, exponent: Any) -> Any:
        if self.has_left:
            accumulator = accumulator << _greater(exponent, 0)
        high = doubling_high_multiply(accumulator, multiplier)
        sign = high >> 31
        if not self.has_unit:
            right = -exponent
            return ((high + ((_one(exponent) << (right - 1)) + sign)) >> right) + self.zero_point
        # a shift by zero rounds nothing: half and sign correction vanish
        right = _greater(-exponent, 0)
        half = (_one(exponent) << right) >> 1
        return ((high + (half + sign * _smaller(right, 1))) >> right) + self.zero_point

    def _single(self, accumulator: Any, multiplier: Any, exponent: Any) -> Any:
        shift = (31 - exponent).astype("int64")
        half = _one(shift) << (shift - 1)
        product = accumulator.astype("int64") * multiplier.astype("int64")
        return ((product + half) >> shift).astype("int32") + self.zero_point


def _one(like: Any) -> Any:
    return np.ones_like(like) if isinstance(like, np.ndarray) else tirx.const(1, like.ty.dtype)


def _greater(value: Any, bound: int) -> Any:
    if isinstance(value, np.ndarray):
        return np.maximum(value, bound).astype(value.dtype)
    return te.max(value, tirx.const(bound, "int32"))


def _smaller(value: Any, bound: int) -> Any:
    if isinstance(value, np.ndarray):
        return np.minimum(value, bound).astype(value.dtype)
    return te.min(value, tirx.const(bound, "int32"))


def make_requantize(
    real: np.ndarray,
    *,
    form: Literal["smmla", "double", "single"],
    zero_point: int,
    low: int,
    high: int,
    accumulator_bound: int,
) -> tuple[Requantize, tuple[np.ndarray, ...]]:
    """The requantization of a layer and its constant tables.

    Args:
        real: multiplier of each output channel, float64 `[channels]`, not negative.
        form: see the module.
        zero_point, low, high: of the output, int8 values.
        accumulator_bound: no accumulator of the layer, on any input, is larger in magnitude.

    Raises:
        BuildFailed: a multiplier is not finite, or an accumulator may leave int32.
    """
    real = np.asarray(real, np.float64)
    if not np.isfinite(real).all() or (real < 0).any():
        raise BuildFailed(f"A requantization multiplier is {real.min()}..{real.max()}.")
    if form == "smmla":
        requantize, tables = _make_smmla(real, zero_point, low, high)
        room = INT32_LIMIT >> requantize.left_shift
    else:
        mantissa, exponent = quantize_multiplier(real)
        vanished = exponent < -31  # LiteRT's QuantizeMultiplier rounds these to zero
        mantissa = np.where(vanished, 0, mantissa).astype(np.int32)
        exponent = np.where(vanished, 0, exponent)
        most, least = int(exponent.max()), int(exponent.min())
        requantize = Requantize(form, zero_point, low, high, has_left=most > 0, has_unit=most >= 0)
        tables = (mantissa, exponent.astype(np.int8))
        rounding = (1 << max(-least - 1, 0)) + 128
        room = (INT32_LIMIT - rounding) >> max(most, 0)
    if room == 0:
        raise BuildFailed(
            f"A requantization multiplier of {real.max():.3g} leaves int32 no room: the layer's "
            "outputs were seen to be that many times smaller than what it adds up.",
            next_step="Check the scale of the calibration data against what the model was "
            "trained on.",
        )
    if accumulator_bound >= room:
        raise BuildFailed(
            f"An accumulator may reach {accumulator_bound}, the limit is {room} "
            f"(int32 with multiplier {real.max():.4g}).",
            next_step="Give the layer fewer inputs or a larger output scale.",
        )
    return requantize, tables


def _make_smmla(
    real: np.ndarray, zero_point: int, low: int, high: int
) -> tuple[Requantize, tuple[np.ndarray]]:
    largest = float(real.max())
    power = _MOST_SHIFT
    if largest > 0:
        power = min(_MOST_SHIFT, int(np.floor(-1 - np.log2(largest) - 1e-9)))
    left_shift = max(0, 1 - power)
    multiplier = np.round(real * 2.0 ** (32 + power)).astype(np.int64)
    multiplier = np.minimum(multiplier, INT32_LIMIT - 1).astype(np.int32)
    requantize = Requantize(
        "smmla", zero_point, low, high, left_shift=left_shift, shift=power + left_shift
    )
    return requantize, (multiplier,)
