"""Weights decoded into scratch before the DSP kernels run, against the numpy twin."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from board import CORES, Board
from conv_cases import Case, added, convolution, convolutions
from hypothesis import given, settings
from hypothesis import strategies as st
from test_dsp_dense import layer, samples

from edgecompress.lower.isa.dsp.conv2d import Conv2DGenerator
from edgecompress.lower.isa.dsp.decoded import DecodedGenerator
from edgecompress.lower.isa.dsp.dense import DenseGenerator
from edgecompress.lower.isa.dsp.pointwise import PointwiseGenerator
from edgecompress.lower.isa.interface import Implementation
from edgecompress.lower.kernels.conv2d import Window

PLAIN = (Conv2DGenerator(), PointwiseGenerator(), DenseGenerator())
GENERATOR = DecodedGenerator(*PLAIN)


def digits(weights: np.ndarray) -> np.ndarray:
    """Four bits, all of them: the kernel's own form refuses -8 beside a negative."""
    return np.clip(weights, -8, 7)


def shared16(weights: np.ndarray) -> np.ndarray:
    return ((weights.astype(int) + 128) // 17 * 17 - 120).clip(-128, 127)


def shared4(weights: np.ndarray) -> np.ndarray:
    return np.array([-90, 0, 33, 127])[weights.astype(int) % 4]


def sparse(weights: np.ndarray) -> np.ndarray:
    return weights * (np.arange(weights.size).reshape(weights.shape) * 7919 % 5 > 2)


STORED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "packed4": digits, "lut16": shared16, "lut4": shared4, "bitmap": sparse,
}  # fmt: skip


def stored(case: Case, codec: str) -> Case:
    weights, *rest = case.constants
    return Case(case.kernel, case.activations, (STORED[codec](weights).astype(np.int8), *rest))


def offered(case: Case, codec: str) -> list[Implementation]:
    found = GENERATOR.implement(case.kernel, case.constants)
    return [offer for offer in found if offer.codec == codec]


def check(case: Case, codec: str, core: str, pick: int | None = None) -> list[Implementation]:
    """Every offer, or the one `pick` selects, gives the twin's bits, also beside its input."""
    offers = offered(case, codec)
    if pick is not None and offers:
        offers = [offers[pick % len(offers)]]
    board = Board(offers, core)
    expected = case.expected
    for index, offer in enumerate(offers):
        outcome = board.run(index, case.activations, expected.shape)
        np.testing.assert_array_equal(outcome.output, expected, offer.description)
        if offer.may_overlap_input is not None:
            closest = min(offer.may_overlap_input, 0)
            outcome = board.run(index, case.activations, expected.shape, overlap=closest)
            np.testing.assert_array_equal(outcome.output, expected, offer.description)
    return offers


def dense_case(inputs: int, outputs: int, **options: object) -> Case:
    kernel, constants = layer(inputs, outputs, **options)  # type: ignore[arg-type]
    return Case(kernel, (samples(kernel.input_shape, 1)[0],), constants)


@pytest.mark.parametrize("codec", STORED)
def test_dense(codec):
    """Whole and in parts, with a tail of channels, exactly as many instructions as predicted."""
    case = stored(dense_case(24, 37), codec)
    offers = check(case, codec, "cortex-m4")
    assert any("in 3 parts" in offer.description for offer in offers)
    board = Board(offers, "cortex-m4")
    for index, offer in enumerate(offers):
        outcome = board.run(index, case.activations, case.expected.shape)
        assert outcome.instructions == offer.cost.instructions, offer.description


@pytest.mark.parametrize("codec", STORED)
def test_convolutions(codec):
    """A window, one pixel, sums in place, groups, an odd channel."""
    same = (1, 1, 1, 1)
    window = Window((1, 5, 4, 8), (3, 3), (1, 1), same)
    cases = [
        convolution(window, 20), convolution(Window((1, 5, 4, 8), (1, 1)), 24),
        added(convolution(window, 8)), convolution(window, 12, groups=2),
        convolution(window, 7, bias_limit=1 << 23),
    ]  # fmt: skip
    for case in cases:
        offers = check(stored(case, codec), codec, "cortex-m7")
        assert offers, case


@settings(max_examples=12, deadline=None)
@given(
    case=convolutions(), codec=st.sampled_from(sorted(STORED)), pick=st.integers(0, 100),
    core=st.sampled_from(CORES),
)  # fmt: skip
def test_any_convolution(case, codec, pick, core):
    check(stored(case, codec), codec, core, pick)


@settings(max_examples=12, deadline=None)
@given(
    inputs=st.integers(1, 70), outputs=st.integers(1, 40), rows=st.sampled_from([1, 1, 3]),
    codec=st.sampled_from(sorted(STORED)), pick=st.integers(0, 100), seed=st.integers(0, 99),
    core=st.sampled_from(CORES), bias_limit=st.sampled_from([1, 300_000]),
)  # fmt: skip
def test_any_dense(inputs, outputs, rows, codec, pick, seed, core, bias_limit):
    inputs = inputs if rows == 1 else 4 * inputs
    case = dense_case(inputs, outputs, rows=rows, seed=seed, bias_limit=bias_limit)
    check(stored(case, codec), codec, core, pick)


def test_bytes_and_scratch():
    """The constants shrink by what the codec says; parts need less scratch and more time."""
    case = convolution(Window((1, 6, 6, 32), (3, 3), (1, 1), (1, 1, 1, 1)), 64)
    plain = min(
        (offer for one in PLAIN for offer in one.implement(case.kernel, case.constants)),
        key=lambda offer: offer.cost.cycles,
    )
    count = case.constants[0].size
    shares = {"packed4": 1 / 2, "lut16": 1 / 2, "lut4": 1 / 4}
    for codec, share in shares.items():
        offers = [
            offer for offer in offered(stored(case, codec), codec) if "plain" not in offer.symbol
        ]
        for offer in offers:
            parts = 1 if "parts" not in offer.description else 8
            assert (
                abs(offer.constant_bytes - plain.constant_bytes + count * (1 - share)) < 200 * parts
            )
        whole = [offer for offer in offers if "parts" not in offer.description]
        parted = [offer for offer in offers if "in 8 parts" in offer.description]
        assert max(o.scratch_bytes for o in parted) < min(o.scratch_bytes for o in whole) / 3
        assert min(o.cost.cycles for o in parted) > min(o.cost.cycles for o in whole)


def test_dense_values_and_other_layers_are_left_alone():
    case = convolution(Window((1, 5, 4, 8), (3, 3)), 8)
    assert GENERATOR.implement(case.kernel, case.constants) == []
    assert GENERATOR.implement(added(case).kernel.add, ()) == []
    few = stored(dense_case(8, 4), "lut4")
    assert {offer.codec for offer in GENERATOR.implement(few.kernel, few.constants)} >= {"lut4"}
