"""The DSP convolution against the numpy twin on Cortex-M4, M7 and M33."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from board import CORES, Board
from conv_cases import Case, added, check, convolution, convolutions
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from edgecompress.lower.isa.dsp.conv2d import Conv2DGenerator
from edgecompress.lower.isa.dsp.tile import forms
from edgecompress.lower.kernels.conv2d import Window

GENERATOR = Conv2DGenerator()
SAME = (1, 1, 1, 1)


@given(
    cases=st.lists(convolutions(), min_size=12, max_size=12),
    core=st.sampled_from(CORES),
    pick=st.integers(0, 23),
)
@settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],
)  # fmt: skip
def test_every_kind_is_exact(cases: list[Case], core: str, pick: int):
    check(cases, [GENERATOR], core, pick=pick)


@pytest.mark.parametrize(
    ("window", "outputs", "groups"),
    [
        (Window((1, 6, 5, 16), (3, 3), (1, 1), SAME), 4, 1),
        (Window((1, 7, 5, 8), (3, 3), (2, 2), (0, 0, 1, 1)), 6, 1),
        (Window((1, 8, 8, 8), (1, 1), (2, 2)), 6, 1),
        (Window((1, 6, 7, 3), (3, 3), (2, 1), (1, 2, 0, 1)), 6, 1),
        (Window((1, 6, 7, 3), (3, 2)), 5, 1),
        (Window((1, 5, 9, 8), (3, 3), (1, 1), (2, 2, 2, 2), (2, 3)), 4, 2),
        (Window((1, 5, 5, 4), (5, 5)), 10, 1),
        (Window((1, 2, 1, 4), (3, 3), (1, 1), SAME), 2, 1),
    ],
)
def test_every_offer_is_exact(window, outputs, groups):
    offers = check([convolution(window, outputs, groups=groups)], [GENERATOR], "cortex-m4")[0]
    assert len(offers) >= 3


def test_sums_in_place_over_what_they_are_added_to():
    """10 pixels in groups of 3: the last group must not add a pixel twice."""
    case = added(convolution(Window((1, 2, 5, 4), (3, 3), (1, 1), SAME), 6))
    offer = GENERATOR.implement(case.kernel, case.constants)[0]
    assert offer.in_place_arguments == (1,)
    x, other = case.activations
    # the board lays an output over its first activation: here what is added comes first
    swapped = replace(
        offer, symbol="swapped",
        assembly={**offer.assembly, "swapped": _swapping(offer.symbol)},
    )  # fmt: skip
    outcome = Board([swapped]).run(0, [other, x], case.expected.shape, overlap=0)
    np.testing.assert_array_equal(outcome.output, case.expected)


def _swapping(symbol: str) -> str:
    return (
        '    .section .text.model_kernels.swapped, "ax", %progbits\n    .global swapped\n'
        "    .type swapped, %function\n    .thumb_func\nswapped:\n"
        f"    mov r12, r0\n    mov r0, r1\n    mov r1, r12\n    b.w {symbol}\n"
    )


@pytest.mark.parametrize(
    ("window", "outputs", "limit"),
    [
        # the shapes of MLPerf Tiny's ResNet-8
        (Window((1, 16, 16, 16), (3, 3), (1, 1), SAME), 16, 0.92),
        (Window((1, 8, 8, 32), (3, 3), (1, 1), SAME), 32, 0.83),
        (Window((1, 8, 8, 64), (3, 3), (1, 1), SAME), 64, 0.80),
        (Window((1, 16, 16, 32), (3, 3), (2, 2), (0, 0, 1, 1)), 64, 0.81),
    ],
)
def test_instructions_for_a_multiplication(window, outputs, limit):
    case = convolution(window, outputs)
    offers = GENERATOR.implement(case.kernel, case.constants)
    best = min(offers, key=lambda offer: offer.cost.cycles)
    outcome = Board([best]).run(0, case.activations, case.expected.shape)
    np.testing.assert_array_equal(outcome.output, case.expected)
    assert outcome.instructions <= limit * case.kernel.macs
    assert abs(outcome.instructions - best.cost.instructions) <= 0.02 * outcome.instructions


def test_sums_beyond_24_bits_take_the_plain_form():
    case = convolution(Window((1, 3, 3, 64), (3, 3)), 2, extreme=True, gain=0.01)
    weights, bias, _ = case.constants
    packed = weights.reshape(2, -1)
    assert forms(case.kernel.requantize, packed, bias) == ["plain", "single"]
    assert forms(case.kernel.requantize, packed // 4, bias) == ["pairs", "plain", "single"]
    check([case], [GENERATOR], "cortex-m7")


def test_refuses_litert_rounding_and_sums_in_groups():
    window = Window((1, 4, 4, 4), (3, 3))
    double = convolution(window, 4, form="double")
    assert GENERATOR.implement(double.kernel, double.constants) == []
    grouped = added(convolution(window, 4, groups=2))
    assert GENERATOR.implement(grouped.kernel, grouped.constants) == []
    two = convolution(replace(window, input_shape=(2, 4, 4, 4)), 4)
    assert GENERATOR.implement(two.kernel, two.constants) == []
