"""Depthwise convolutions of few channels, computed as first layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from board import CORES
from conv_cases import Case, check, windows
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.lower.isa.dsp.depthwise import DepthwiseGenerator
from edgecompress.lower.isa.dsp.other_depthwise import OtherDepthwiseGenerator, spread
from edgecompress.lower.kernels.conv2d import Conv2D, Window
from edgecompress.lower.kernels.depthwise_conv2d import DepthwiseConv2D
from edgecompress.lower.kernels.requant import make_requantize

GENERATOR = OtherDepthwiseGenerator(DepthwiseGenerator())


def depthwise(
    window: Window,
    multiplier: int,
    *,
    seed: int = 0,
    gain: float = 1.0,
    zero_points: tuple[int, int] = (-3, -7),
    low: int = -128,
    form: str = "smmla",
) -> Case:
    random = np.random.default_rng(seed)
    outputs = window.input_shape[3] * multiplier
    x = random.integers(-128, 128, window.input_shape).astype(np.int8)
    weights = random.integers(-127, 128, (*window.size, outputs)).astype(np.int8)
    taps = window.size[0] * window.size[1]
    bias = random.integers(-3000, 3000, outputs).astype(np.int32)
    requantize, tables = make_requantize(
        gain * random.uniform(0.2, 1, outputs) / (70 * np.sqrt(taps)), form=form,
        zero_point=zero_points[1], low=low, high=127, accumulator_bound=128 * 127 * taps + 3000,
    )  # fmt: skip
    kernel = DepthwiseConv2D(window, multiplier, zero_points[0], requantize)
    return Case(kernel, (x,), (weights, bias, *tables))


@pytest.mark.parametrize("core", CORES)
def test_what_the_planar_generator_refuses(core: str) -> None:
    cases = [
        depthwise(Window((1, 9, 8, 1), (5, 4), (2, 2), (2, 1, 2, 2)), 8),
        depthwise(Window((1, 5, 6, 3), (3, 3), (1, 1), (1, 1, 1, 1)), 1),
        depthwise(Window((1, 5, 6, 2), (3, 3), (2, 1), (1, 1, 1, 1)), 2),
        depthwise(Window((1, 7, 6, 4), (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)), 1),
        depthwise(Window((1, 10, 9, 2), (9, 9), (1, 1), (4, 4, 4, 4)), 1),
    ]
    for case in cases:
        assert DepthwiseGenerator().implement(case.kernel, case.constants) == []
    offers = check(cases, [GENERATOR], core, pick=0)
    assert all(offers)


@st.composite
def layers(draw: Any) -> Case:
    window = draw(windows(draw(st.sampled_from([1, 2, 3, 4]))))
    return depthwise(
        window, draw(st.integers(1, 3)), seed=draw(st.integers(0, 2**16)),
        gain=draw(st.sampled_from([1e-3, 1.0, 8.0])), low=draw(st.sampled_from([-128, 3])),
        zero_points=draw(st.sampled_from([(-128, -128), (5, 0), (127, -7)])),
    )  # fmt: skip


@settings(max_examples=5, deadline=None)
@given(st.lists(layers(), min_size=3, max_size=3), st.integers(0, 2**10))
def test_any_shape(cases: list[Case], pick: int) -> None:
    check(cases, [GENERATOR], "cortex-m7", pick=pick)


def test_the_first_choice_stays() -> None:
    case = depthwise(Window((1, 5, 6, 8), (3, 3), (1, 1), (1, 1, 1, 1)), 1)
    preferred = DepthwiseGenerator().implement(case.kernel, case.constants)
    offered = GENERATOR.implement(case.kernel, case.constants)
    assert [item.symbol for item in offered] == [item.symbol for item in preferred] != []


def test_rounding_of_another_kind_is_refused() -> None:
    case = depthwise(Window((1, 5, 6, 3), (3, 3)), 1, form="double")
    assert GENERATOR.implement(case.kernel, case.constants) == []


def test_many_channels_are_refused() -> None:
    case = depthwise(Window((1, 5, 6, 6), (3, 3), dilation=(2, 1)), 2)
    assert GENERATOR.implement(case.kernel, case.constants) == []


def test_several_filters_of_four_channels_have_both() -> None:
    case = depthwise(Window((1, 5, 6, 4), (3, 3), (1, 1), (1, 1, 1, 1)), 2)
    (offers,) = check([case], [GENERATOR], "cortex-m4")
    kinds = {offer.symbol.split("_")[0] for offer in offers}
    assert {"grouped", "first"} <= kinds


@pytest.mark.parametrize("multiplier", [1, 3])
def test_it_is_the_same_convolution(multiplier: int) -> None:
    case = depthwise(Window((1, 6, 5, 4), (3, 2), (1, 2), (1, 0, 0, 1)), multiplier)
    kernel, (weights, *rest) = case.kernel, case.constants
    same = Conv2D(kernel.window, 4 * multiplier, 1, kernel.input_zero_point, kernel.requantize)
    found = same.reference(*case.activations, spread(weights, 4), *rest)
    np.testing.assert_array_equal(found, case.expected)
