"""MVE depthwise convolution: bit-exact to the numpy twin on QEMU's Cortex-M55."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mve_board import check, needs_qemu
from mve_cases import Case, depthwise_cases

from edgecompress.lower.isa.mve.conv2d import ConvolutionGenerator
from edgecompress.lower.isa.mve.depthwise import DepthwiseGenerator
from edgecompress.lower.kernels.conv2d import Window
from edgecompress.lower.kernels.depthwise_conv2d import DepthwiseConv2D
from edgecompress.lower.kernels.requant import Requantize

_REQUANTIZE = Requantize("smmla", 0, -128, 127, shift=4)


@needs_qemu
@given(cases=st.lists(depthwise_cases(), min_size=20, max_size=20))
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_depthwise(cases: list[Case]) -> None:
    check([DepthwiseGenerator(), ConvolutionGenerator()], cases)


def _offers(multiplier: int = 1, batch: int = 1, weight: int = 1, form: str = "smmla") -> list:
    channels = 3 * multiplier
    requantize = Requantize(form, 0, -128, 127, shift=4)
    kernel = DepthwiseConv2D(Window((batch, 4, 4, 3), (3, 3)), multiplier, 0, requantize)
    weights = np.full((3, 3, channels), weight, np.int8)
    tables = np.ones(channels, np.int32)
    return DepthwiseGenerator().implement(kernel, (weights, tables, tables))


def test_refusals() -> None:
    assert len(_offers()) == 1
    assert _offers(multiplier=2) == []
    assert _offers(batch=2) == []
    assert _offers(form="double") == []
    # two products of -128 * -128 do not fit the 16-bit sum
    assert _offers(weight=-128) == []
    assert len(_offers(weight=-127)) == 1
