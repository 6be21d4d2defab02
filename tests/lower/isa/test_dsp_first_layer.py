"""The DSP first-layer routines against the numpy twin on Cortex-M4, M7 and M33."""

from __future__ import annotations

import numpy as np
import pytest
from board import CORES, Board
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.lower.isa.dsp.first_layer import FirstLayerGenerator, Strip
from edgecompress.lower.kernels.conv2d import Conv2D, Window
from edgecompress.lower.kernels.requant import make_requantize

Layer = tuple[Conv2D, tuple[np.ndarray, ...]]

MLPERF_TINY = {
    "kws": ((49, 10, 1), 64, (10, 4), (2, 2), (4, 1, 5, 1)),
    "ic": ((32, 32, 3), 16, (3, 3), (1, 1), (1, 1, 1, 1)),
    "vww": ((96, 96, 3), 8, (3, 3), (2, 2), (0, 0, 1, 1)),
}


def layer(
    image: tuple[int, int, int],
    outputs: int,
    size: tuple[int, int] = (3, 3),
    strides: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (1, 1, 1, 1),
    *,
    seed: int = 0,
    gain: float = 1.0,
    input_zero_point: int = -128,
    zero_point: int = -128,
    bounds: tuple[int, int] = (-128, 127),
    form: str = "smmla",
    groups: int = 1,
    dilation: tuple[int, int] = (1, 1),
    bias_limit: int = 3000,
) -> Layer:
    """A layer whose outputs spread over int8 at gain 1."""
    random = np.random.default_rng(seed)
    window = Window((1, *image), size, strides, padding, dilation)
    inputs = image[2] // groups
    weights = random.integers(-127, 128, (outputs, *size, inputs)).astype(np.int8)
    bias = random.integers(-bias_limit, bias_limit, outputs).astype(np.int32)
    real = gain * random.uniform(0.5, 1, outputs) / (127 * np.sqrt(size[0] * size[1] * inputs))
    requantize, tables = make_requantize(
        real, form=form, zero_point=zero_point, low=bounds[0], high=bounds[1],
        accumulator_bound=2**22,
    )  # fmt: skip
    return Conv2D(window, outputs, groups, input_zero_point, requantize), (weights, bias, *tables)


def sample(shape: tuple[int, ...], seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    if seed % 3 == 0:
        return random.choice(np.array([-128, 127], np.int8), shape)
    return random.integers(-128, 128, shape).astype(np.int8)


def check(layers: list[Layer], core: str) -> None:
    """Every offer gives the twin's bits in as many instructions as said, also overlapping."""
    offers = [FirstLayerGenerator().implement(*each) for each in layers]
    assert all(offers)
    drivers = {offer.symbol: offer for offered in offers for offer in offered}
    board = Board([offer for offered in offers for offer in offered], core)
    assert len(drivers) == len(board.implementations)
    index = 0
    for (kernel, constants), offered in zip(layers, offers, strict=True):
        x = sample(kernel.window.input_shape, index)
        expected = kernel.reference(x, *constants)
        for offer in offered:
            assert offer.may_overlap_input is not None
            for overlap in (None, offer.may_overlap_input, min(offer.may_overlap_input, 0)):
                outcome = board.run(index, [x], kernel.output_shape, overlap=overlap)
                np.testing.assert_array_equal(outcome.output, expected, err_msg=offer.symbol)
                assert outcome.instructions == offer.cost.instructions, offer.symbol
            index += 1


@pytest.mark.parametrize("core", CORES)
def test_shapes(core):
    check(
        [
            layer((17, 10, 1), 8, (10, 4), (2, 2), (4, 1, 5, 1)),
            layer((9, 11, 3), 6, input_zero_point=3, zero_point=5, bounds=(-60, 99)),
            layer((12, 13, 3), 5, (3, 3), (2, 2), (0, 0, 1, 1)),
            layer((8, 9, 1), 4, gain=1e-3),
            layer((9, 14, 2), 4, (5, 5), (1, 2), (2, 2, 2, 2)),
            layer((6, 7, 4), 4, (2, 3), padding=(0, 0, 0, 0), gain=30.0),
            layer((14, 14, 3), 2, (7, 7), (2, 2), (3, 3, 3, 3)),
            layer((30, 1, 1), 4, (5, 1), padding=(4, 0, 0, 0)),
            layer((1, 40, 2), 4, (1, 9), (1, 3), (0, 4, 0, 4)),
            layer((7, 9, 3), 3, (1, 1), (2, 3), (0, 0, 0, 0)),
        ],
        core,
    )


@pytest.mark.parametrize(("name", "limit"), [("kws", 1.05), ("ic", 1.18), ("vww", 1.35)])
def test_instructions_per_mac(name, limit):
    kernel, constants = layer(*MLPERF_TINY[name])
    offers = FirstLayerGenerator().implement(kernel, constants)
    best = min(range(len(offers)), key=lambda index: offers[index].cost.instructions)
    x = sample(kernel.window.input_shape, 1)
    outcome = Board(offers).run(best, [x], kernel.output_shape)
    np.testing.assert_array_equal(outcome.output, kernel.reference(x, *constants))
    assert outcome.instructions <= limit * kernel.macs


def test_columns_are_dense():
    """27 inputs take seven words, each input exactly once."""
    strip = Strip(layer(*MLPERF_TINY["ic"])[0])
    places = [place for quad in strip.quads() for place in quad if place is not None]
    assert len(strip.quads()) == 7
    assert sorted(places) == [(row, byte) for row in range(3) for byte in range(9)]


@pytest.mark.parametrize(
    "arguments", [{"form": "double"}, {"form": "single"}, {"dilation": (1, 2)}], ids=str
)
def test_refuses(arguments):
    assert FirstLayerGenerator().implement(*layer((9, 9, 3), 4, **arguments)) == []


@pytest.mark.parametrize(
    "shape",
    [
        ((9, 9, 5), 4),
        ((12, 12, 4), 4, (7, 7)),
        ((9, 400, 4), 4),
        ((7, 2, 1), 4),
    ],
    ids=["five channels", "196 inputs", "a strip of 4.8 KB", "two columns, 14 pixels"],
)
def test_refuses_sizes(shape):
    assert FirstLayerGenerator().implement(*layer(*shape)) == []
    assert FirstLayerGenerator().implement(*layer((8, 8, 4), 4, groups=2)) == []


@st.composite
def layers(draw) -> Layer:
    size = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = tuple(draw(st.integers(0, size[axis % 2] - 1)) for axis in range(4))
    tall = draw(st.integers(max(1, size[0] - padding[0] - padding[2]), 12))
    least = size[1] + 3 * strides[1] - padding[1] - padding[3]
    wide = draw(st.integers(max(1, least), 60))
    low, high = sorted(draw(st.tuples(st.integers(-128, 127), st.integers(-128, 127))))
    return layer(
        (tall, wide, draw(st.integers(1, 4))),
        draw(st.integers(1, 6)),
        size,
        strides,
        padding,
        seed=draw(st.integers(0, 1000)),
        gain=draw(st.sampled_from([1e-4, 1.0, 100.0])),
        input_zero_point=draw(st.integers(-128, 127)),
        zero_point=draw(st.sampled_from([-128, -7, 127])),
        bounds=draw(st.sampled_from([(-128, 127), (low, high)])),
        bias_limit=draw(st.sampled_from([3000, 2**20])),
    )


@settings(max_examples=25, deadline=None, derandomize=True)
@given(drawn=layers(), core=st.sampled_from(CORES))
def test_any_layer(drawn, core):
    check([drawn], core)
