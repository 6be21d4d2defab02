"""Hypothesis strategies for the weighted kernels: a kernel with arguments that exercise it."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from edgecompress.lower.kernels.conv2d import Conv2D, Window
from edgecompress.lower.kernels.dense import Dense
from edgecompress.lower.kernels.depthwise_conv2d import DepthwiseConv2D
from edgecompress.lower.kernels.requant import Requantize, make_requantize

FORMS = ("smmla", "double", "single")
Case = tuple[Any, list[np.ndarray]]


def requantizations(
    generator: np.random.Generator, draw: Any, channels: int
) -> tuple[Requantize, tuple[np.ndarray, ...]]:
    """Multipliers from far below one (most outputs 0) to above one (most saturate)."""
    largest = draw(st.sampled_from([1e-6, 2e-3, 0.02, 0.5, 0.9, 1.0, 3.7]))
    real = largest * generator.uniform(0.01, 1, channels)
    low, high = sorted(draw(st.tuples(st.integers(-128, 127), st.integers(-128, 127))))
    return make_requantize(
        real,
        form=draw(st.sampled_from(FORMS)),
        zero_point=draw(st.sampled_from([-128, -7, 0, 127])),
        low=draw(st.sampled_from([-128, low])),
        high=draw(st.sampled_from([127, high])),
        accumulator_bound=1 << 24,
    )


def values(
    generator: np.random.Generator, draw: Any, shape: tuple[int, ...], low: int
) -> np.ndarray:
    """int8 noise, or nothing but the extremes."""
    if draw(st.booleans()):
        return generator.choice(np.array([low, 127], np.int8), shape)
    return generator.integers(low, 128, shape).astype(np.int8)


@st.composite
def windows(draw: Any, channels: int) -> Window:
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(st.sampled_from([(1, 1), (2, 1), (1, 3)]))
    padding = draw(st.tuples(*[st.integers(0, 2)] * 4))
    least = [d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)]
    fewest = [max(1, least[axis] - padding[axis] - padding[axis + 2]) for axis in (0, 1)]
    tall, wide = (draw(st.integers(size, max(7, size))) for size in fewest)
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return Window((1, tall, wide, channels), size, strides, padding, dilation)


@st.composite
def conv2d_cases(draw: Any) -> Case:
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    window = draw(windows(groups * inputs))
    channels = groups * outputs
    requantize, tables = requantizations(generator, draw, channels)
    kernel = Conv2D(window, channels, groups, draw(st.integers(-128, 127)), requantize)
    return kernel, [
        values(generator, draw, window.input_shape, -128),
        values(generator, draw, (channels, *window.size, inputs), -127),
        generator.integers(-(2**20), 2**20, channels).astype(np.int32),
        *tables,
    ]


@st.composite
def depthwise_cases(draw: Any) -> Case:
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    inputs, multiplier = draw(st.integers(1, 8)), draw(st.sampled_from([1, 1, 2, 3]))
    window = draw(windows(inputs))
    channels = inputs * multiplier
    requantize, tables = requantizations(generator, draw, channels)
    kernel = DepthwiseConv2D(window, multiplier, draw(st.integers(-128, 127)), requantize)
    return kernel, [
        values(generator, draw, window.input_shape, -128),
        values(generator, draw, (*window.size, channels), -127),
        generator.integers(-(2**20), 2**20, channels).astype(np.int32),
        *tables,
    ]


@st.composite
def dense_cases(draw: Any) -> Case:
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    leading = draw(st.sampled_from([(1,), (3,), (1, 2)]))
    inputs, channels = draw(st.integers(1, 40)), draw(st.integers(1, 13))
    requantize, tables = requantizations(generator, draw, channels)
    kernel = Dense((*leading, inputs), channels, requantize)
    return kernel, [
        values(generator, draw, (*leading, inputs), -128),
        values(generator, draw, (channels, inputs), -127),
        generator.integers(-(2**20), 2**20, channels).astype(np.int32),
        *tables,
    ]
