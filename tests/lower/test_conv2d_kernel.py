"""conv2d: the numpy twin and the compiled kernel agree on every bit."""

from __future__ import annotations

import numpy as np
from host_kernels import HostKernels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from weighted_cases import Case, conv2d_cases


@given(cases=st.lists(conv2d_cases(), min_size=6, max_size=6))
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_twin_is_the_compiled_kernel(cases: list[Case]) -> None:
    kernels = HostKernels(cases)
    for index, (kernel, arrays) in enumerate(cases):
        expected = kernel.reference(*arrays)
        assert expected.dtype == np.int8
        assert expected.shape == kernel.output_shape
        np.testing.assert_array_equal(kernels.run(index, *arrays), expected)
