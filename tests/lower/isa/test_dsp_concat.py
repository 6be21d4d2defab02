"""Concatenation on DSP cores against the numpy twin."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from board import CORES, Board
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.lower.isa.dsp.concat import ConcatGenerator
from edgecompress.lower.isa.interface import Implementation
from edgecompress.lower.kernels.concat import Concat


def constants_of(kernel: Concat, seed: int = 0) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(seed)
    return tuple(
        random.integers(-128, 128, 256).astype(np.int8) for used in kernel.rescaled if used
    )


def check(kernels: list[Concat], core: str) -> list[Implementation]:
    """The twin's bits, in as many instructions as the cost says."""
    given = [(kernel, constants_of(kernel, index)) for index, kernel in enumerate(kernels)]
    offers = [ConcatGenerator().implement(*item) for item in given]
    assert all(len(offered) == 1 for offered in offers)
    board = Board([offered[0] for offered in offers], core)
    random = np.random.default_rng(1)
    for index, (kernel, tables) in enumerate(given):
        parts = [random.integers(-128, 128, shape).astype(np.int8) for shape in kernel.shapes]
        expected = kernel.reference(*parts, *tables)
        outcome = board.run(index, parts, expected.shape)
        np.testing.assert_array_equal(outcome.output, expected, str(kernel))
        assert outcome.instructions == offers[index][0].cost.instructions
    return [offered[0] for offered in offers]


def maps(*channels: int) -> tuple[tuple[int, ...], ...]:
    return tuple((1, 3, 5, channel) for channel in channels)


@pytest.mark.parametrize("core", CORES)
def test_axes_sizes_and_tables(core: str) -> None:
    offers = check(
        [
            Concat(maps(24, 10, 6, 8), 3, (False,) * 4),
            Concat(maps(1, 3, 70, 16), 3, (False, True, False, True)),
            Concat(((1, 2, 5, 7), (1, 4, 5, 7)), 1, (False, False)),
            Concat(((1, 9), (1, 4)), 1, (False, True)),
            Concat(((1, 3, 5, 11),), 3, (True,)),
        ],
        core,
    )
    assert offers[2].symbol == "concat_2"
    assert offers[3].symbol == "concat_2_tables"


@st.composite
def kernels(draw: Any) -> Concat:
    axis = draw(st.integers(1, 3))
    count = draw(st.integers(1, 5))
    others = draw(st.lists(st.integers(1, 4), min_size=3, max_size=3))
    shapes = []
    for size in draw(st.lists(st.integers(1, 40), min_size=count, max_size=count)):
        shape = [1, *others]
        shape[axis] = size
        shapes.append(tuple(shape))
    flags = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return Concat(tuple(shapes), axis, tuple(flags))


@settings(max_examples=5, deadline=None)
@given(st.lists(kernels(), min_size=6, max_size=6))
def test_any_parts(some: list[Concat]) -> None:
    check(some, "cortex-m7")


def test_channels_cost_less_than_two_instructions_a_byte() -> None:
    kernel = Concat(((1, 8, 8, 32), (1, 8, 8, 12)), 3, (False, False))
    (offer,) = ConcatGenerator().implement(kernel, ())
    assert offer.cost.instructions < 2 * 8 * 8 * (32 + 12)


def test_empty_parts_are_refused() -> None:
    assert ConcatGenerator().implement(Concat(maps(4, 0), 3, (False, False)), ()) == []
