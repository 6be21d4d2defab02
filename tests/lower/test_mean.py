from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import assert_host_is_twin, litert_difference, mean_model, random_int8

from edgecompress.lower.kernels.mean import Mean, litert_requantize
from edgecompress.lower.kernels.requant import make_requantize


@pytest.mark.parametrize(
    ("shape", "axes", "keep", "input_parameters", "output_parameters"),
    [
        ((1, 8, 8, 16), (1, 2), False, (0.05, 3), (0.04, -5)),
        ((1, 5, 7, 16), (1, 2), True, (0.05, 3), (0.05, 3)),
        ((1, 50, 16), (1,), False, (0.05, 3), (0.01, 9)),
        ((1, 50, 16), (2,), False, (0.05, 3), (0.9, 9)),
        ((1, 3, 3, 16), (1, 2), False, (0.9, 3), (0.05, 9)),
    ],
)
def test_litert(
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    keep: bool,
    input_parameters: tuple[float, int],
    output_parameters: tuple[float, int],
) -> None:
    content = mean_model(shape, axes, keep, input_parameters, output_parameters)
    assert litert_difference(content, "tflite") == 0
    assert litert_difference(content, "smmla") <= 1


def smmla(real: float, count: int) -> tuple:
    return make_requantize(
        np.array([real / count]), form="smmla", zero_point=-4, low=-128, high=127,
        accumulator_bound=255 * count,
    )  # fmt: skip


def test_host_is_twin() -> None:
    kernels = []
    for shape, axes, output_shape in [
        ((1, 6, 6, 5), (1, 2), (1, 5)),
        ((1, 6, 6, 5), (1, 2), (1, 1, 1, 5)),
        ((1, 36, 6), (1,), (1, 6)),
        ((1, 6, 36), (2,), (1, 6)),
        ((1, 6, 6, 1), (1, 2, 3), (1,)),
    ]:
        litert = litert_requantize(1.3, 36, zero_point=4, low=-128, high=127)
        for requantize, tables in (smmla(1.3, 36), litert):
            kernel = Mean(shape, axes, output_shape, -3, requantize)
            kernels.append((kernel, [random_int8(*shape)], tables))
    assert_host_is_twin(kernels)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    zero_point=st.integers(-128, 127),
    ratio=st.floats(0.01, 3.0),
    seed=st.integers(0, 1000),
)
def test_is_the_real_mean(
    height: int, width: int, zero_point: int, ratio: float, seed: int
) -> None:
    x = random_int8(1, height, width, 3, seed=seed)
    requantize, tables = smmla(ratio, height * width)
    ours = Mean(x.shape, (1, 2), (1, 3), zero_point, requantize).reference(x, *tables)
    real = (x.astype(np.float64) - zero_point).mean((1, 2)) * ratio - 4
    # half a unit of rounding, and the multiplier's own 2^-24
    assert np.abs(ours - np.clip(real, -128, 127)).max() <= 0.5 + 1e-3
