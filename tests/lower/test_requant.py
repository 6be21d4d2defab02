"""Requantization against exact arithmetic, and against LiteRT's own text."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.errors import BuildFailed
from edgecompress.lower.kernels.requant import make_requantize

REALS = st.floats(1e-7, 8.0)
ACCUMULATORS = st.integers(-(2**24), 2**24)


def requantized(form: str, real: float, accumulator: int, zero_point: int = -7) -> int:
    requantize, tables = make_requantize(
        np.array([real]), form=form, zero_point=zero_point, low=-128, high=127,
        accumulator_bound=2**24,
    )  # fmt: skip
    return int(requantize.reference(np.array([accumulator], np.int64), *tables)[0])


def exact(real: float, accumulator: int, zero_point: int = -7) -> int:
    """clamp(zero_point + round half up of the exact product)."""
    product = Fraction(real) * accumulator
    return int(np.clip((2 * product + 1).__floor__() // 2 + zero_point, -128, 127))


def litert_double(real: float, accumulator: int, zero_point: int = -7) -> int:
    """gemmlowp's SaturatingRoundingDoublingHighMul and RoundingDivideByPOT, word for word."""
    fraction, exponent = np.frexp(real)
    mantissa = int(np.floor(fraction * 2**31 + 0.5))
    if mantissa == 2**31:
        mantissa, exponent = 2**30, exponent + 1
    shifted = accumulator * (1 << max(int(exponent), 0))
    product = shifted * mantissa
    nudged = product + (2**30 if product >= 0 else 1 - 2**30)
    high = -(-nudged // 2**31) if nudged < 0 else nudged // 2**31
    right = max(-int(exponent), 0)
    mask = (1 << right) - 1
    threshold = (mask >> 1) + (1 if high < 0 else 0)
    result = (high >> right) + (1 if (high & mask) > threshold else 0)
    return int(np.clip(result + zero_point, -128, 127))


@given(real=REALS, accumulator=ACCUMULATORS)
@settings(max_examples=300, deadline=None)
def test_one_rounding_is_the_exact_rounding(real: float, accumulator: int) -> None:
    """Only a product within the multiplier's own precision of a half may go the other way."""
    for form in ("smmla", "single"):
        got, want = requantized(form, real, accumulator), exact(real, accumulator)
        assert abs(got - want) <= 1
        distance = abs((Fraction(real) * accumulator) % 1 - Fraction(1, 2))
        if distance > Fraction(abs(accumulator) + 1) * Fraction(real) * Fraction(1, 2**28):
            assert got == want


@given(real=REALS, accumulator=ACCUMULATORS)
@settings(max_examples=300, deadline=None)
def test_double_rounding_is_gemmlowp(real: float, accumulator: int) -> None:
    assert requantized("double", real, accumulator) == litert_double(real, accumulator)


@given(
    reals=st.lists(REALS, min_size=2, max_size=6),
    accumulators=st.lists(ACCUMULATORS, min_size=6, max_size=6),
)
@settings(max_examples=100, deadline=None)
def test_channels_with_different_exponents_share_one_kernel(
    reals: list[float], accumulators: list[int]
) -> None:
    requantize, tables = make_requantize(
        np.array(reals), form="double", zero_point=3, low=-128, high=127, accumulator_bound=2**24
    )
    row = np.array(accumulators[: len(reals)], np.int64)
    expected = [
        litert_double(real, accumulator, 3) for real, accumulator in zip(reals, row, strict=True)
    ]
    assert requantize.reference(row, *tables).tolist() == [int(value) for value in expected]


@pytest.mark.parametrize("form", ["smmla", "double", "single"])
def test_an_accumulator_that_may_leave_int32_is_refused(form: str) -> None:
    with pytest.raises(BuildFailed, match="limit is"):
        make_requantize(
            np.array([3.0]), form=form, zero_point=0, low=-128, high=127, accumulator_bound=2**30
        )


def test_a_multiplier_that_is_no_number_is_refused() -> None:
    with pytest.raises(BuildFailed, match="multiplier"):
        make_requantize(
            np.array([np.nan]), form="smmla", zero_point=0, low=-128, high=127, accumulator_bound=1
        )
