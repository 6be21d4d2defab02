"""The DSP addition against the numpy twin on Cortex-M4, M7 and M33."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from board import CORES, Board
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.lower.isa.dsp.add import AddGenerator
from edgecompress.lower.isa.dsp.asm import routine
from edgecompress.lower.kernels.add import Add, litert_rounding, single_rounding

SCALES = [(0.1, 0.1, 0.1), (0.02, 0.31, 0.2), (3.0, 0.01, 0.5), (0.001, 0.002, 1.0)]


def addition(elements, scales=SCALES[1], zero_points=(0, 0, 0), low=-128, high=127) -> Add:
    rounding = single_rounding(scales, zero_points)
    return Add((1, elements), (1, elements), rounding, low, high)


def operands(kernel: Add, seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.integers(-128, 128, kernel.shape).astype(np.int8) for _ in range(2)]


def check(kernel: Add, core: str, x: np.ndarray, y: np.ndarray) -> None:
    """The twin's bits, apart and in place over either operand, in the predicted instructions."""
    (offer,) = AddGenerator().implement(kernel, ())
    board = Board([offer], core)
    expected = kernel.reference(x, y)
    for overlap in (None, 0):
        outcome = board.run(0, [x, y], kernel.shape, overlap=overlap)
        np.testing.assert_array_equal(outcome.output, expected)
        assert outcome.instructions == offer.cost.instructions


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("elements", [1, 3, 8, 15, 64])
def test_sizes(core, elements):
    for clamp in ({}, {"low": -20, "high": 70}):
        kernel = addition(elements, **clamp)
        check(kernel, core, *operands(kernel, elements))


@pytest.mark.parametrize("scales", SCALES, ids=str)
def test_every_pair_of_values(scales):
    kernel = addition(1 << 16, scales, (-128, 127, 5))
    every = np.arange(-128, 128).astype(np.int8)
    x, y = (grid.reshape(kernel.shape) for grid in np.meshgrid(every, every))
    check(kernel, "cortex-m7", x, y)


def test_over_the_second_operand():
    """Elements are read before they are written: the output may be the second operand's memory."""
    kernel = addition(21)
    x, y = operands(kernel, 5)
    (offer,) = AddGenerator().implement(kernel, ())
    swap = ["mov r12, r0", "mov r0, r1", "mov r1, r12", f"b.w {offer.symbol}"]
    assembly = {**offer.assembly, "swapped": routine("swapped", swap)}
    board = Board([replace(offer, symbol="swapped", assembly=assembly)])
    outcome = board.run(0, [y, x], kernel.shape, overlap=0)
    np.testing.assert_array_equal(outcome.output, kernel.reference(x, y))


def test_constant_operand():
    kernel = addition(13)
    x, y = operands(kernel, 1)
    (offer,) = AddGenerator().implement(kernel, (y,))
    outcome = Board([offer]).run(0, [x], kernel.shape)
    np.testing.assert_array_equal(outcome.output, kernel.reference(x, y))


def test_instructions_per_element():
    (offer,) = AddGenerator().implement(addition(16384), ())
    assert offer.cost.instructions < 6.5 * 16384


def test_refuses():
    litert = Add((1, 8), (1, 8), litert_rounding((0.1, 0.2, 0.3), (0, 0, 0)))
    assert AddGenerator().implement(litert, ()) == []
    broadcast = Add((1, 4, 4, 8), (8,), single_rounding(SCALES[0], (0, 0, 0)))
    assert AddGenerator().implement(broadcast, ()) == []


@settings(max_examples=20, deadline=None)
@given(
    elements=st.integers(1, 40),
    scales=st.tuples(*[st.floats(1e-3, 1.0)] * 3),
    zero_points=st.tuples(*[st.integers(-128, 127)] * 3),
    bounds=st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
    core=st.sampled_from(CORES),
)
def test_any_addition(elements, scales, zero_points, bounds, core):
    scales = (scales[0], scales[1], max(scales) / 4)
    kernel = addition(elements, scales, zero_points, min(bounds), max(bounds))
    check(kernel, core, *operands(kernel, elements))
