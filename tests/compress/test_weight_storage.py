"""Weights in int4, shared and sparse form: what quantize writes for each, and how close it is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from small_networks import Residual, seeded

from edgecompress.compress.lowrank import factorize
from edgecompress.compress.quantize import quantize
from edgecompress.compress.quantize.weights import make_grid, zeroed
from edgecompress.errors import BadInput
from edgecompress.model.reference import run_onnx
from edgecompress.records import LowRank, WeightStorage

X = np.random.default_rng(0).normal(size=(64, 1, 16, 16)).astype(np.float32)
LAYERS = ("stem", "conv1", "conv2", "conv3", "skip", "head")


def stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Layer -> its int8 weights."""
    ending = ".weight_quantized"
    return {
        tensor.name.removesuffix(ending): numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.name.endswith(ending)
    }


def test_each_format_holds_what_it_promises_and_the_others_stay_int8() -> None:
    chosen = {
        "conv1": WeightStorage(format="int4"),
        "conv2": WeightStorage(format="shared16"),
        "conv3": WeightStorage(format="shared4"),
        "skip": WeightStorage(format="sparse", sparsity=0.6),
    }
    weights = stored(quantize(seeded(Residual), X, name="small", weights=chosen))
    assert set(weights) == set(LAYERS)
    assert np.abs(weights["conv1"]).max() == 7
    assert 8 < len(np.unique(weights["conv2"])) <= 16
    assert 3 <= len(np.unique(weights["conv3"])) <= 4
    assert np.mean(weights["skip"] == 0) >= 0.6
    for name in ("stem", "head"):
        assert np.abs(weights[name]).max() == 127


def test_existing_zeros_stay_and_are_not_added_to() -> None:
    before = seeded(Residual)
    layer = before.graph.get_submodule("conv3")
    mask = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.7
    layer.weight.data[mask] = 0
    sparse = WeightStorage(format="sparse", sparsity=0.5)
    made = stored(quantize(before, X, name="small", weights={"conv3": sparse}))["conv3"]
    assert not made[mask.numpy()].any()
    assert np.mean(made == 0) < 0.73


def test_magnitude_decides_which_weights_go() -> None:
    weight = np.array([[3.0, -1, 0.5], [-0.1, 2, 4]])
    half = WeightStorage(format="sparse", sparsity=0.5)
    np.testing.assert_array_equal(zeroed(weight, half), [[3, 0, 0], [0, 2, 4]])
    assert zeroed(weight, None) is weight


def test_storage_of_a_factorized_layer_is_that_of_its_factors() -> None:
    factored = factorize(seeded(Residual), {"conv3": LowRank(method="tucker2", ranks=(4, 8))})
    weights = stored(
        quantize(factored, X, name="small", weights={"conv3": WeightStorage(format="int4")})
    )
    for name in ("conv3_first", "conv3_core", "conv3_last"):
        assert np.abs(weights[name]).max() == 7
    assert np.abs(weights["conv2"]).max() == 127


def test_a_name_that_is_no_layer_is_refused() -> None:
    chosen = {"conv": WeightStorage(format="int4")}
    with pytest.raises(BadInput, match=r"no layer 'conv'.*int4.*stem, conv1"):
        quantize(seeded(Residual), X, name="small", weights=chosen)


@pytest.mark.parametrize(("form", "worst"), [("int4", 0.25), ("shared16", 0.25), ("shared4", 0.75)])
def test_outputs_stay_near_the_float_models(form: str, worst: float) -> None:
    before = seeded(Residual)
    chosen = {name: WeightStorage(format=form) for name in LAYERS}  # type: ignore[arg-type]
    outputs = run_onnx(quantize(before, X, name="small", weights=chosen), X)
    expected = before.graph(torch.from_numpy(X)).detach().numpy()
    assert np.sqrt(np.mean((outputs - expected) ** 2)) < worst * expected.std()


@pytest.mark.parametrize("seed", range(4))
def test_int4_scales_are_the_best_of_a_fine_search(seed: int) -> None:
    weight = np.random.default_rng(seed).standard_t(4, (6, 40)).astype(np.float32)
    grid = make_grid(weight, np.zeros(6, np.float32), np.float32(0.1), WeightStorage(format="int4"))
    found = np.sum((weight - grid.real(grid.round(weight))) ** 2, axis=1)
    largest = np.abs(weight).max(axis=1) / 7
    for channel in range(6):
        scales = largest[channel] * np.linspace(0.2, 1.0, 4000)
        steps = np.clip(np.rint(weight[channel] / scales[:, None]), -7, 7)
        least = np.sum((weight[channel] - steps * scales[:, None]) ** 2, axis=1).min()
        assert found[channel] <= least * 1.02


def test_int8_scales_are_onnxruntimes() -> None:
    from onnxruntime.quantization.quant_utils import quantize_data

    weight = np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32)
    grid = make_grid(weight, np.zeros(5, np.float32), np.float32(0.1))
    for channel in range(5):
        zero_point, scale, values = quantize_data(
            weight[channel], onnx.TensorProto.INT8, symmetric=True
        )
        assert zero_point == 0
        np.testing.assert_allclose(grid.scale[channel], scale, rtol=1e-6)
        ours = grid.round(weight)[channel].astype(int)
        assert np.abs(ours - values.astype(int)).max() <= 1  # a tie may fall either way


def test_per_tensor_weights_share_the_largest_scale() -> None:
    weight = np.array([[1.0, -2], [0.5, 0.25]], np.float32)
    grid = make_grid(weight, np.zeros(2, np.float32), np.float32(0.1), per_channel=False)
    np.testing.assert_allclose(grid.scale, [2 / 127] * 2, rtol=1e-6)
    np.testing.assert_array_equal(grid.round(weight), [[64, -127], [32, 16]])
