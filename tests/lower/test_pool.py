from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litert import RELU, RELU6, SAME, VALID
from operators import assert_host_is_twin, litert_difference, pool_model, random_int8

from edgecompress.lower.kernels.average_pool2d import AveragePool2d
from edgecompress.lower.kernels.max_pool2d import MaxPool2d
from edgecompress.lower.kernels.pooling import Window
from edgecompress.lower.kernels.requant import make_requantize

WINDOWS = [
    Window((1, 8, 7, 3), (3, 3), (2, 2), (0, 0, 1, 1)),
    Window((1, 8, 8, 4), (2, 2), (2, 2)),
    Window((1, 5, 5, 5), (3, 2), (1, 2), (1, 1, 1, 0)),
    Window((1, 6, 6, 4), (6, 6), (1, 1)),
]


@pytest.mark.parametrize("name", ["AVERAGE_POOL_2D", "MAX_POOL_2D"])
@pytest.mark.parametrize(
    ("padding", "kernel", "stride", "activation"),
    [(SAME, 3, 2, 0), (VALID, 2, 2, RELU), (SAME, 3, 1, RELU6), (VALID, 8, 1, 0), (SAME, 2, 2, 0)],
)
def test_both_roundings_are_litert_bit_for_bit(
    name: str, padding: int, kernel: int, stride: int, activation: int
) -> None:
    content = pool_model(name, padding, kernel, stride, activation)
    assert litert_difference(content, "tflite") == 0
    assert litert_difference(content, "smmla") == 0


def test_host_is_twin() -> None:
    kernels = []
    for window in WINDOWS:
        x = random_int8(*window.input_shape)
        kernels.append((MaxPool2d(window, -100, 90), [x], []))
        for include in (False, True):
            kernels.append((AveragePool2d(window, include, 5, -100, 90), [x], []))
            for form in ("smmla", "double"):
                requantize, tables = make_requantize(
                    0.7 / np.maximum(np.arange(window.size + 1), 1),
                    form=form,
                    zero_point=3,
                    low=-128,
                    high=127,
                    accumulator_bound=256 * window.size,
                )
                kernel = AveragePool2d(window, include, 5, requantize=requantize)
                kernels.append((kernel, [x], tables))
    assert_host_is_twin(kernels)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    shape = (
        1,
        draw(st.integers(kernel[0], 9)),
        draw(st.integers(kernel[1], 9)),
        draw(st.integers(1, 5)),
    )
    strides = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    padding = tuple(draw(st.integers(0, kernel[axis % 2] - 1)) for axis in range(4))
    return Window(shape, kernel, strides, padding)


@settings(max_examples=60, deadline=None)
@given(window=windows(), include=st.booleans(), zero_point=st.integers(-128, 127))
def test_average_is_the_plain_loop(window: Window, include: bool, zero_point: int) -> None:
    """Against a loop over windows that knows nothing of strides and views."""
    x = random_int8(*window.input_shape)
    ours = AveragePool2d(window, include, zero_point).reference(x)
    largest = MaxPool2d(window).reference(x)
    _, height, width, _ = window.input_shape
    for i in range(window.output_shape[1]):
        for j in range(window.output_shape[2]):
            top = i * window.strides[0] - window.padding[0]
            left = j * window.strides[1] - window.padding[1]
            rows = range(max(top, 0), min(top + window.kernel[0], height))
            columns = range(max(left, 0), min(left + window.kernel[1], width))
            part = x[0, rows.start : rows.stop, columns.start : columns.stop].astype(int)
            part = part.reshape(-1, x.shape[3])
            total, count = part.sum(0), len(part)
            if include:
                total, count = total + zero_point * (window.size - count), window.size
            expected = np.sign(total) * np.floor(np.abs(total) / count + 0.5)
            np.testing.assert_array_equal(ours[0, i, j], expected)
            np.testing.assert_array_equal(largest[0, i, j], part.max(0))


def test_rounds_half_away_from_zero() -> None:
    window = Window((1, 1, 2, 2), (1, 2), (1, 2))
    x = np.array([[[[-1, 1], [-2, 2]]]], np.int8)
    np.testing.assert_array_equal(
        AveragePool2d(window).reference(x), np.array([[[[-2, 2]]]], np.int8)
    )
