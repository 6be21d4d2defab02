"""MVE pooling and mean: bit-exact to the numpy twin on QEMU's Cortex-M55."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mve_board import check, needs_qemu
from mve_cases import Case, pool_cases

from edgecompress.lower.isa.mve.pooling import PoolGenerator


@needs_qemu
@given(cases=st.lists(pool_cases(), min_size=30, max_size=30))
@settings(max_examples=2, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_pooling(cases: list[Case]) -> None:
    check([PoolGenerator()], cases)
