"""Dilated depthwise convolutions on DSP cores against the numpy twin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from board import CORES, Board
from conv_cases import convolution
from hypothesis import given, settings
from hypothesis import strategies as st
from test_dsp_other_depthwise import depthwise

from edgecompress.lower.isa.dsp.dilated import DilatedDepthwiseGenerator
from edgecompress.lower.kernels.conv2d import Window

GENERATOR = DilatedDepthwiseGenerator()
Shape = tuple[int, int, int]


def same(shape: Shape, size: tuple[int, int], dilation: tuple[int, int]) -> Window:
    pad = [step * (taps - 1) // 2 for step, taps in zip(dilation, size, strict=True)]
    return Window((1, *shape), size, (1, 1), (*pad, *pad), dilation)


def check(cases: list[Any], core: str, *, taken: bool = True) -> None:
    """The twin's bits, apart and in place, in as many instructions as the cost says."""
    offers = [GENERATOR.implement(case.kernel, case.constants) for case in cases]
    assert all(offers) or not taken
    board = Board([offer for offered in offers for offer in offered], core)
    index = 0
    for case, offered in zip(cases, offers, strict=True):
        for offer in offered:
            for overlap in [None] + [0] * (offer.may_overlap_input == 0):
                outcome = board.run(index, case.activations, case.expected.shape, overlap=overlap)
                np.testing.assert_array_equal(outcome.output, case.expected, offer.symbol)
                assert outcome.instructions == offer.cost.instructions
            index += 1


@pytest.mark.parametrize("core", CORES)
def test_even_and_odd_sizes(core: str) -> None:
    cases = [
        depthwise(same((8, 8, 6), (3, 3), (2, 2)), 1),
        depthwise(same((7, 9, 8), (3, 3), (2, 2)), 1, seed=1),
        depthwise(same((12, 5, 4), (3, 3), (4, 1)), 1, seed=2),
    ]
    check(cases, core)
    offers = [GENERATOR.implement(case.kernel, case.constants) for case in cases]
    assert all(offer.may_overlap_input == 0 for offered in offers for offer in offered)


@st.composite
def windows(draw: Any) -> Window:
    size = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    dilation = draw(st.sampled_from([(2, 2), (1, 2), (3, 1), (2, 3)]))
    padding = draw(st.sampled_from([(0, 0, 0, 0), (2, 2, 2, 2), (1, 1, 0, 2), (3, 0, 1, 1)]))
    least = [d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)]
    tall = max(draw(st.integers(1, 9)), least[0] - padding[0] - padding[2], 1)
    wide = max(draw(st.integers(1, 9)), least[1] - padding[1] - padding[3], 1)
    channels = draw(st.sampled_from([4, 5, 8, 11]))
    strides = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (3, 1), (2, 3)]))
    return Window((1, tall, wide, channels), size, strides, padding, dilation)


@settings(max_examples=5, deadline=None)
@given(
    st.lists(st.tuples(windows(), st.integers(1, 2), st.integers(0, 2**16)), min_size=3, max_size=3)
)
def test_any_shape(drawn: list[tuple[Window, int, int]]) -> None:
    cases = [depthwise(window, multiplier, seed=seed) for window, multiplier, seed in drawn]
    check(cases, "cortex-m7", taken=False)


@pytest.mark.parametrize("core", CORES)
def test_strides_filters_and_groups(core: str) -> None:
    window = same((9, 12, 8), (3, 3), (2, 2))
    cases = [
        depthwise(replace(window, strides=(2, 2)), 1),
        depthwise(replace(window, strides=(3, 1)), 2, seed=1),
        depthwise(replace(window, dilation=(3, 4), strides=(2, 2), padding=(3, 4, 3, 4)), 1),
        convolution(replace(window, strides=(1, 3)), 8, groups=4),
        convolution(window, 12, groups=4, seed=3),
    ]
    check(cases, core)


def test_cost_stays_near_the_undilated() -> None:
    case = depthwise(same((16, 16, 30), (3, 3), (2, 2)), 1)
    best = min(
        offer.cost.instructions for offer in GENERATOR.implement(case.kernel, case.constants)
    )
    assert best < 3 * case.kernel.macs


@pytest.mark.parametrize(
    "window",
    [
        Window((1, 9, 9, 8), (3, 3)),
        Window((1, 9, 9, 3), (3, 3), (1, 1), (2, 2, 2, 2), (2, 2)),
    ],
)
def test_other_kinds_are_refused(window: Window) -> None:
    case = depthwise(window, 1)
    assert GENERATOR.implement(case.kernel, case.constants) == []
