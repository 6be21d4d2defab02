"""MVE convolutions and dense layers: bit-exact to the numpy twin on QEMU's Cortex-M55."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mve_board import Call, needs_qemu, run
from mve_cases import Case, conv2d_cases, dense_cases

from edgecompress.lower.isa.mve.conv2d import ConvolutionGenerator

_GENERATOR = ConvolutionGenerator()


def _check(cases: list[Case]) -> None:
    calls = []
    for kernel, activations, constants in cases:
        (implementation,) = _GENERATOR.implement(kernel, tuple(constants))
        calls.append(Call(implementation, activations, kernel.output_shape))
    for (kernel, activations, constants), result in zip(cases, run(calls), strict=True):
        expected = kernel.reference(*activations, *constants)
        np.testing.assert_array_equal(result.output, expected, err_msg=str(kernel))


@needs_qemu
@given(cases=st.lists(conv2d_cases(), min_size=24, max_size=24))
@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_convolution(cases: list[Case]) -> None:
    _check(cases)


@needs_qemu
@given(cases=st.lists(dense_cases(), min_size=12, max_size=12))
@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_dense(cases: list[Case]) -> None:
    _check(cases)
