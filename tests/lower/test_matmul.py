from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import assert_host_is_twin, random_int8

from edgecompress.lower.kernels.matmul import Matmul
from edgecompress.lower.kernels.requant import make_requantize


def requantization(real: float, inner: int, form: str) -> tuple:
    return make_requantize(
        np.array([real]), form=form, zero_point=3, low=-128, high=127,
        accumulator_bound=255 * 255 * inner,
    )  # fmt: skip


def test_host_is_twin() -> None:
    kernels = []
    for form in ("smmla", "single", "double"):
        requantize, tables = requantization(0.0011, 7, form)
        for batch in [(), (2,), (1, 3)]:
            kernel = Matmul(batch, 5, 7, 6, (4, -7), requantize)
            operands = [random_int8(*batch, 5, 7), random_int8(*batch, 7, 6, seed=2)]
            kernels.append((kernel, operands, tables))
    assert_host_is_twin(kernels)


@settings(max_examples=60, deadline=None)
@given(
    inner=st.integers(1, 64),
    zero_points=st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
    real=st.floats(1e-5, 1e-2),
)
def test_is_the_real_product(inner: int, zero_points: tuple[int, int], real: float) -> None:
    requantize, tables = requantization(real, inner, "smmla")
    a, b = random_int8(4, inner), random_int8(inner, 3, seed=2)
    ours = Matmul((), 4, inner, 3, zero_points, requantize).reference(a, b, *tables)
    product = (a.astype(np.float64) - zero_points[0]) @ (b.astype(np.float64) - zero_points[1])
    exact = np.clip(product * real + 3, -128, 127)
    assert np.abs(ours - exact).max() <= 0.5 + 1e-3
