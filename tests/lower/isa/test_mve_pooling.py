"""MVE pooling and mean: bit-exact to the numpy twin on QEMU's Cortex-M55."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mve_board import check, needs_qemu
from mve_cases import Case, pool_cases

from edgecompress.lower.isa.mve.pooling import PoolGenerator
from edgecompress.lower.kernels.average_pool2d import AveragePool2d
from edgecompress.lower.kernels.max_pool2d import MaxPool2d
from edgecompress.lower.kernels.mean import Mean
from edgecompress.lower.kernels.pooling import Window
from edgecompress.lower.kernels.requant import Requantize


@needs_qemu
@given(cases=st.lists(pool_cases(), min_size=30, max_size=30))
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_pooling(cases: list[Case]) -> None:
    check([PoolGenerator()], cases)


@needs_qemu
def test_every_sum_of_a_large_window() -> None:
    """Division by a multiplication is exact at both ends and around every rounding."""
    window = Window((1, 4096, 1, 6), (4096, 1), (1, 1))
    x = np.full(window.input_shape, -128, np.int8)
    x[..., 1] = 127
    x[..., 2] = np.arange(4096).reshape(1, 4096, 1) % 2
    x[..., 3] = -x[..., 2]
    x[0, :, 0, 4] = np.arange(4096) < 2047
    x[0, :, 0, 5] = -(np.arange(4096) < 2049).astype(np.int8)
    (result,) = check([PoolGenerator()], [(AveragePool2d(window), [x], [])])
    assert result.output.reshape(-1).tolist() == [-128, 127, 1, -1, 0, -1]


def test_refusals() -> None:
    generator = PoolGenerator()
    assert generator.implement(MaxPool2d(Window((2, 4, 4, 4), (2, 2), (2, 2))), ()) == []
    assert generator.implement(AveragePool2d(Window((1, 80, 80, 4), (65, 65), (1, 1))), ()) == []
    padded = Window((1, 40, 40, 4), (17, 17), (1, 1), (1, 1, 1, 1))
    assert generator.implement(AveragePool2d(padded), ()) == []
    last = Mean((1, 4, 4, 8), (3,), (1, 4, 4), 0, Requantize("smmla", 0, -128, 127, shift=4))
    assert generator.implement(last, (np.ones(1, np.int32),)) == []
