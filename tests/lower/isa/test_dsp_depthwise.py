"""The DSP depthwise routines against the numpy twin on Cortex-M4, M7 and M33."""

from __future__ import annotations

import numpy as np
import pytest
from board import CORES, Board
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.lower.isa.dsp.depthwise import DepthwiseGenerator, make_plan
from edgecompress.lower.isa.interface import Implementation
from edgecompress.lower.kernels.conv2d import Window
from edgecompress.lower.kernels.depthwise_conv2d import DepthwiseConv2D
from edgecompress.lower.kernels.requant import make_requantize

Layer = tuple[DepthwiseConv2D, tuple[np.ndarray, ...]]


def layer(
    image: tuple[int, int, int],
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
    multiplier: int = 1,
    dilation: tuple[int, int] = (1, 1),
    bias_limit: int = 3000,
) -> Layer:
    """A layer whose outputs spread over int8 at gain 1."""
    random = np.random.default_rng(seed)
    window = Window((1, *image), size, strides, padding, dilation)
    channels = image[2] * multiplier
    weights = random.integers(-127, 128, (*size, channels)).astype(np.int8)
    bias = random.integers(-bias_limit, bias_limit, channels).astype(np.int32)
    real = gain * random.uniform(0.5, 1, channels) / (127 * np.sqrt(size[0] * size[1]))
    requantize, tables = make_requantize(
        real, form=form, zero_point=zero_point, low=bounds[0], high=bounds[1],
        accumulator_bound=2**21,
    )  # fmt: skip
    kernel = DepthwiseConv2D(window, multiplier, input_zero_point, requantize)
    return kernel, (weights, bias, *tables)


def sample(shape: tuple[int, ...], seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    if seed % 3 == 0:
        return random.choice(np.array([-128, 127], np.int8), shape)
    return random.integers(-128, 128, shape).astype(np.int8)


def check(layers: list[Layer], core: str) -> list[list[Implementation]]:
    """Every offer gives the twin's bits, apart and in place, in as many instructions as said."""
    offers = [DepthwiseGenerator().implement(*given) for given in layers]
    board = Board([offer for offered in offers for offer in offered], core)
    index = 0
    for (kernel, constants), offered in zip(layers, offers, strict=True):
        x = sample(kernel.window.input_shape, index)
        expected = kernel.reference(x, *constants)
        for offer in offered:
            # in place is the harder case; one offer a layer shows that apart works as well
            apart = offer is offered[0] or offer.may_overlap_input is None
            in_place = offer.may_overlap_input == 0
            for overlap in [None] * apart + [0] * in_place:
                outcome = board.run(index, [x], kernel.output_shape, overlap=overlap)
                np.testing.assert_array_equal(outcome.output, expected, err_msg=offer.symbol)
                assert outcome.instructions == offer.cost.instructions, offer.symbol
                assert outcome.stack_bytes < 400
            index += 1
    return offers


@pytest.mark.parametrize("core", CORES)
def test_shapes(core):
    layers = [
        layer((25, 5, 8)),
        layer((7, 9, 5), zero_point=3, input_zero_point=5, bounds=(-40, 99)),
        layer((9, 8, 7), strides=(2, 2), padding=(0, 0, 1, 1)),
        layer((11, 13, 4), (5, 5), padding=(2, 2, 2, 2), gain=0.01),
        layer((8, 8, 6), (5, 5), (2, 2), (1, 1, 2, 2), gain=100.0),
        layer((9, 6, 4), (3, 1), padding=(1, 0, 1, 0)),
        layer((6, 19, 4), (1, 7), padding=(0, 3, 0, 3)),
        layer((10, 10, 9), (2, 4), (1, 3), (0, 1, 1, 2)),
        layer((10, 11, 4), (1, 1), (3, 2), (0, 0, 0, 0)),
        layer((4, 3, 4), (4, 3), padding=(0, 0, 0, 0)),
    ]
    assert all(check(layers, core))


@pytest.mark.parametrize("core", ["cortex-m7"])
def test_chunks(core):
    """Planes of more than 2 KiB go through scratch in pieces, still in place."""
    layers = [
        layer((48, 46, 4)),
        layer((50, 40, 5), strides=(2, 2), padding=(1, 1, 0, 0)),
        layer((40, 41, 4), (5, 5), padding=(2, 2, 3, 2)),
        layer((33, 40, 4), (2, 2), (2, 1), (1, 0, 0, 1)),
        layer((20, 78, 4), (3, 3), padding=(5, 1, 6, 1)),
    ]
    for (kernel, _), offered in zip(layers, check(layers, core), strict=True):
        plan = make_plan(kernel, "width", 2048, 12)
        assert plan is not None
        assert len(plan.chunks) > 1
        assert any(offer.scratch_bytes <= 2048 for offer in offered)
        shrinks = kernel.window.padding[0] < 2
        assert any(offer.may_overlap_input == 0 for offer in offered) or not shrinks


def test_layers_of_one_shape_share_their_routine():
    """Different shifts S, bounds that are int8's own."""
    layers = [layer((6, 6, 8), gain=gain, seed=1, zero_point=-3) for gain in (1.0, 0.5, 0.26)]
    assert len({kernel.requantize.shift for kernel, _ in layers}) == 3
    offers = check(layers, "cortex-m4")
    assert len({offer.symbol for offered in offers for offer in offered}) == len(offers[0])


def test_layers_of_any_shape_share_a_routine():
    """Every width of rest, chunks or none, borders of either parity."""
    layers = [
        layer((5, width, 4 + width % 5), padding=(1, width % 3, 1, 1)) for width in range(3, 20)
    ]
    layers.append(layer((60, 31, 6), padding=(0, 0, 0, 0)))
    offers = check(layers, "cortex-m7")
    shared = [{offer.symbol for offer in offered if "shared" in offer.symbol} for offered in offers]
    assert all(symbols == shared[0] for symbols in shared)
    assert len(shared[0]) == 1
    kernel, constants = layer((16, 16, 8))
    assert any(
        offer.cost.instructions <= 1.8 * kernel.macs and offer.symbol in shared[0]
        for offer in DepthwiseGenerator().implement(kernel, constants)
    )


@pytest.mark.parametrize(("image", "limit"), [((25, 5, 64), 1.60), ((16, 16, 8), 1.60)])
def test_instructions_per_mac(image, limit):
    kernel, constants = layer(image)
    offers = DepthwiseGenerator().implement(kernel, constants)
    assert min(offer.cost.instructions for offer in offers) <= limit * kernel.macs
    packed = min(sum(array.nbytes for array in offer.constants) for offer in offers)
    assert packed <= sum(array.nbytes for array in constants) + 64


@pytest.mark.parametrize(
    "arguments",
    [{"form": "double"}, {"multiplier": 2}, {"dilation": (2, 1)}, {"gain": 4e4}],
    ids=str,
)
def test_refuses(arguments):
    assert DepthwiseGenerator().implement(*layer((8, 8, 4), **arguments)) == []
    assert DepthwiseGenerator().implement(*layer((8, 8, 3))) == []
    assert DepthwiseGenerator().implement(*layer((9, 12, 4), (9, 9))) == []


@st.composite
def layers(draw) -> Layer:
    size = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    padding = tuple(draw(st.integers(0, max(0, size[axis % 2] - 1))) for axis in range(4))
    tall, wide = (
        draw(st.integers(max(1, size[axis] - padding[axis] - padding[axis + 2]), 40))
        for axis in range(2)
    )
    low, high = sorted(draw(st.tuples(st.integers(-128, 127), st.integers(-128, 127))))
    return layer(
        (tall, wide, draw(st.integers(4, 9))),
        size,
        draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        padding,
        seed=draw(st.integers(0, 1000)),
        gain=draw(st.sampled_from([1e-4, 0.1, 1.0, 100.0])),
        input_zero_point=draw(st.integers(-128, 127)),
        zero_point=draw(st.sampled_from([-128, -7, 127])),
        bounds=draw(st.sampled_from([(-128, 127), (low, high)])),
        bias_limit=draw(st.sampled_from([3000, 2**20])),
    )


@settings(max_examples=8, deadline=None, derandomize=True)
@given(given_layers=st.lists(layers(), min_size=4, max_size=4), core=st.sampled_from(CORES))
def test_any_layer(given_layers, core):
    check(given_layers, core)
