"""Outputs over dying inputs: what kernels permit is safe, whatever the shape."""

from __future__ import annotations

import numpy as np
import pytest
from host_kernels import HostKernels
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from weighted_cases import Case, conv2d_cases, depthwise_cases, windows

from edgecompress.lower.kernels.add import Add, LitertRounding, single_rounding
from edgecompress.lower.kernels.conv2d import Window
from edgecompress.lower.kernels.conv2d_add import Conv2DAdd
from edgecompress.lower.kernels.lookup import Lookup
from edgecompress.lower.program import Overlap


def _convolve_in(memory: np.ndarray, window: Window, at: int, output_at: int, outputs: int) -> None:
    """A convolution-like map, byte by byte, channel by channel, in one memory."""
    _, height, width, channels = window.input_shape
    tall, wide = window.output_size
    for i in range(tall):
        for j in range(wide):
            for o in range(outputs):
                total = 7 * o
                for a in range(window.size[0]):
                    for b in range(window.size[1]):
                        y = i * window.strides[0] - window.padding[0] + a * window.dilation[0]
                        x = j * window.strides[1] - window.padding[1] + b * window.dilation[1]
                        if 0 <= y < height and 0 <= x < width:
                            begin = at + (y * width + x) * channels
                            taps = memory[begin : begin + channels].astype(int)
                            total += (3 * a + 5 * b + 1) * int(taps.sum())
                memory[output_at + (i * wide + j) * outputs + o] = total & 255


@given(window=st.integers(1, 3).flatmap(windows), outputs=st.integers(1, 4), more=st.integers(0, 3))
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_no_pixel_is_overwritten_before_its_last_read(window, outputs, more):
    """The access order, simulated: the same bytes come out apart and at the stated distance."""
    distance = window.overlap_distance(outputs) - more
    assert distance < 0
    x = np.random.default_rng(0).integers(0, 256, int(np.prod(window.input_shape)), np.uint8)
    size = int(np.prod(window.output_size)) * outputs
    apart = np.concatenate([x, np.zeros(size, np.uint8)])
    _convolve_in(apart, window, 0, x.size, outputs)
    shared = np.zeros(-distance + max(x.size, size), np.uint8)
    shared[-distance : -distance + x.size] = x
    _convolve_in(shared, window, -distance, 0, outputs)
    np.testing.assert_array_equal(shared[:size], apart[x.size :])


def test_the_distance_of_a_3x3_filter_is_a_row_and_two_pixels():
    window = Window((1, 8, 8, 16), (3, 3), padding=(1, 1, 1, 1))
    assert window.overlap_distance(16) == -(8 + 2) * 16
    assert Window((1, 8, 8, 16), (1, 1)).overlap_distance(16) == -16
    # half as many outputs as inputs: the output falls behind, only the first pixel counts
    assert Window((1, 8, 8, 16), (1, 1)).overlap_distance(8) == -8


@given(cases=st.lists(conv2d_cases() | depthwise_cases(), min_size=5, max_size=5))
@settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_compiled_convolutions_keep_their_promise(cases: list[Case]) -> None:
    kernels = HostKernels(cases)
    for index, (kernel, arrays) in enumerate(cases):
        (overlap,) = kernel.overlaps
        distance = overlap.distance_bytes // 64 * 64
        found = kernels.run_overlapping(index, overlap.argument, distance, *arrays)
        np.testing.assert_array_equal(found, kernel.reference(*arrays))


def _rounding(random: np.random.Generator) -> object:
    if random.random() < 0.3:
        return LitertRounding((3, -5, 7), (1 << 30, 1 << 30, 1 << 30), (0, -1, -17))
    scales = tuple(float(scale) for scale in random.uniform(0.02, 0.09, 3))
    zero_points = tuple(int(zero) for zero in random.integers(-128, 128, 3))
    return single_rounding(scales, zero_points)


@given(cases=st.lists(conv2d_cases(), min_size=5, max_size=5), seed=st.integers(0, 99))
@settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_fused_addition_is_the_pair_and_works_in_place(cases: list[Case], seed: int) -> None:
    random = np.random.default_rng(seed)
    fused = []
    for number, (conv, (x, *constants)) in enumerate(cases):
        shape = conv.output_shape
        add = Add(shape, shape, _rounding(random), low=int(random.choice([-128, -20])))
        other = random.integers(-128, 128, shape).astype(np.int8)
        fused.append((Conv2DAdd(conv, add, number % 2), [x, other, *constants]))
    kernels = HostKernels(fused)
    for index, (kernel, arrays) in enumerate(fused):
        x, other, *constants = arrays
        value = kernel.conv.reference(x, *constants)
        pair = (value, other) if kernel.conv_operand == 0 else (other, value)
        expected = kernel.add.reference(*pair)
        np.testing.assert_array_equal(kernel.reference(*arrays), expected)
        np.testing.assert_array_equal(kernels.run(index, *arrays), expected)
        assert Overlap(1) in kernel.overlaps
        np.testing.assert_array_equal(kernels.run_overlapping(index, 1, 0, *arrays), expected)


@pytest.mark.parametrize("argument", [0, 1])
def test_elementwise_kernels_work_in_place(argument: int) -> None:
    random = np.random.default_rng(1)
    shape = (1, 5, 7, 3)
    arrays = [random.integers(-128, 128, shape).astype(np.int8) for _ in range(2)]
    table = random.integers(-128, 128, 256).astype(np.int8)
    add = Add(shape, shape, single_rounding((0.1, 0.05, 0.1), (3, -9, 4)))
    lookup = Lookup(shape)
    kernels = HostKernels([(add, arrays), (lookup, [arrays[0], table])])
    found = kernels.run_overlapping(0, argument, 0, *arrays)
    np.testing.assert_array_equal(found, add.reference(*arrays))
    found = kernels.run_overlapping(1, 0, 0, arrays[0], table)
    np.testing.assert_array_equal(found, lookup.reference(arrays[0], table))


def test_a_broadcast_operand_is_never_written_over() -> None:
    rounding = single_rounding((0.1, 0.05, 0.1), (3, -9, 4))
    assert Add((1, 4, 4, 8), (1, 1, 1, 8), rounding).overlaps == (Overlap(0),)
