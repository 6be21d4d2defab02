"""The DSP dense routines against the numpy twin on Cortex-M4, M7 and M33."""

from __future__ import annotations

import numpy as np
import pytest
from board import CORES, Board
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecompress.lower.isa.dsp.dense import DenseGenerator, fits_pairs
from edgecompress.lower.kernels.dense import Dense
from edgecompress.lower.kernels.requant import make_requantize


def layer(
    inputs: int,
    outputs: int,
    *,
    seed: int = 0,
    weight_limit: int = 127,
    gain: float = 1.0,
    zero_point: int = -5,
    low: int = -128,
    high: int = 127,
    form: str = "smmla",
    rows: int = 1,
    input_zero_point: int = 0,
    bias_limit: int = 3000,
    uniform: bool = False,
) -> tuple[Dense, tuple[np.ndarray, ...]]:
    """A dense layer whose outputs spread over all int8 values at gain 1."""
    random = np.random.default_rng(seed)
    weights = random.integers(-weight_limit, weight_limit + 1, (outputs, inputs)).astype(np.int8)
    own = random.integers(-bias_limit, bias_limit, outputs)
    bias = (own - input_zero_point * weights.sum(1, dtype=np.int64)).astype(np.int32)
    spread = np.full(outputs, 0.7) if uniform else random.uniform(0.5, 1.0, outputs)
    real = gain * spread / (weight_limit * np.sqrt(inputs))
    requantize, tables = make_requantize(
        real, form=form, zero_point=zero_point, low=low, high=high,
        accumulator_bound=255 * weight_limit * inputs + bias_limit,
    )  # fmt: skip
    return Dense((rows, inputs), outputs, requantize), (weights, bias, *tables)


def samples(shape: tuple[int, ...], seed: int) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [
        random.integers(-128, 128, shape).astype(np.int8),
        np.full(shape, -128, np.int8),
        random.choice(np.array([-128, 127], np.int8), shape),
    ]


def check(kernel: Dense, constants: tuple[np.ndarray, ...], core: str, count: int = 1) -> set[str]:
    """Every offer gives the twin's bits in as many instructions as predicted; their symbols."""
    offers = DenseGenerator().implement(kernel, constants)
    board = Board(offers, core)
    for index, offer in enumerate(offers):
        for x in samples(kernel.input_shape, index)[:count]:
            outcome = board.run(index, [x], kernel.output_shape)
            expected = kernel.reference(x, *constants)
            np.testing.assert_array_equal(outcome.output, expected, err_msg=offer.symbol)
            assert outcome.instructions == offer.cost.instructions, offer.symbol
        if offer.may_overlap_input is not None:
            x = samples(kernel.input_shape, index)[0]
            outcome = board.run(index, [x], kernel.output_shape, overlap=0)
            np.testing.assert_array_equal(outcome.output, kernel.reference(x, *constants))
    return {offer.symbol for offer in offers}


@pytest.mark.parametrize("core", CORES)
@pytest.mark.parametrize("inputs", [1, 4, 7, 12, 32, 129])
def test_sizes(core, inputs):
    for outputs in (1, 4, 10):
        wide = layer(inputs, outputs, bias_limit=4_000_000)
        found = check(*wide, core) | check(*layer(inputs, outputs, uniform=True), core)
        assert outputs < 10 or "dense_stream_2" in found
        assert found >= {"dense_pairs_4_narrow_uniform", "dense_stream_4_narrow_uniform"}


@pytest.mark.parametrize("core", CORES)
def test_variants(core):
    """Multipliers of a quarter and more, fused activations, the second half word's limits."""
    kernel, constants = layer(24, 8, gain=400.0, zero_point=3)
    assert kernel.requantize.left_shift > 0
    assert check(kernel, constants, core, count=3) >= {"dense_pairs_4_left_narrow"}
    kernel, constants = layer(24, 7, zero_point=-20, low=-20, high=90, bias_limit=90000)
    assert check(kernel, constants, core, count=3) >= {"dense_stream_2_clamp"}
    kernel, constants = layer(16, 9, gain=400.0, low=-100, uniform=True)
    found = check(kernel, constants, core, count=3)
    assert found >= {"dense_pairs_2_left_clamp_narrow_uniform"}


@pytest.mark.parametrize("inputs", [516, 2048, 2050])
def test_sums_of_more_than_24_bits(inputs):
    """All weights at the limit: 516 inputs still fit in pairs, 2048 do not."""
    kernel, (weights, bias, table) = layer(inputs, 4)
    weights = np.full_like(weights, -127)
    for constants in (
        (weights, bias // 8, table),
        (weights, bias * 100, np.full_like(table, 9999)),
    ):
        found = check(kernel, constants, "cortex-m7", count=3)
        plain = {"dense_plain_4_narrow"}, {"dense_plain_4_uniform"}
        assert (found in plain) == (inputs > 516 or bool((bias * 100 == constants[1]).all()))


def test_pairs_need_16_bits():
    """256 * -128 - 1 leaves 16 bits: such weights take the plain form."""
    weights = np.array([[-1, 5], [-128, 5]], np.int8)
    bias = np.zeros(2, np.int32)
    assert not fits_pairs(weights, bias)
    assert fits_pairs(weights[::-1], bias)
    assert not fits_pairs(weights[::-1], np.array([0, 2**23], np.int32))
    kernel, (_, _, table) = layer(2, 2)
    assert check(kernel, (weights, bias, table), "cortex-m4") == {"dense_plain_4_narrow"}


@pytest.mark.parametrize(
    "arguments", [{"form": "double"}, {"form": "single"}, {"rows": 2}], ids=str
)
def test_refuses(arguments):
    assert DenseGenerator().implement(*layer(9, 8, **arguments)) == []


@pytest.mark.parametrize("core", CORES)
def test_rows(core):
    for inputs, outputs in ((12, 8), (8, 11), (36, 3)):
        found = check(*layer(inputs, outputs, rows=3, bias_limit=200_000), core, count=2)
        assert found == {f"dense_pairs_{unroll}_rows" for unroll in (1, 2, 4)}
        assert check(*layer(inputs, outputs, rows=2, low=-30, uniform=True), core)
    kernel, (weights, bias, table) = layer(16, 5, rows=2)
    weights[0], weights[1] = -1, -128
    assert check(kernel, (weights, bias, table), core) == {"dense_plain_4_narrow_rows"}


def test_weights_do_not_grow():
    kernel, constants = layer(640, 128)
    for offer in DenseGenerator().implement(kernel, constants):
        grown = sum(array.nbytes for array in offer.constants) - sum(a.nbytes for a in constants)
        assert grown == 44 - 2 * 128
    kernel, constants = layer(640, 128, uniform=True, input_zero_point=-128)
    for offer in DenseGenerator().implement(kernel, constants):
        grown = sum(array.nbytes for array in offer.constants) - sum(a.nbytes for a in constants)
        assert grown == 44 - 6 * 128
        assert offer.cost.instructions < (1.1 if "stream" in offer.symbol else 1.0) * kernel.macs


def test_layers_share_their_routine():
    first = DenseGenerator().implement(*layer(640, 128))[0]
    second = DenseGenerator().implement(*layer(8, 12, zero_point=7))[0]
    board = Board([first, second])
    for index, sizes in enumerate(((640, 128), (8, 12))):
        kernel, constants = layer(*sizes, zero_point=7 if index else -5)
        x = samples((1, sizes[0]), 3)[2]
        outcome = board.run(index, [x], kernel.output_shape)
        np.testing.assert_array_equal(outcome.output, kernel.reference(x, *constants))


@settings(max_examples=25, deadline=None)
@given(
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 13),
    zero_point=st.integers(-128, 127),
    weight_limit=st.sampled_from([1, 127]),
    gain=st.sampled_from([1e-4, 1.0, 20.0, 400.0]),
    bounds=st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
    core=st.sampled_from(CORES),
    seed=st.integers(0, 1000),
    input_zero_point=st.integers(-128, 127),
    bias_limit=st.sampled_from([1, 20000, 300000]),
    uniform=st.booleans(),
)
def test_any_layer(
    inputs, outputs, zero_point, weight_limit, gain, bounds, core, seed, input_zero_point,
    bias_limit, uniform,
):  # fmt: skip
    kernel, constants = layer(
        inputs, outputs, seed=seed, weight_limit=weight_limit, gain=gain,
        zero_point=zero_point, low=min(bounds), high=max(bounds), uniform=uniform,
        input_zero_point=input_zero_point, bias_limit=bias_limit,
    )  # fmt: skip
    assert check(kernel, constants, core, count=2)
