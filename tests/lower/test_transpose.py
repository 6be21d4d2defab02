from __future__ import annotations

from itertools import permutations

import numpy as np
from operators import assert_host_is_twin, random_int8

from edgecompress.lower.kernels.transpose import Transpose


def test_host_is_twin() -> None:
    kernels = [Transpose((1, 3, 4, 5), (0, *order)) for order in permutations((1, 2, 3))]
    kernels += [Transpose((3, 4), (1, 0)), Transpose((2, 3, 4), (2, 0, 1))]
    assert_host_is_twin([(kernel, [random_int8(*kernel.shape)], []) for kernel in kernels])


def test_nhwc_to_nchw_is_the_order_flatten_means() -> None:
    x = random_int8(1, 3, 4, 5)
    flat = Transpose((1, 3, 4, 5), (0, 3, 1, 2)).reference(x).reshape(-1)
    for channel, row, column in [(0, 0, 0), (4, 2, 3), (2, 1, 0)]:
        assert flat[(channel * 3 + row) * 4 + column] == x[0, row, column, channel]
    assert flat.dtype == np.int8
