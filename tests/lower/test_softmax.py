from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import assert_host_is_twin, litert_difference, random_int8, unary_model

from edgecompress.lower.kernels.softmax import Softmax, exponential_table

SHAPES = [(1, 10), (1, 1), (3, 17), (1, 2, 3, 300), (1, 1024)]


@pytest.mark.parametrize("scale", [0.003, 0.05, 0.37, 1.7, 30.0])
@pytest.mark.parametrize("shape", [(1, 12), (1, 2, 3, 300)])
def test_both_roundings_are_litert_bit_for_bit(scale: float, shape: tuple[int, ...]) -> None:
    content = unary_model("SOFTMAX", (scale, 3), (1 / 256, -128), shape, beta=1.0)
    assert litert_difference(content, "tflite") == 0
    assert litert_difference(content, "smmla") == 0


def test_host_is_twin() -> None:
    cases = [
        (Softmax(shape), [random_int8(*shape)], [exponential_table(scale)])
        for shape in SHAPES
        for scale in (0.02, 1.5)
    ]
    tables = [exponential_table(0.1), random_int8(256, seed=9)]
    cases.append((Softmax((1, 10), rescaled=True), [random_int8(1, 10)], tables))
    assert_host_is_twin(cases)


@settings(max_examples=60, deadline=None)
@given(
    row=st.lists(st.integers(-128, 127), min_size=1, max_size=64),
    scale=st.floats(1e-3, 20.0),
)
def test_is_the_real_softmax_within_one_unit(row: list[int], scale: float) -> None:
    x = np.array([row], np.int8)
    exponential = np.exp((x.astype(np.float64) - x.max()) * scale)
    real = np.minimum(np.round(exponential / exponential.sum() * 256) - 128, 127)
    ours = Softmax(x.shape).reference(x, exponential_table(scale))
    assert np.abs(ours - real).max() <= 1


def test_one_winner_takes_all() -> None:
    x = np.full((1, 10), -128, np.int8)
    x[0, 4] = 127
    expected = np.full((1, 10), -128, np.int8)
    expected[0, 4] = 127
    ours = Softmax((1, 10)).reference(x, exponential_table(1.0))
    np.testing.assert_array_equal(ours, expected)
