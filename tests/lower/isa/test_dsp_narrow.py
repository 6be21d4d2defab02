"""Pointwise convolutions of few inputs on DSP cores against the numpy twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from board import CORES, Board
from conv_cases import Case, convolution
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.lower.isa.dsp.narrow import NarrowGenerator
from edgecompress.lower.isa.dsp.pointwise import PointwiseGenerator
from edgecompress.lower.kernels.conv2d import Window

GENERATOR = NarrowGenerator()


def pointwise(shape: tuple[int, int, int], outputs: int, **options: Any) -> Case:
    return convolution(Window((1, *shape), (1, 1)), outputs, **options)


def check(cases: list[Case], core: str) -> None:
    """The twin's bits, apart and as close as permitted, in as many instructions as said."""
    offers = [GENERATOR.implement(case.kernel, case.constants) for case in cases]
    assert all(offers)
    board = Board([offer for offered in offers for offer in offered], core)
    index = 0
    for case, offered in zip(cases, offers, strict=True):
        for offer in offered:
            assert offer.may_overlap_input is not None
            for overlap in (None, min(offer.may_overlap_input, 0)):
                outcome = board.run(index, case.activations, case.expected.shape, overlap=overlap)
                np.testing.assert_array_equal(outcome.output, case.expected, offer.symbol)
                assert outcome.instructions == offer.cost.instructions, offer.symbol
            index += 1


@pytest.mark.parametrize("core", CORES)
def test_shapes(core: str) -> None:
    check(
        [
            pointwise((8, 8, 8), 12),
            pointwise((5, 5, 4), 3, seed=1),
            pointwise((3, 9, 12), 7, seed=2, bounds=(-20, 99)),
            pointwise((11, 1, 12), 1, seed=3, gain=400.0),
            pointwise((12, 16, 8), 9, seed=4, extreme=True),
            pointwise((40, 40, 4), 130, seed=5),
        ],
        core,
    )


@st.composite
def cases(draw: Any) -> Case:
    tall, wide = draw(st.sampled_from([(2, 4), (3, 3), (5, 2), (13, 1), (6, 8), (9, 11), (16, 9)]))
    return pointwise(
        (tall, wide, draw(st.sampled_from([4, 8, 12]))), draw(st.integers(1, 9)),
        seed=draw(st.integers(0, 2**16)), gain=draw(st.sampled_from([1e-4, 0.3, 1.0, 8.0, 400.0])),
        bounds=draw(st.sampled_from([(-128, 127), (-7, 127), (3, 100), (-128, -60)])),
        zero_points=draw(st.sampled_from([(-128, -128), (5, 0), (127, -7), (-1, 127)])),
        extreme=draw(st.booleans()), bias_limit=draw(st.sampled_from([0, 5000, 1 << 22])),
    )  # fmt: skip


@settings(max_examples=6, deadline=None)
@given(st.lists(cases(), min_size=4, max_size=4), st.sampled_from(CORES))
def test_any_values(drawn: list[Case], core: str) -> None:
    check(drawn, core)


@pytest.mark.parametrize(("inputs", "limit"), [(4, 1.85), (8, 1.25), (12, 1.15)])
def test_cheaper_than_tiles(inputs: int, limit: float) -> None:
    case = pointwise((24, 24, inputs), 48)
    fewest = [
        min(offer.cost.instructions for offer in one.implement(case.kernel, case.constants))
        for one in (GENERATOR, PointwiseGenerator())
    ]
    assert fewest[0] <= limit * case.kernel.macs
    assert fewest[0] < fewest[1]


@pytest.mark.parametrize(
    "case",
    [
        pointwise((8, 8, 16), 8),
        pointwise((8, 8, 6), 8),
        pointwise((67, 1, 8), 8),
        pointwise((8, 8, 8), 8, form="double"),
        convolution(Window((1, 8, 8, 8), (1, 1), (2, 2)), 8),
        convolution(Window((1, 8, 8, 8), (3, 3)), 8),
    ],
    ids=repr,
)
def test_refusals(case: Case) -> None:
    assert GENERATOR.implement(case.kernel, case.constants) == []
