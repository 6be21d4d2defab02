from __future__ import annotations

import numpy as np
from operators import assert_host_is_twin, random_int8

from edgecompress.lower.kernels.pad import Pad

KERNELS = [
    Pad((1, 3, 4, 5), (0, 1, 2, 0), (0, 0, 1, 3), -7),
    Pad((1, 3, 4, 5), (0, 0, 0, 0), (0, 0, 0, 0), -7),
    Pad((1, 3), (0, 1), (0, 0), 127),
]


def test_host_is_twin() -> None:
    assert_host_is_twin([(kernel, [random_int8(*kernel.shape)], []) for kernel in KERNELS])


def test_the_middle_is_the_input_and_the_rest_the_fill() -> None:
    x = random_int8(1, 3, 4, 5)
    padded = KERNELS[0].reference(x)
    assert padded.shape == (1, 4, 7, 8)
    np.testing.assert_array_equal(padded[:, 1:, 2:6, :5], x)
    assert (padded == -7).sum() - (x == -7).sum() == padded.size - x.size
