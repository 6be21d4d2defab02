"""The DSP depthwise routines against the numpy twin on Cortex-M4, M7 and M33."""

from __future__ import annotations

import numpy as np
import pytest
from board import CORES, Board
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.lower.isa.dsp.depthwise import DepthwiseGenerator, make_plan
from edgecompress.lower.isa.dsp.filters import Filters
from edgecompress.lower.isa.interface import Implementation
from edgecompress.lower.kernels.conv2d import Conv2D, Window
from edgecompress.lower.kernels.depthwise_conv2d import DepthwiseConv2D
from edgecompress.lower.kernels.requant import make_requantize

Layer = tuple[DepthwiseConv2D | Conv2D, tuple[np.ndarray, ...]]


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


def grouped(given: Layer, inputs: int, outputs: int, *, seed: int = 0) -> Layer:
    """The layer with `outputs` filters over each `inputs` channels; the channels divide by that."""
    kernel, (weights, _bias, *_tables) = given
    assert isinstance(kernel, DepthwiseConv2D)
    random = np.random.default_rng(seed)
    groups = kernel.window.input_shape[3] // inputs
    made = groups * outputs
    full = random.integers(-127, 128, (made, *weights.shape[:2], inputs)).astype(np.int8)
    bias = random.integers(-3000, 3000, made).astype(np.int32)
    scale = 1 / (127 * np.sqrt(full[0].size))
    requantize, tables = make_requantize(
        scale * random.uniform(0.5, 1, made), form=kernel.requantize.form,
        zero_point=kernel.requantize.zero_point, low=kernel.requantize.low,
        high=kernel.requantize.high, accumulator_bound=2**21,
    )  # fmt: skip
    same = Conv2D(kernel.window, made, groups, kernel.input_zero_point, requantize)
    return same, (full, bias, *tables)


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
        filters = Filters.of(kernel)
        assert filters is not None
        plan = make_plan(filters, "width", 2048, 12)
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


@pytest.mark.parametrize("core", CORES)
def test_groups_and_several_filters(core):
    layers = [
        layer((9, 8, 5), multiplier=2),
        layer((7, 9, 4), (5, 3), (2, 1), (2, 1, 2, 1), multiplier=3, bounds=(-40, 99)),
        grouped(layer((9, 8, 6), zero_point=-3), 2, 2),
        grouped(layer((9, 7, 8), (3, 3), (2, 2)), 2, 3),
        grouped(layer((6, 8, 6), input_zero_point=7), 3, 3),
        grouped(layer((8, 5, 9), (1, 5), padding=(0, 2, 0, 2)), 3, 1),
        grouped(layer((8, 6, 8), (2, 3), padding=(1, 1, 0, 1)), 4, 4),
        grouped(layer((5, 6, 12)), 4, 1),
        grouped(layer((5, 6, 6)), 1, 1),
    ]
    offers = check(layers, core)
    assert all(offers)
    for (kernel, _), offered in zip(layers, offers, strict=True):
        same = kernel.output_shape == kernel.window.input_shape
        assert all((offer.may_overlap_input == 0) == same for offer in offered)


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        (layer((16, 16, 8), multiplier=2), 1.70),
        (layer((8, 8, 30), multiplier=2), 1.85),
        (grouped(layer((16, 16, 24)), 2, 2), 1.45),
        (grouped(layer((16, 16, 24)), 3, 3), 1.40),
        (grouped(layer((16, 16, 24)), 4, 4), 1.25),
    ],
)
def test_instructions_per_mac_of_groups(given, limit):
    kernel, constants = given
    offers = DepthwiseGenerator().implement(kernel, constants)
    assert min(offer.cost.instructions for offer in offers) <= limit * kernel.macs


@pytest.mark.parametrize(("image", "limit"), [((25, 5, 64), 1.60), ((16, 16, 8), 1.60)])
def test_instructions_per_mac(image, limit):
    kernel, constants = layer(image)
    offers = DepthwiseGenerator().implement(kernel, constants)
    assert min(offer.cost.instructions for offer in offers) <= limit * kernel.macs
    packed = min(sum(array.nbytes for array in offer.constants) for offer in offers)
    assert packed <= sum(array.nbytes for array in constants) + 64


@pytest.mark.parametrize(
    "arguments",
    [{"form": "double"}, {"dilation": (2, 1)}, {"gain": 4e4}],
    ids=str,
)
def test_refuses(arguments):
    assert DepthwiseGenerator().implement(*layer((8, 8, 4), **arguments)) == []
    assert DepthwiseGenerator().implement(*layer((8, 8, 3))) == []
    assert DepthwiseGenerator().implement(*layer((9, 12, 4), (9, 9))) == []
    assert DepthwiseGenerator().implement(*grouped(layer((9, 12, 10)), 5, 5)) == []


@st.composite
def layers(draw) -> Layer:
    inputs = draw(st.sampled_from([0, 0, 0, 2, 3, 4]))
    most, largest = (4, 14) if inputs else (7, 40)
    size = draw(st.tuples(st.integers(1, most), st.integers(1, most)))
    padding = tuple(draw(st.integers(0, max(0, size[axis % 2] - 1))) for axis in range(4))
    tall, wide = (
        draw(st.integers(max(1, size[axis] - padding[axis] - padding[axis + 2]), largest))
        for axis in range(2)
    )
    low, high = sorted(draw(st.tuples(st.integers(-128, 127), st.integers(-128, 127))))
    channels = inputs * draw(st.integers(2, 3)) if inputs else draw(st.integers(4, 9))
    made = layer(
        (tall, wide, channels),
        size,
        draw(st.tuples(st.integers(1, 3), st.integers(1, 3))),
        padding,
        seed=draw(st.integers(0, 1000)),
        gain=draw(st.sampled_from([1e-4, 0.1, 1.0, 100.0])),
        input_zero_point=draw(st.integers(-128, 127)),
        zero_point=draw(st.sampled_from([-128, -7, 127])),
        bounds=draw(st.sampled_from([(-128, 127), (low, high)])),
        bias_limit=draw(st.sampled_from([3000, 2**20])),
        multiplier=1 if inputs else draw(st.sampled_from([1, 1, 1, 2])),
    )
    return grouped(made, inputs, draw(st.integers(1, 4))) if inputs else made


@settings(max_examples=8, deadline=None, derandomize=True)
@given(given_layers=st.lists(layers(), min_size=4, max_size=4), core=st.sampled_from(CORES))
def test_any_layer(given_layers, core):
    check(given_layers, core)
