"""MVE convolutions and dense layers: bit-exact to the numpy twin on QEMU's Cortex-M55."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mve_board import check, needs_qemu
from mve_cases import Case, conv2d_add_cases, conv2d_cases, dense_cases

from edgecompress.lower.isa.interface import Implementation
from edgecompress.lower.isa.mve.conv2d import ConvolutionGenerator
from edgecompress.lower.kernels.conv2d import Conv2D, Window
from edgecompress.lower.kernels.dense import Dense
from edgecompress.lower.kernels.requant import Requantize, make_requantize


@needs_qemu
@given(cases=st.lists(conv2d_cases(), min_size=24, max_size=24))
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_convolution(cases: list[Case]) -> None:
    check([ConvolutionGenerator()], cases)


@needs_qemu
@given(cases=st.lists(dense_cases(), min_size=12, max_size=12))
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_dense(cases: list[Case]) -> None:
    check([ConvolutionGenerator()], cases)


@needs_qemu
@given(cases=st.lists(conv2d_add_cases(), min_size=16, max_size=16))
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_convolution_with_residual(cases: list[Case]) -> None:
    check([ConvolutionGenerator()], cases)


def _layer(window: Window, channels: int) -> Case:
    """A layer of random values whose results spread over int8."""
    generator = np.random.default_rng(window.input_shape[1] * channels)
    inputs = window.input_shape[3]
    taps = window.size[0] * window.size[1] * inputs
    real = generator.uniform(0.5, 1, channels) / (64 * np.sqrt(taps))
    requantize, tables = make_requantize(
        real, form="smmla", zero_point=-5, low=-128, high=127, accumulator_bound=1 << 24
    )
    kernel = Conv2D(window, channels, 1, 7, requantize)
    weights = generator.integers(-127, 128, (channels, *window.size, inputs)).astype(np.int8)
    x = generator.integers(-128, 128, window.input_shape).astype(np.int8)
    return kernel, [x], [weights, np.zeros(channels, np.int32), *tables]


@needs_qemu
def test_instructions_are_as_predicted() -> None:
    """Within 5 %, and as few for each multiplication as the tiling promises."""
    cases = [
        (_layer(Window((1, 12, 12, 16), (3, 3), padding=(1, 1, 1, 1)), 16), 0.22),
        (_layer(Window((1, 8, 8, 64), (3, 3), padding=(1, 1, 1, 1)), 32), 0.15),
        (_layer(Window((1, 9, 9, 64), (1, 1)), 64), 0.19),
        (_layer(Window((1, 16, 16, 3), (3, 3), (2, 2), (0, 0, 1, 1)), 16), 0.60),
    ]
    generator = ConvolutionGenerator()
    for case, most in cases:
        kernel, _, constants = case
        (offer,) = generator.implement(kernel, tuple(constants))
        result = check([generator], [case])[0]
        assert np.unique(result.output).size > 100
        assert offer.cost.instructions == pytest.approx(result.instructions, rel=0.05)
        assert result.instructions / kernel.macs < most


def _offers(**changes: Any) -> list[Implementation]:
    given = {"form": "smmla", "groups": 1, "batch": 1} | changes
    requantize = Requantize(given["form"], 0, -128, 127, shift=4)
    window = Window((given["batch"], 4, 4, 4), (3, 3))
    kernel = Conv2D(window, 4, given["groups"], 0, requantize)
    weights = np.ones((4, 3, 3, 4 // given["groups"]), np.int8)
    table = np.ones(4, np.int32)
    return ConvolutionGenerator().implement(kernel, (weights, table, table))


def test_refusals() -> None:
    assert len(_offers()) == 1
    assert _offers(form="double") == []
    assert _offers(groups=2) == []
    assert _offers(batch=2) == []
    single = Dense((1, 8), 4, Requantize("single", 0, -128, 127))
    table = np.ones(4, np.int32)
    assert ConvolutionGenerator().implement(single, (np.ones((4, 8), np.int8), table, table)) == []


def test_equal_routines_have_equal_text() -> None:
    texts: dict[str, str] = {}
    for window in (Window((1, 4, 4, 4), (3, 3)), Window((1, 4, 4, 16), (1, 1))):
        for channels in (3, 8):
            kernel, _, constants = _layer(window, channels)
            (offer,) = ConvolutionGenerator().implement(kernel, tuple(constants))
            assert offer.symbol in offer.assembly
            for name, text in offer.assembly.items():
                assert texts.setdefault(name, text) == text
    assert len(texts) == 4  # two outer loops, one and two rows
