"""The DSP pointwise convolution against the numpy twin on Cortex-M4, M7 and M33."""

from __future__ import annotations

import numpy as np
import pytest
from board import CORES, Board
from conv_cases import Case, check, convolution, convolutions
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from edgecompress.lower.isa.dsp.pointwise import PointwiseGenerator
from edgecompress.lower.kernels.conv2d import Window

GENERATOR = PointwiseGenerator()


@given(
    cases=st.lists(convolutions(pointwise=True), min_size=10, max_size=10),
    core=st.sampled_from(CORES),
    pick=st.integers(0, 17),
)
@settings(
    max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)  # fmt: skip
def test_every_kind_is_exact(cases: list[Case], core: str, pick: int):
    check(cases, [GENERATOR], core, pick=pick)


@pytest.mark.parametrize(
    ("shape", "outputs", "bounds", "gain"),
    [
        ((1, 5, 5, 20), 6, (-128, 127), 1.0),
        ((1, 5, 5, 7), 6, (-100, 90), 1.0),
        ((1, 3, 3, 16), 5, (-128, 127), 900.0),
        ((1, 1, 2, 8), 4, (3, 127), 1.0),
    ],
)
def test_every_offer_is_exact(shape, outputs, bounds, gain):
    case = convolution(Window(shape, (1, 1)), outputs, bounds=bounds, gain=gain)
    offers = check([case], [GENERATOR], "cortex-m33")[0]
    assert len({offer.symbol for offer in offers}) == len(offers) >= 3


def test_instructions_for_a_multiplication():
    """A DS-CNN's layer: 64 channels to 64 at 25 x 5 pixels."""
    case = convolution(Window((1, 25, 5, 64), (1, 1)), 64)
    offers = GENERATOR.implement(case.kernel, case.constants)
    best = min(offers, key=lambda offer: offer.cost.cycles)
    outcome = Board([best], "cortex-m4").run(0, case.activations, case.expected.shape)
    np.testing.assert_array_equal(outcome.output, case.expected)
    assert outcome.instructions <= 0.88 * case.kernel.macs
    assert abs(outcome.instructions - best.cost.instructions) < 20
    # the last of 42 groups repeats two pixels, so the output must start two pixels early
    assert best.may_overlap_input == -2 * 64 + 64


def test_refuses_windows_strides_and_groups():
    for window, groups in (
        (Window((1, 4, 4, 4), (1, 2)), 1),
        (Window((1, 4, 4, 4), (1, 1), (2, 2)), 1),
        (Window((1, 4, 4, 4), (1, 1), (1, 1), (1, 0, 0, 0)), 1),
        (Window((1, 4, 4, 4), (1, 1)), 2),
    ):
        case = convolution(window, 4, groups=groups)
        assert GENERATOR.implement(case.kernel, case.constants) == []
