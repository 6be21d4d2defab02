"""What each option of quantize changes in the file, and that it still computes the model."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pydantic
import pytest
import torch
from onnx import numpy_helper
from small_networks import NETWORKS, Mobile, Residual, seeded
from torch import nn

from edgecompress.compress.quantize import QuantizeOptions, quantize
from edgecompress.errors import UnsupportedOperators
from edgecompress.model.load import load_source
from edgecompress.model.opcheck import check_operators
from edgecompress.model.reference import run_onnx

X = np.random.default_rng(0).normal(size=(64, 1, 16, 16)).astype(np.float32)


def zero_points(model: onnx.ModelProto) -> list[np.ndarray]:
    """Of every QuantizeLinear."""
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    return [constants[node.input[2]] for node in nodes]


def relative_error(build: type[nn.Module], options: QuantizeOptions) -> float:
    before = seeded(build)
    outputs = run_onnx(quantize(before, X, name="small", options=options), X)
    expected = before.graph(torch.from_numpy(X)).detach().numpy()
    return float(np.sqrt(np.mean((outputs - expected) ** 2)) / expected.std())


@pytest.mark.parametrize("build", NETWORKS)
@pytest.mark.parametrize(
    "options",
    [
        QuantizeOptions(observer="percentile"),
        QuantizeOptions(observer="entropy"),
        QuantizeOptions(symmetric_activations=True),
        QuantizeOptions(per_channel=False),
        QuantizeOptions(activation_bits=16),
        QuantizeOptions(activation_bits=16, symmetric_activations=True, observer="minmax"),
        QuantizeOptions(equalize=True, correct_bias=True, rounding="adaround"),
    ],
    ids=lambda options: " ".join(sorted(options.model_dump(exclude_defaults=True))),
)
def test_outputs_are_close_to_the_float_model(
    build: type[nn.Module], options: QuantizeOptions
) -> None:
    assert relative_error(build, options) < 0.05


def test_symmetric_activations_have_zero_points_of_zero() -> None:
    model = quantize(
        seeded(Residual), X, name="small", options=QuantizeOptions(symmetric_activations=True)
    )
    assert not any(zero_points(model))


def test_per_tensor_weights_have_one_scale() -> None:
    model = quantize(seeded(Residual), X, name="small", options=QuantizeOptions(per_channel=False))
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    scales = [
        value for name, value in constants.items() if name.endswith(("weight.scale", "bias.scale"))
    ]
    assert len(scales) == 12
    assert all(scale.shape == () for scale in scales)


def test_sixteen_bits_are_finer_than_eight() -> None:
    wide = quantize(seeded(Mobile), X, name="small", options=QuantizeOptions(activation_bits=16))
    assert all(zero_point.dtype == np.int16 for zero_point in zero_points(wide))
    errors = [
        relative_error(Mobile, QuantizeOptions(activation_bits=bits, observer="minmax"))
        for bits in (8, 16)
    ]
    assert errors[1] < 0.2 * errors[0]


def test_an_image_of_sixteen_bits_is_refused_with_its_layers() -> None:
    wide = quantize(seeded(Mobile), X, name="small", options=QuantizeOptions(activation_bits=16))
    source = dataclasses.replace(load_source("demo"), kind="deployable", onnx=wide)
    with pytest.raises(UnsupportedOperators, match="'relu6_quantize': int16 activations") as caught:
        check_operators(source)
    assert len(caught.value.operators) == len(zero_points(wide))
    assert "onnxruntime" in str(caught.value)
    narrow = quantize(seeded(Mobile), X, name="small")
    check_operators(dataclasses.replace(source, onnx=narrow))


def test_options_out_of_range_are_refused() -> None:
    for wrong in ({"percentile": 101}, {"activation_bits": 4}, {"observer": "best"}):
        with pytest.raises(pydantic.ValidationError):
            QuantizeOptions(**wrong)
