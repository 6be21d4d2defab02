"""Hypothesis strategies for the MVE kernels: adversarial shapes and values, "smmla" rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from edgecompress.lower.kernels.add import Add, single_rounding
from edgecompress.lower.kernels.average_pool2d import AveragePool2d
from edgecompress.lower.kernels.conv2d import Conv2D, Window
from edgecompress.lower.kernels.conv2d_add import Conv2DAdd
from edgecompress.lower.kernels.dense import Dense
from edgecompress.lower.kernels.depthwise_conv2d import DepthwiseConv2D
from edgecompress.lower.kernels.max_pool2d import MaxPool2d
from edgecompress.lower.kernels.mean import Mean
from edgecompress.lower.kernels.pooling import Window as PoolWindow
from edgecompress.lower.kernels.requant import Requantize, make_requantize

Case = tuple[Any, list[np.ndarray], list[np.ndarray]]  # kernel, activations, constants


def generators(draw: Any) -> np.random.Generator:
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def values(
    generator: np.random.Generator, draw: Any, shape: tuple[int, ...], low: int = -128
) -> np.ndarray:
    """int8 noise, or nothing but the extremes."""
    if draw(st.booleans()):
        return generator.choice(np.array([low, 127], np.int8), shape)
    return generator.integers(low, 128, shape).astype(np.int8)


def requantizations(
    generator: np.random.Generator, draw: Any, channels: int
) -> tuple[Requantize, tuple[np.ndarray, ...]]:
    """Multipliers from far below one to above one, which needs the left shift."""
    largest = draw(st.sampled_from([1e-6, 2e-4, 2e-3, 0.02, 0.5, 0.9, 3.7]))
    low, high = sorted(draw(st.tuples(st.integers(-128, 127), st.integers(-128, 127))))
    return make_requantize(
        largest * generator.uniform(0.01, 1, channels),
        form="smmla",
        zero_point=draw(st.sampled_from([-128, -7, 0, 127])),
        low=draw(st.sampled_from([-128, low])),
        high=draw(st.sampled_from([127, high])),
        accumulator_bound=1 << 24,
    )


@st.composite
def windows(draw: Any, channels: int, pointwise: bool = False) -> Window:
    if pointwise:
        tall, wide = draw(st.integers(1, 5)), draw(st.integers(1, 6))
        strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        return Window((1, tall, wide, channels), (1, 1), strides)
    size = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 3)]))
    padding = draw(st.tuples(*[st.integers(0, 3)] * 4))
    extents = []
    for axis, most in ((0, 8), (1, 9)):
        around = padding[axis] + padding[axis + 2]
        least = max(1, dilation[axis] * (size[axis] - 1) + 1 - around)
        extents.append(max(least, draw(st.integers(1, most))))
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return Window((1, *extents, channels), size, strides, padding, dilation)


def _weights(
    generator: np.random.Generator,
    draw: Any,
    shape: tuple[int, ...],
    channels: int,
    requantize: Requantize,
    low: int = -128,
) -> list[np.ndarray]:
    """Weights and bias; small ones where the multiplier is large, so that not all saturates."""
    if requantize.left_shift and draw(st.booleans()):
        few = (generator.random(shape) < 0.1) * generator.integers(-1, 2, shape)
        return [few.astype(np.int8), generator.integers(-99, 99, channels).astype(np.int32)]
    bias = generator.integers(-(2**20), 2**20, channels).astype(np.int32)
    return [values(generator, draw, shape, low), bias]


@st.composite
def conv2d_cases(draw: Any) -> Case:
    generator = generators(draw)
    inputs = draw(st.sampled_from([1, 2, 3, 5, 8, 16, 16, 17, 32, 48]))
    channels = draw(st.sampled_from([1, 2, 3, 4, 5, 7, 8, 13]))
    window = draw(windows(inputs, pointwise=draw(st.integers(0, 3)) == 0))
    requantize, tables = requantizations(generator, draw, channels)
    kernel = Conv2D(window, channels, 1, draw(st.integers(-128, 127)), requantize)
    constants = _weights(generator, draw, (channels, *window.size, inputs), channels, requantize)
    x = values(generator, draw, window.input_shape)
    return kernel, [x], [*constants, *tables]


@st.composite
def dense_cases(draw: Any) -> Case:
    generator = generators(draw)
    leading = draw(st.sampled_from([(1,), (1,), (3,), (1, 2)]))
    inputs = draw(st.sampled_from([1, 7, 8, 16, 33, 48, 64, 100]))
    channels = draw(st.integers(1, 13))
    requantize, tables = requantizations(generator, draw, channels)
    kernel = Dense((*leading, inputs), channels, requantize)
    constants = _weights(generator, draw, (channels, inputs), channels, requantize)
    x = values(generator, draw, (*leading, inputs))
    return kernel, [x], [*constants, *tables]


@st.composite
def depthwise_cases(draw: Any) -> Case:
    generator = generators(draw)
    channels = draw(st.sampled_from([1, 2, 8, 15, 16, 17, 24, 32, 40]))
    multiplier = draw(st.sampled_from([1, 4])) if channels == 1 else 1
    window = draw(windows(channels))
    requantize, tables = requantizations(generator, draw, channels * multiplier)
    kernel = DepthwiseConv2D(window, multiplier, draw(st.integers(-128, 127)), requantize)
    shape = (*window.size, channels * multiplier)
    constants = _weights(generator, draw, shape, shape[2], requantize, -127)
    x = values(generator, draw, window.input_shape)
    return kernel, [x], [*constants, *tables]


@st.composite
def additions(draw: Any, shape: tuple[int, ...]) -> Add:
    scales = draw(st.tuples(*[st.sampled_from([0.003, 0.02, 0.11])] * 3))
    zero_points = draw(st.tuples(*[st.sampled_from([-128, -3, 0, 127])] * 3))
    low, high = draw(st.sampled_from([(-128, 127), (-128, 127), (-20, 90), (5, 5)]))
    return Add(shape, shape, single_rounding(scales, zero_points), low, high)


@st.composite
def addition_cases(draw: Any) -> Case:
    generator = generators(draw)
    shape = draw(st.sampled_from([(1, 1), (1, 2, 2, 3), (1, 4, 4, 4), (1, 37), (1, 3, 5, 16)]))
    operands = [values(generator, draw, shape) for _ in range(2)]
    return draw(additions(shape)), operands, []


@st.composite
def conv2d_add_cases(draw: Any) -> Case:
    conv, activations, constants = draw(conv2d_cases())
    kernel = Conv2DAdd(conv, draw(additions(conv.output_shape)), draw(st.integers(0, 1)))
    other = values(generators(draw), draw, conv.output_shape)
    return kernel, [*activations, other], constants


@st.composite
def pool_windows(draw: Any) -> PoolWindow:
    channels = draw(st.sampled_from([1, 3, 4, 7, 16, 18, 33]))
    kernel = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    strides = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = (0, 0, 0, 0)
    if draw(st.booleans()):
        # less than the window, so that none lies outside the image
        sides = [st.integers(0, kernel[axis] - 1) for axis in (0, 1, 0, 1)]
        padding = draw(st.tuples(*sides))
    extents = [
        draw(st.integers(max(1, kernel[axis] - padding[axis] - padding[axis + 2]), 9))
        for axis in (0, 1)
    ]
    return PoolWindow((1, *extents, channels), kernel, strides, padding)


@st.composite
def pool_cases(draw: Any) -> Case:
    generator = generators(draw)
    window = draw(pool_windows())
    x = values(generator, draw, window.input_shape)
    low, high = draw(st.sampled_from([(-128, 127), (-128, 127), (-20, 90)]))
    kind = draw(st.sampled_from(["maximum", "divide", "requantize", "mean"]))
    if kind == "maximum":
        return MaxPool2d(window, low, high), [x], []
    if kind == "mean":
        shape, axes, output = draw(
            st.sampled_from(
                [
                    ((1, 4, 5, 7), (1, 2), (1, 7)),
                    ((1, 4, 5, 7), (1, 2), (1, 1, 1, 7)),
                    ((1, 6, 2, 3), (1,), (1, 2, 3)),
                    ((1, 9, 17), (1,), (1, 17)),
                ]
            )
        )
        requantize, tables = requantizations(generator, draw, 1)
        kernel = Mean(shape, axes, output, draw(st.sampled_from([-128, 3])), requantize)
        return kernel, [values(generator, draw, shape)], list(tables)
    include, zero_point = draw(st.booleans()), draw(st.sampled_from([-128, 0, 9]))
    if kind == "divide":
        return AveragePool2d(window, include, zero_point, low, high), [x], []
    requantize, tables = requantizations(generator, draw, window.size + 1)
    kernel = AveragePool2d(window, include, zero_point, low, high, requantize)
    return kernel, [x], list(tables)
