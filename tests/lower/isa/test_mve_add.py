"""MVE residual addition: bit-exact to the numpy twin on QEMU's Cortex-M55, also in place."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mve_board import check, needs_qemu
from mve_cases import Case, addition_cases

from edgecompress.lower.isa.mve.add import AddGenerator


@needs_qemu
@given(cases=st.lists(addition_cases(), min_size=16, max_size=16))
@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_addition(cases: list[Case]) -> None:
    check([AddGenerator()], cases)
