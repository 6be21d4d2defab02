"""Weights of four bits inside the DSP dense routine, against the numpy twin on M4, M7 and M33."""

from __future__ import annotations

import numpy as np
import pytest
from board import CORES, Board
from hypothesis import given, settings
from hypothesis import strategies as st
from test_dsp_dense import layer, samples

from edgecompress.lower.isa.dsp.dense import DenseGenerator
from edgecompress.lower.isa.dsp.packed4_dense import Packed4DenseGenerator
from edgecompress.lower.kernels.dense import Dense


def check(kernel: Dense, constants: tuple[np.ndarray, ...], core: str, count: int = 1) -> set[str]:
    """Every offer gives the twin's bits in as many instructions as predicted; their symbols."""
    offers = Packed4DenseGenerator().implement(kernel, constants)
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


@settings(max_examples=12, deadline=None)
@given(
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 13),
    weight_limit=st.sampled_from([1, 7]),
    gain=st.sampled_from([1e-4, 1.0, 20.0]),
    bounds=st.tuples(st.integers(-128, 127), st.integers(-128, 127)),
    core=st.sampled_from(CORES),
    seed=st.integers(0, 1000),
    input_zero_point=st.integers(-128, 127),
    bias_limit=st.sampled_from([1, 20000, 300000]),
    uniform=st.booleans(),
)
def test_any_layer(
    inputs, outputs, weight_limit, gain, bounds, core, seed, input_zero_point, bias_limit, uniform
):
    kernel, constants = layer(
        inputs, outputs, seed=seed, weight_limit=weight_limit, gain=gain, low=min(bounds),
        high=max(bounds), uniform=uniform, input_zero_point=input_zero_point,
        bias_limit=bias_limit,
    )  # fmt: skip
    assert check(kernel, constants, core, count=2)


@pytest.mark.parametrize("core", CORES)
def test_rows(core):
    for inputs, outputs in ((12, 8), (8, 11)):
        assert len(check(*layer(inputs, outputs, rows=3, weight_limit=7), core, count=2)) == 3


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7"])
@pytest.mark.parametrize(("inputs", "outputs"), [(640, 128), (128, 128), (64, 10)])
def test_costs_at_most_a_third_more(inputs, outputs, core):
    """The contract: 1.3 times the int8 kernel's instructions, for half its bytes."""
    kernel, constants = layer(inputs, outputs, weight_limit=7)
    dense = min(
        DenseGenerator().implement(kernel, constants), key=lambda offer: offer.cost.instructions
    )
    packed = min(
        Packed4DenseGenerator().implement(kernel, constants),
        key=lambda offer: offer.cost.instructions,
    )
    board = Board([dense, packed], core)
    x = samples(kernel.input_shape, 1)[0]
    first, second = (board.run(index, [x], kernel.output_shape) for index in range(2))
    np.testing.assert_array_equal(first.output, second.output)
    assert second.instructions <= 1.3 * first.instructions
    saved = sum(a.nbytes for a in dense.constants) - sum(a.nbytes for a in packed.constants)
    assert saved == inputs * -(-outputs // 4) * 4 // 2


def test_what_does_not_fit_is_refused():
    """Five bits; digits that borrow past their place; sums of more than 20 bits."""
    kernel, (_, bias, table) = layer(4, 4)

    def offered(rows, inputs=4):
        weights = np.tile(np.array(rows, np.int8)[:, None], (1, inputs))
        shaped = Dense((1, inputs), 4, kernel.requantize)
        constants = weights, np.zeros_like(bias), table
        return Packed4DenseGenerator().implement(shaped, constants)

    assert offered([7, 7, 7, 7])
    assert offered([-8, 0, 7, -8])
    assert not offered([8, 0, 0, 0])
    assert not offered([-1, -8, 0, 0])
    assert not offered([0, -8, -8, 0])
    assert not offered([0, 0, -8, -8])
    assert offered([7, 7, 1, 1], 2000)
    assert not offered([1, 1, 1, 7], 2000)
    assert not offered([1, 1, 7, 1], 2000)
