"""The DSP poolings against their numpy twins on Cortex-M4, M7 and M33."""

from __future__ import annotations

import numpy as np
import pytest
from board import CORES, Board
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgecompress.lower.isa.dsp.pooling import PoolGenerator
from edgecompress.lower.kernels.average_pool2d import AveragePool2d
from edgecompress.lower.kernels.max_pool2d import MaxPool2d
from edgecompress.lower.kernels.mean import Mean
from edgecompress.lower.kernels.pooling import Window
from edgecompress.lower.kernels.requant import make_requantize


def requantized(counts, ratio=0.7, zero_point=9, low=-128, high=127, form="smmla"):
    """The requantization of means of `counts` elements, and its tables."""
    counts = np.maximum(np.asarray(counts), 1)
    return make_requantize(
        ratio / counts, form=form, zero_point=zero_point, low=low, high=high,
        accumulator_bound=256 * int(counts.max()),
    )  # fmt: skip


def average(window, *, ratio=None, **parameters) -> tuple[AveragePool2d, tuple[np.ndarray, ...]]:
    bounds = {name: parameters[name] for name in ("low", "high") if name in parameters}
    if ratio is None:
        return AveragePool2d(window, **parameters), ()
    requantize, tables = requantized(np.arange(window.size + 1), ratio, **bounds)
    return AveragePool2d(window, requantize=requantize, **parameters), tables


def check(kernel, constants, core: str, shape: tuple[int, ...], output_shape=None) -> str:
    """The twin's bits in the predicted instructions; the routine's symbol."""
    (offer,) = PoolGenerator().implement(kernel, constants)
    board = Board([offer], core)
    random = np.random.default_rng(len(offer.symbol))
    for x in (
        random.integers(-128, 128, shape).astype(np.int8),
        np.full(shape, -128, np.int8),
        random.choice(np.array([-128, 127], np.int8), shape),
    ):
        outcome = board.run(0, [x], output_shape or kernel.window.output_shape)
        np.testing.assert_array_equal(outcome.output, kernel.reference(x, *constants))
        assert outcome.instructions == offer.cost.instructions
    return offer.symbol


PLAIN = Window((1, 5, 7, 8), (2, 2), (2, 2))
PADDED = Window((1, 6, 5, 6), (3, 3), (2, 1), (1, 1, 1, 1))
GLOBAL = Window((1, 25, 5, 13), (25, 5), (25, 5))
LARGE = Window((1, 18, 20, 4), (18, 20), (18, 20))


@pytest.mark.parametrize("core", CORES)
def test_maximum(core):
    for window in (PLAIN, PADDED, GLOBAL):
        assert check(MaxPool2d(window), (), core, window.input_shape) == "pool_maximum"
        clamped = MaxPool2d(window, low=-7, high=60)
        assert check(clamped, (), core, window.input_shape) == "pool_maximum_clamp"


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("window", [PLAIN, PADDED, GLOBAL, LARGE], ids=["2x2", "3x3", "all", "16"])
def test_average(core, window):
    for parameters in (
        {},
        {"low": -20, "high": 30},
        {"count_include_pad": True, "input_zero_point": -77},
        {"ratio": 0.7, "input_zero_point": 100},
        {"ratio": 0.9, "input_zero_point": -3, "count_include_pad": True},
        {"ratio": 0.2, "input_zero_point": -3, "low": 5, "high": 20},
    ):
        kernel, constants = average(window, **parameters)
        symbol = check(kernel, constants, core, window.input_shape)
        assert ("wide" in symbol) == (window is LARGE)


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((1, 7, 7, 20), (1, 2)),
        ((1, 6, 50, 4), (2,)),
        ((1, 2, 40, 40, 5), (2, 3)),
        ((1, 9, 8), (1,)),
    ],
    ids=str,
)
def test_mean(core, shape, axes):
    kept = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    count = int(np.prod([shape[axis] for axis in axes]))
    requantize, tables = requantized([count])
    kernel = Mean(shape, axes, kept, -50, requantize)
    check(kernel, tables, core, shape, kept)


def test_instructions_per_element():
    kernel, _ = average(Window((1, 25, 5, 64), (25, 5), (25, 5)))
    (offer,) = PoolGenerator().implement(kernel, ())
    assert offer.cost.instructions < 1.7 * 25 * 5 * 64


def test_refuses():
    generator = PoolGenerator()
    few = Window((1, 4, 4, 3), (2, 2), (2, 2))
    assert generator.implement(MaxPool2d(few), ()) == []
    assert generator.implement(MaxPool2d(Window((2, 4, 4, 4), (2, 2), (2, 2))), ()) == []
    outside = Window((1, 4, 4, 4), (1, 1), (1, 1), (1, 1, 1, 1))
    assert generator.implement(AveragePool2d(outside), ()) == []
    prime = Window((1, 1, 257, 4), (1, 257), (1, 257))
    assert generator.implement(AveragePool2d(prime), ()) == []
    requantize, tables = requantized([16], form="double")
    mean = Mean((1, 4, 4, 4), (1, 2), (1, 4), 0, requantize)
    assert generator.implement(mean, tables) == []


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(4, 11)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    ratio=st.sampled_from([None, 0.003, 0.8]),
    include=st.booleans(),
    zero_point=st.integers(-128, 127),
    bounds=st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
    core=st.sampled_from(CORES),
)
def test_any_window(size, kernel, strides, padding, ratio, include, zero_point, bounds, core):
    window = Window((1, *size), kernel, strides, padding)
    assume(min(window.output_shape) > 0 and window.valid_counts().min() > 0)
    pool, constants = average(
        window, ratio=ratio, count_include_pad=include, input_zero_point=zero_point,
        low=min(bounds), high=max(bounds),
    )  # fmt: skip
    check(pool, constants, core, window.input_shape)
    check(MaxPool2d(window, min(bounds), max(bounds)), (), core, window.input_shape)
