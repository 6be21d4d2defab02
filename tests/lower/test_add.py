from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litert import RELU, RELU6
from operators import assert_host_is_twin, binary_model, litert_difference, random_int8

from edgecompress.lower.kernels.add import Add, litert_rounding, single_rounding
from edgecompress.lower.kernels.interface import CannotMatch
from edgecompress.lower.kernels.multiply import Multiply
from edgecompress.lower.kernels.requant import make_requantize

FIRST, SECOND = (0.05, 3), (0.02, -9)
CONSTANTS = {
    "none": None,
    "channel": random_int8(4),
    "one": random_int8(1, 1, 1, 1),
    "whole": random_int8(1, 8, 8, 4),
}


@pytest.mark.parametrize("constant", CONSTANTS)
@pytest.mark.parametrize("activation", [0, RELU, RELU6])
@pytest.mark.parametrize(
    ("name", "scale"), [("ADD", 0.06), ("ADD", 0.003), ("MUL", 0.013), ("MUL", 0.0005)]
)
def test_litert(name: str, scale: float, activation: int, constant: str) -> None:
    content = binary_model(name, FIRST, SECOND, (scale, -5), activation, CONSTANTS[constant])
    assert litert_difference(content, "tflite", samples=10) == 0
    assert litert_difference(content, "smmla", samples=10) <= 1


def test_host_is_twin() -> None:
    shape, x = (1, 4, 4, 8), random_int8(1, 4, 4, 8)
    kernels = []
    for make in (single_rounding, litert_rounding):
        rounding = make((0.05, 0.03, 0.06), (3, -4, 5))
        for other in (shape, (1, 1, 1, 8), (1, 1, 1, 1)):
            kernels.append((Add(shape, other, rounding, 0, 127), [x, random_int8(*other)], []))
    for form in ("smmla", "double"):
        requantize, tables = make_requantize(
            np.array([0.011]), form=form, zero_point=3, low=-128, high=127,
            accumulator_bound=255 * 255,
        )  # fmt: skip
        for other in (shape, (1, 1, 1, 8)):
            kernel = Multiply(shape, other, (4, -7), requantize)
            kernels.append((kernel, [x, random_int8(*other)], tables))
    assert_host_is_twin(kernels)


_scales = st.floats(1e-3, 0.5)
_zero_points = st.integers(-128, 127)


@settings(max_examples=100, deadline=None)
@given(
    scales=st.tuples(_scales, _scales, _scales),
    zero_points=st.tuples(_zero_points, _zero_points, _zero_points),
)
def test_single_rounding_is_the_real_sum(
    scales: tuple[float, float, float], zero_points: tuple[int, int, int]
) -> None:
    """Within a unit of the exact sum for every pair of values; no 32-bit sum overflows."""
    x, y = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))
    try:
        rounding = single_rounding(scales, zero_points)
    except CannotMatch:
        assert max(scales[:2]) / scales[2] > 100
        return
    wide = x * rounding.factors[0] + y * rounding.factors[1] + rounding.offset
    assert np.abs(wide).max() < 2**31
    real = (scales[0] * (x - zero_points[0]) + scales[1] * (y - zero_points[1])) / scales[2]
    exact = np.clip(np.floor(real + zero_points[2] + 0.5), -128, 127)
    ours = Add(x.shape, x.shape, rounding).reference(x.astype(np.int8), y.astype(np.int8))
    assert np.abs(ours - exact).max() <= 1
