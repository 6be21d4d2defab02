"""Weights of four bits inside the DSP convolutions, against the numpy twin on M4, M7 and M33."""

from __future__ import annotations

import numpy as np
import pytest
from board import CORES, Board
from conv_cases import Case, check, convolution, convolutions
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.lower.isa.dsp.conv2d import Conv2DGenerator
from edgecompress.lower.isa.dsp.packed4_tile import packed4_tiles
from edgecompress.lower.isa.dsp.pointwise import PointwiseGenerator
from edgecompress.lower.isa.interface import Generator, Implementation
from edgecompress.lower.kernels.conv2d import Conv2D, Window

GENERATORS: list[Generator] = [Conv2DGenerator(), PointwiseGenerator()]


def narrow(case: Case, low: int = -7, high: int = 7) -> Case:
    """The same layer with weights of four bits, spread over them."""
    weights, bias, *tables = case.constants
    small = np.clip(np.round(weights.astype(float) * 7 / 127), low, high).astype(np.int8)
    wider = np.minimum(tables[0].astype(np.int64) * 12, 2**31 - 1).astype(np.int32)
    return Case(case.kernel, case.activations, (small, bias, wider, *tables[1:]))


class _Packed4Only:
    """A generator's offers that keep their weights in four bits."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    def implement(self, kernel, constants) -> list[Implementation]:
        offers = self.generator.implement(kernel, constants)
        return [offer for offer in offers if offer.codec == "packed4"]


ONLY = [_Packed4Only(generator) for generator in GENERATORS]


@settings(max_examples=25, deadline=None)
@given(case=convolutions(), pick=st.integers(0, 100), core=st.sampled_from(CORES))
def test_any_convolution(case, pick, core):
    if not isinstance(case.kernel, Conv2D):
        case = Case(case.kernel.conv, case.activations[:1], case.constants)
    check([narrow(case)], ONLY, core, pick=pick)


@settings(max_examples=15, deadline=None)
@given(case=convolutions(pointwise=True), core=st.sampled_from(CORES), pick=st.integers(0, 100))
def test_any_pointwise(case, core, pick):
    check([narrow(case)], ONLY, core, pick=pick)


@pytest.mark.parametrize("extreme", [False, True])
def test_every_offer(extreme):
    """All unrollings and drivers, with seven channels and with every digit at its end."""
    window = Window((1, 5, 6, 8), (3, 3), (1, 1), (1, 1, 1, 1))
    cases = [
        narrow(convolution(window, outputs, extreme=extreme, bounds=bounds, gain=gain))
        for outputs, bounds, gain in ((7, (-128, 127), 1.0), (8, (-20, 100), 400.0))
    ]
    for given_offers in check(cases, ONLY, "cortex-m4"):
        assert len(given_offers) >= 3


SHAPES = [
    (Window((1, 16, 16, 16), (3, 3), (1, 1), (1, 1, 1, 1)), 16),
    (Window((1, 8, 8, 64), (3, 3), (1, 1), (1, 1, 1, 1)), 64),
    (Window((1, 25, 5, 64), (1, 1)), 64),
    (Window((1, 7, 7, 128), (1, 1)), 128),
]


@pytest.mark.parametrize(("window", "outputs"), SHAPES, ids=str)
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7"])
def test_costs_at_most_a_third_more(window, outputs, core):
    """The contract: 1.3 times the int8 kernel's instructions, for half its bytes."""
    case = narrow(convolution(window, outputs))
    fastest = {}
    for generator in GENERATORS:
        for offer in generator.implement(case.kernel, case.constants):
            kind = offer.codec == "packed4"
            if kind not in fastest or offer.cost.cycles < fastest[kind].cost.cycles:
                fastest[kind] = offer
    board = Board([fastest[False], fastest[True]], core)
    counts = []
    for index in range(2):
        outcome = board.run(index, case.activations, case.expected.shape)
        np.testing.assert_array_equal(outcome.output, case.expected)
        counts.append(outcome.instructions)
    assert counts[1] <= 1.3 * counts[0]
    saved = sum(a.nbytes for a in fastest[False].constants) - sum(
        a.nbytes for a in fastest[True].constants
    )
    assert saved == case.constants[0].size // 2


def test_what_does_not_fit_is_refused():
    """Five bits; -8 beside a negative; sums of more than 27 bits."""
    requantize = convolution(SHAPES[0][0], 2).kernel.requantize
    bias = np.zeros(2, np.int32)

    def offered(rows, bias=bias):
        return packed4_tiles(requantize, np.array(rows, np.int8), bias, 9, 1)

    assert offered([[-8, 7, 1, 0], [3, 7, -7, 0]])
    assert not offered([[0, 8, 0, 0], [0, 0, 0, 0]])
    assert not offered([[-9, 0, 0, 0], [0, 0, 0, 0]])
    assert not offered([[-1, 0, 0, 0], [-8, 0, 0, 0]])
    assert not offered([[1, 0, 0, 0], [1, 0, 0, 0]], np.array([0, -(1 << 27)], np.int32))
