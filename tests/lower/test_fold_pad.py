"""Padding layers that their readers take over: fewer steps, the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from litert import VALID, TinyModel

from edgecompress.lower import twin
from edgecompress.lower.passes.fold_pad import fold_pad
from edgecompress.lower.pipeline import lower
from edgecompress.lower.program import Program
from edgecompress.target.registry import load_target
from edgecompress.verify.host import HostModel

CHANNELS = 4
KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "MAX_POOL_2D")


class Network:
    """A TFLite model under construction; all windows are 3x3 and pad nothing themselves."""

    def __init__(self, size: tuple[int, int], zero_point: int = 3) -> None:
        self.model, self.parameters = TinyModel(), (0.05, zero_point)
        self.x = self.tensor((1, *size, CHANNELS))

    def tensor(self, shape: tuple[int, ...]) -> int:
        return self.model.tensor(shape, *self.parameters)

    def pad(self, x: int, shape: tuple[int, ...], widths: list[tuple[int, int]]) -> tuple[int, Any]:
        padded = tuple(size + sum(width) for size, width in zip(shape, widths, strict=True))
        y = self.tensor(padded)
        widths_at = self.model.tensor((4, 2), data=np.array(widths, np.int32))
        return self.model.operator("PAD", [x, widths_at], y), padded

    def windowed(self, name: str, x: int, shape: tuple[int, ...], stride: int) -> tuple[int, Any]:
        _, tall, wide, channels = shape
        sizes = [(size - 3) // stride + 1 for size in (tall, wide)]
        y = self.tensor((1, *sizes, channels))
        options: dict[str, Any] = {"padding": VALID, "strideH": stride, "strideW": stride}
        inputs = [x]
        if name == "MAX_POOL_2D":
            options |= {"filterHeight": 3, "filterWidth": 3}
        else:
            random = np.random.default_rng(channels)
            depthwise = name == "DEPTHWISE_CONV_2D"
            kernel = (1, 3, 3, channels) if depthwise else (channels, 3, 3, channels)
            weights = random.integers(-127, 128, kernel).astype(np.int8)
            bias = random.integers(-500, 500, channels).astype(np.int32)
            inputs += [
                self.model.tensor(kernel, 0.004, 0, weights),
                self.model.tensor((channels,), 0.05 * 0.004, 0, bias),
            ]
            options |= {"dilationHFactor": 1, "dilationWFactor": 1}
            if depthwise:
                options["depthMultiplier"] = 1
        return self.model.operator(name, inputs, y, **options), (1, *sizes, channels)

    def lowered(self, output: int, *, fuse: bool = True) -> Program:
        content = self.model.content([self.x], [output])
        return lower(content, name="padded", profile=load_target("cortex-m7"), fuse=fuse)


def outputs(program: Program, x: np.ndarray) -> np.ndarray:
    return twin.run(program, x)[program.output_buffers[0]].ravel()


def padded_network(
    kinds: list[str], size: tuple[int, int], border: list[int], stride: int, zero_point: int = 3
) -> tuple[Network, int]:
    """PAD, then one layer after another."""
    network = Network(size, zero_point)
    top, bottom, left, right = border
    value, shape = network.pad(
        network.x, (1, *size, CHANNELS), [(0, 0), (top, bottom), (left, right), (0, 0)]
    )
    for kind in kinds:
        value, shape = network.windowed(kind, value, shape, stride)
    return network, value


@settings(max_examples=10, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.tuples(st.integers(3, 7), st.integers(3, 7)),
    st.lists(st.integers(0, 4), min_size=4, max_size=4).filter(any),
    st.integers(1, 3),
)
def test_same_bits_in_fewer_steps(
    kind: str, size: tuple[int, int], border: list[int], stride: int
) -> None:
    zero_point = -128 if kind == "MAX_POOL_2D" else 3
    network, output = padded_network([kind], size, border, stride, zero_point)
    folded, apart = network.lowered(output), network.lowered(output, fuse=False)
    assert [step.op for step in apart.steps] == ["pad", folded.steps[0].op]
    assert [step.name for step in folded.steps] == [apart.steps[1].name]
    assert folded.macs == apart.macs
    assert folded.arena_bytes < apart.arena_bytes
    random = np.random.default_rng(0)
    for _ in range(2):
        x = random.integers(-128, 128, folded.inputs[0].shape).astype(np.int8)
        expected = outputs(apart, x)
        np.testing.assert_array_equal(outputs(folded, x), expected)
        np.testing.assert_array_equal(HostModel(folded).run(x).ravel(), expected)


def test_paddings_behind_one_another_and_with_several_readers() -> None:
    network = Network((6, 5))
    both = [(0, 0), (1, 1), (1, 1), (0, 0)]
    first, shape = network.pad(network.x, (1, 6, 5, CHANNELS), both)
    left, left_shape = network.windowed("CONV_2D", first, shape, 1)
    right, _ = network.windowed("DEPTHWISE_CONV_2D", first, shape, 1)
    joined = network.tensor(left_shape)
    network.model.operator("ADD", [left, right], joined, fusedActivationFunction=0)
    second, shape = network.pad(joined, left_shape, both)
    last, _ = network.windowed("CONV_2D", second, shape, 2)
    folded, apart = network.lowered(last), network.lowered(last, fuse=False)
    assert sum(step.op == "pad" for step in apart.steps) == 2
    assert all(step.op != "pad" for step in folded.steps)
    x = np.random.default_rng(1).integers(-128, 128, folded.inputs[0].shape).astype(np.int8)
    np.testing.assert_array_equal(outputs(folded, x), outputs(apart, x))


def test_equal_layers_share_a_function() -> None:
    network = Network((6, 6))
    value, shape = network.x, (1, 6, 6, CHANNELS)
    for _ in range(2):
        value, shape = network.pad(value, shape, [(0, 0), (1, 1), (1, 1), (0, 0)])
        value, shape = network.windowed("CONV_2D", value, shape, 1)
    folded = network.lowered(value)
    assert len(folded.steps) == 2
    assert len({step.function for step in folded.steps}) == 1


@pytest.mark.parametrize(
    "widths", [[(0, 0), (1, 1), (1, 1), (0, 2)], [(0, 0), (0, 0), (0, 0), (1, 0)]]
)
def test_padded_channels_stay_a_layer(widths: list[tuple[int, int]]) -> None:
    network = Network((5, 5))
    value, shape = network.pad(network.x, (1, 5, 5, CHANNELS), widths)
    output, _ = network.windowed("CONV_2D", value, shape, 1)
    assert [step.op for step in network.lowered(output).steps] == ["pad", "conv2d"]


def test_a_maximum_of_another_fill_stays() -> None:
    network, output = padded_network(["MAX_POOL_2D"], (5, 5), [1, 1, 1, 1], 2)
    assert [step.op for step in network.lowered(output).steps] == ["pad", "max_pool2d"]


def test_a_reader_that_cannot_keeps_the_padding_for_all() -> None:
    network = Network((5, 5))
    value, shape = network.pad(network.x, (1, 5, 5, CHANNELS), [(0, 0), (1, 1), (1, 1), (0, 0)])
    conv, conv_shape = network.windowed("CONV_2D", value, shape, 1)
    pool, _ = network.windowed("MAX_POOL_2D", value, shape, 1)
    joined = network.tensor(conv_shape)
    network.model.operator("ADD", [conv, pool], joined, fusedActivationFunction=0)
    assert "pad" in [step.op for step in network.lowered(joined).steps]


def test_a_program_without_paddings_is_returned_as_it_is() -> None:
    network = Network((5, 5))
    output, _ = network.windowed("CONV_2D", network.x, (1, 5, 5, CHANNELS), 1)
    program = network.lowered(output)
    assert fold_pad(program) is program
