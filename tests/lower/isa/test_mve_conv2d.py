"""MVE convolutions and dense layers: bit-exact to the numpy twin on QEMU's Cortex-M55."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mve_board import check, needs_qemu
from mve_cases import Case, conv2d_add_cases, conv2d_cases, dense_cases

from edgecompress.lower.isa.mve.conv2d import ConvolutionGenerator


@needs_qemu
@given(cases=st.lists(conv2d_cases(), min_size=24, max_size=24))
@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_convolution(cases: list[Case]) -> None:
    check([ConvolutionGenerator()], cases)


@needs_qemu
@given(cases=st.lists(dense_cases(), min_size=12, max_size=12))
@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_dense(cases: list[Case]) -> None:
    check([ConvolutionGenerator()], cases)


@needs_qemu
@given(cases=st.lists(conv2d_add_cases(), min_size=16, max_size=16))
@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_convolution_with_residual(cases: list[Case]) -> None:
    check([ConvolutionGenerator()], cases)
