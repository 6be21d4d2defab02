"""MVE residual addition: bit-exact to the numpy twin on QEMU's Cortex-M55, also in place."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mve_board import check, needs_qemu
from mve_cases import Case, addition_cases

from edgecompress.lower.isa.mve.add import AddGenerator
from edgecompress.lower.kernels.add import Add, litert_rounding, single_rounding


@needs_qemu
@given(cases=st.lists(addition_cases(), min_size=16, max_size=16))
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_addition(cases: list[Case]) -> None:
    check([AddGenerator()], cases)


def test_refusals() -> None:
    scales, zero_points = (0.1, 0.2, 0.3), (0, 1, 2)
    single = single_rounding(scales, zero_points)
    generator = AddGenerator()
    assert len(generator.implement(Add((1, 8), (1, 8), single), ())) == 1
    assert generator.implement(Add((1, 8), (1, 1), single), ()) == []
    assert generator.implement(Add((1, 8), (1, 8), single), (np.zeros((1, 8), np.int8),)) == []
    litert = litert_rounding(scales, zero_points)
    assert generator.implement(Add((1, 8), (1, 8), litert), ()) == []
