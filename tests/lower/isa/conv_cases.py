"""Convolutions that exercise the DSP generators, and the check they all share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from board import Board
from hypothesis import strategies as st

from edgecompress.lower.isa.interface import Generator, Implementation
from edgecompress.lower.kernels.add import Add, single_rounding
from edgecompress.lower.kernels.conv2d import Conv2D, Window
from edgecompress.lower.kernels.conv2d_add import Conv2DAdd
from edgecompress.lower.kernels.requant import make_requantize


class Case:
    """A kernel with its activations and constants; printed without them."""

    def __init__(
        self, kernel: Any, activations: tuple[np.ndarray, ...], constants: tuple[np.ndarray, ...]
    ) -> None:
        self.kernel, self.activations, self.constants = kernel, activations, constants

    def __repr__(self) -> str:
        return repr(self.kernel)

    @property
    def expected(self) -> np.ndarray:
        return self.kernel.reference(*self.activations, *self.constants)


def convolution(
    window: Window,
    outputs: int,
    *,
    seed: int = 0,
    groups: int = 1,
    gain: float = 1.0,
    bounds: tuple[int, int] = (-128, 127),
    zero_points: tuple[int, int] = (-3, -7),
    extreme: bool = False,
    form: str = "smmla",
    bias_limit: int = 5000,
) -> Case:
    """At gain 1 the outputs spread over all of int8; `extreme` inputs and weights saturate them."""
    random = np.random.default_rng(seed)
    channels = window.input_shape[3]
    inputs = channels // groups
    shape = (outputs, *window.size, inputs)
    if extreme:
        x = random.choice(np.array([-128, 127], np.int8), window.input_shape)
        weights = random.choice(np.array([-127, 127], np.int8), shape)
    else:
        x = random.integers(-128, 128, window.input_shape).astype(np.int8)
        weights = random.integers(-127, 128, shape).astype(np.int8)
    real = gain * random.uniform(0.2, 1, outputs) / (70 * np.sqrt(weights[0].size))
    requantize, tables = make_requantize(
        np.minimum(real, 1.9), form=form, zero_point=zero_points[1], low=bounds[0], high=bounds[1],
        accumulator_bound=128 * 127 * weights[0].size + bias_limit,
    )  # fmt: skip
    bias = random.integers(-bias_limit, bias_limit + 1, outputs).astype(np.int32)
    kernel = Conv2D(window, outputs, groups, zero_points[0], requantize)
    return Case(kernel, (x,), (weights, bias, *tables))


def added(case: Case, *, operand: int = 0, low: int = -128, seed: int = 0) -> Case:
    """The convolution's result added to noise of another scale."""
    shape = case.kernel.output_shape
    other = np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)
    scales = (0.05, 0.13, 0.1) if operand == 0 else (0.13, 0.05, 0.1)
    rounding = single_rounding(scales, (-7, 5, 3) if operand == 0 else (5, -7, 3))
    kernel = Conv2DAdd(case.kernel, Add(shape, shape, rounding, low=low), operand)
    return Case(kernel, (*case.activations, other), case.constants)


@st.composite
def windows(draw: Any, channels: int) -> Window:
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 3), (2, 2)]))
    padding = draw(st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1), (2, 3, 0, 1)]))
    least = [d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)]
    tall = max(draw(st.integers(1, 7)), least[0] - padding[0] - padding[2])
    wide = max(draw(st.integers(1, 7)), least[1] - padding[1] - padding[3])
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return Window((1, tall, wide, channels), size, strides, padding, dilation)


@st.composite
def convolutions(draw: Any, pointwise: bool = False) -> Case:
    """Odd sizes, borders wider than the image, bounds inside int8, multipliers above one."""
    groups = 1 if pointwise else draw(st.sampled_from([1, 1, 1, 2, 3]))
    inputs = draw(st.sampled_from([1, 2, 3, 4, 6, 8, 13, 16]))
    outputs = groups * draw(st.integers(1, 6))
    if pointwise:
        window = Window((1, *draw(st.tuples(*[st.integers(1, 6)] * 2)), inputs), (1, 1))
    else:
        window = draw(windows(groups * inputs))
    case = convolution(
        window, outputs, groups=groups, seed=draw(st.integers(0, 2**16)),
        gain=draw(st.sampled_from([1e-4, 0.3, 1.0, 8.0, 400.0])),
        bounds=draw(st.sampled_from([(-128, 127), (-128, 127), (-7, 127), (3, 100), (-128, -60)])),
        zero_points=draw(st.sampled_from([(-128, -128), (5, 0), (127, -7), (-1, 127)])),
        extreme=draw(st.booleans()),
        bias_limit=draw(st.sampled_from([0, 5000, 1 << 22])),
    )  # fmt: skip
    if groups == 1 and not pointwise and draw(st.integers(0, 3)) == 0:
        low = draw(st.sampled_from([-128, 3]))
        case = added(case, operand=draw(st.integers(0, 1)), low=low)
    return case


def check(
    cases: Sequence[Case], generators: Sequence[Generator], core: str, *, pick: int | None = None
) -> list[list[Implementation]]:
    """Each offer gives the twin's bits, apart from its input and as close as it says it may lie.

    Args:
        pick: of each case's offers only the one this number selects, which is quicker.
    """
    offers = [
        [offer for one in generators for offer in one.implement(case.kernel, case.constants)]
        for case in cases
    ]
    chosen = [
        (case, offer)
        for case, given in zip(cases, offers, strict=True)
        for offer in (given if pick is None or not given else [given[pick % len(given)]])
    ]
    board = Board([offer for _case, offer in chosen], core)
    for index, (case, offer) in enumerate(chosen):
        expected = case.expected
        outcome = board.run(index, case.activations, expected.shape)
        np.testing.assert_array_equal(outcome.output, expected, str((offer.symbol, case.kernel)))
        distance = offer.may_overlap_input
        if distance is not None:
            closest = min(distance, 0)
            outcome = board.run(index, case.activations, expected.shape, overlap=closest)
            np.testing.assert_array_equal(outcome.output, expected, str((offer.symbol, closest)))
    return offers
