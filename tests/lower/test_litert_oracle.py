"""Whole models against LiteRT's reference kernels: tolerance zero, or one unit a layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from litert import RELU, RELU6, SAME, VALID, TinyModel
from oracle import Oracle, check_exact, check_within_one


@pytest.fixture(scope="module", params=["ic", "kws", "ad"])
def benchmark(request: pytest.FixtureRequest, shared_data: Path) -> Oracle:
    content = (shared_data / "mlperf_tiny" / f"{request.param}_int8.tflite").read_bytes()
    return Oracle(content, request.param)


def test_benchmark_models_are_bit_identical(benchmark: Oracle) -> None:
    check_exact(benchmark)


def test_benchmark_layers_are_within_one_unit(benchmark: Oracle) -> None:
    check_within_one(benchmark)


class Chain(TinyModel):
    """Layers one after another on random weights, each with output parameters of its own."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.random = np.random.default_rng(seed)

    def activation(self, shape: tuple[int, ...], scale: float, zero_point: int) -> int:
        return self.tensor(shape, scale, zero_point)

    def weighted(
        self,
        name: str,
        x: tuple[int, float],
        weight_shape: tuple[int, ...],
        output: int,
        channel_axis: int,
        **options: int,
    ) -> int:
        """CONV_2D, DEPTHWISE_CONV_2D or FULLY_CONNECTED; x is (tensor, its scale)."""
        channels = weight_shape[channel_axis]
        weights = self.random.integers(-127, 128, weight_shape).astype(np.int8)
        per_channel = self.random.uniform(0.5, 1.0, channels) * 0.004
        scale = per_channel if name != "FULLY_CONNECTED" else per_channel[:1]
        bias = self.random.integers(-500, 500, channels).astype(np.int32)
        inputs = (
            x[0],
            self.tensor(weight_shape, scale, 0, weights, channel_axis),
            self.tensor((channels,), scale * x[1], 0, bias),
        )
        return self.operator(name, inputs, output, 3, **options)


def mixed_model() -> bytes:
    """Every operator with a kernel that the benchmark models lack, in one model.

    [1, 11, 10, 4] -> conv SAME relu6 -> two branches (max pool SAME; depthwise, average pool SAME)
    -> concat -> hard swish -> leaky relu -> times sigmoid of itself -> plus a constant, relu
    -> mean -> requantize -> dense -> softmax
    """
    m = Chain(seed=7)
    x = m.activation((1, 11, 10, 4), 0.05, -3)
    stem = m.activation((1, 11, 10, 8), 6 / 255, -128)
    m.weighted(
        "CONV_2D", (x, 0.05), (8, 3, 3, 4), stem, 0,
        padding=SAME, strideH=1, strideW=1, fusedActivationFunction=RELU6,
    )  # fmt: skip
    largest = m.activation((1, 6, 5, 8), 6 / 255, -128)
    window = {"strideH": 2, "strideW": 2, "filterHeight": 3, "filterWidth": 3}
    m.operator("MAX_POOL_2D", [stem], largest, padding=SAME, **window)
    filtered = m.activation((1, 11, 10, 8), 6 / 255, -128)
    m.weighted(
        "DEPTHWISE_CONV_2D", (stem, 6 / 255), (1, 3, 3, 8), filtered, 3,
        padding=SAME, strideH=1, strideW=1, depthMultiplier=1, fusedActivationFunction=RELU,
    )  # fmt: skip
    average = m.activation((1, 6, 5, 8), 6 / 255, -128)
    m.operator("AVERAGE_POOL_2D", [filtered], average, padding=SAME, **window)
    joined = m.activation((1, 6, 5, 16), 6 / 255, -128)
    m.operator("CONCATENATION", [largest, average], joined, axis=3)
    shape = (1, 6, 5, 16)
    swish = m.operator("HARD_SWISH", [joined], m.activation(shape, 0.025, -110), 1)
    leaky = m.operator("LEAKY_RELU", [swish], m.activation(shape, 0.03, -100), 1, alpha=0.2)
    gate = m.operator("LOGISTIC", [leaky], m.activation(shape, 1 / 256, -128), 1)
    gated = m.operator("MUL", [leaky, gate], m.activation(shape, 0.024, -90))
    constant = m.tensor((16,), 0.01, 4, m.random.integers(-128, 128, 16).astype(np.int8))
    shifted = m.activation(shape, 0.026, -128)
    m.operator("ADD", [gated, constant], shifted, fusedActivationFunction=RELU)
    axes = m.tensor((2,), data=np.array([1, 2], np.int32))
    mean = m.operator("MEAN", [shifted, axes], m.activation((1, 16), 0.02, -120), keepDims=False)
    again = m.operator("QUANTIZE", [mean], m.activation((1, 16), 0.017, -101), 1)
    logits = m.activation((1, 12), 0.09, 11)
    m.weighted("FULLY_CONNECTED", (again, 0.017), (12, 16), logits, 0)
    chances = m.operator("SOFTMAX", [logits], m.activation((1, 12), 1 / 256, -128), beta=1.0)
    return m.content([x], [chances])


def deep_pool_model() -> bytes:
    """Pools without padding, large windows, and a stride-2 convolution between them."""
    m = Chain(seed=8)
    x = m.activation((1, 16, 12, 3), 0.04, 5)
    smooth = m.activation((1, 15, 11, 3), 0.04, 5)
    m.operator(
        "AVERAGE_POOL_2D", [x], smooth,
        padding=VALID, strideH=1, strideW=1, filterHeight=2, filterWidth=2,
    )  # fmt: skip
    half = m.activation((1, 8, 6, 5), 0.05, -7)
    m.weighted("CONV_2D", (smooth, 0.04), (5, 3, 3, 3), half, 0, padding=SAME, strideH=2, strideW=2)
    largest = m.activation((1, 4, 3, 5), 0.05, -7)
    m.operator(
        "MAX_POOL_2D", [half], largest, fusedActivationFunction=RELU,
        padding=VALID, strideH=2, strideW=2, filterHeight=2, filterWidth=2,
    )  # fmt: skip
    axes = m.tensor((2,), data=np.array([1, 2], np.int32))
    kept = m.activation((1, 1, 1, 5), 0.03, 0)
    m.operator("MEAN", [largest, axes], kept, keepDims=True)
    return m.content([x], [kept])


@pytest.fixture(scope="module", params=[mixed_model, deep_pool_model])
def small(request: pytest.FixtureRequest) -> Oracle:
    return Oracle(request.param(), request.param.__name__)


def test_small_models_are_bit_identical(small: Oracle) -> None:
    check_exact(small)


def test_small_layers_are_within_one_unit(small: Oracle) -> None:
    check_within_one(small)
