"""The deployable form: what every island must look like, and that it computes the float model."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from small_networks import NETWORKS, Branches, Mobile, Residual, seeded, trainable
from torch import nn

from edgecompress.compress.quantize import QuantizeOptions, evaluate_deployable, observe, quantize
from edgecompress.errors import BadData, UnsupportedOperators
from edgecompress.model.data import Dataset
from edgecompress.model.reference import run_onnx

X = np.random.default_rng(0).normal(size=(96, 1, 16, 16)).astype(np.float32)


class Islands:
    """A deployable model, read back."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self.made_by = {output: node for node in self.nodes for output in node.output}
        self.constants = {
            tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer
        }

    def of_type(self, *types: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type in types]

    def named(self, name: str) -> onnx.NodeProto:
        return next(node for node in self.nodes if node.name == name)

    def read(self, tensor: str) -> tuple[np.ndarray, int]:
        """Scale and zero point of the DequantizeLinear that makes `tensor`."""
        node = self.made_by[tensor]
        assert node.op_type == "DequantizeLinear"
        return self.constants[node.input[1]], self.constants[node.input[2]]

    def written(self, layer: str) -> tuple[float, int]:
        """Scale and zero point of the QuantizeLinear after `layer`."""
        node = next(node for node in self.of_type("QuantizeLinear") if node.input[0] == layer)
        return float(self.constants[node.input[1]]), int(self.constants[node.input[2]])


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda build: build.__name__)
def model(request: pytest.FixtureRequest) -> onnx.ModelProto:
    return quantize(seeded(request.param), X, name="small")


def test_every_weight_is_per_channel_and_every_bias_has_the_accumulators_scale(
    model: onnx.ModelProto,
) -> None:
    islands = Islands(model)
    layers = islands.of_type("Conv", "Gemm")
    assert len(layers) >= 3
    for layer in layers:
        source, weight, bias = (islands.made_by[tensor] for tensor in layer.input)
        stored = islands.constants[weight.input[0]]
        scale = islands.constants[weight.input[1]]
        assert stored.dtype == np.int8
        assert stored.min() >= -127
        assert scale.shape == stored.shape[:1]
        assert not islands.constants[weight.input[2]].any()
        for node in (weight, bias):
            assert onnx.helper.get_node_attr_value(node, "axis") == 0
        assert islands.constants[bias.input[0]].dtype == np.int32
        expected = islands.constants[source.input[1]] * scale
        np.testing.assert_array_equal(islands.constants[bias.input[1]], expected)


def test_borders_are_float_and_everything_between_is_int8(model: onnx.ModelProto) -> None:
    for value in [*model.graph.input, *model.graph.output]:
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert value.type.tensor_type.shape.dim[0].dim_value == 1
    assert model.graph.input[0].name == "image"
    assert model.graph.output[0].name == "logits"
    islands = Islands(model)
    for node in islands.of_type("QuantizeLinear"):
        scale, zero_point = (islands.constants[name] for name in node.input[1:])
        assert scale.dtype == np.float32
        assert scale.shape == ()
        assert zero_point.dtype == np.int8
    inside = {"Relu", "Clip"}
    for node in islands.nodes:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear", *inside}:
            for tensor in node.input:
                constant = tensor in islands.constants
                assert constant or islands.made_by[tensor].op_type == "DequantizeLinear"


def test_layers_that_move_values_share_the_scale_of_their_inputs(model: onnx.ModelProto) -> None:
    islands = Islands(model)
    movers = islands.of_type("MaxPool", "AveragePool", "Flatten", "Reshape", "Pad", "Concat")
    assert movers
    for node in movers:
        sources = [tensor for tensor in node.input if tensor not in islands.constants]
        for tensor in sources:
            scale, zero_point = islands.read(tensor)
            assert (float(scale), int(zero_point)) == islands.written(node.output[0])


def test_concatenated_branches_share_one_scale() -> None:
    islands = Islands(quantize(seeded(Branches), X, name="small"))
    (concat,) = islands.of_type("Concat")
    assert len({tuple(map(float, islands.read(tensor))) for tensor in concat.input}) == 1


def test_relu_is_inside_the_producers_range_and_softmax_is_fixed() -> None:
    islands = Islands(quantize(seeded(Mobile), X, name="small"))
    assert islands.written("softmax") == (1 / 256, -128)
    relus = islands.of_type("Relu")
    assert len(relus) == 4
    for node in relus:
        assert islands.made_by[node.input[0]].op_type in ("Conv", "Gemm")
        assert islands.written(node.output[0])[1] == -128
    # ReLU6 is a Relu here because the range ends at or below 6.
    assert not islands.of_type("Clip")


def test_zero_padding_becomes_the_convolutions_own() -> None:
    islands = Islands(quantize(seeded(Mobile), X, name="small"))
    pads = onnx.helper.get_node_attr_value(islands.named("stem"), "pads")
    assert list(pads) == [0, 0, 1, 1]
    assert not islands.of_type("Pad")


@pytest.mark.parametrize(("room_bytes", "again"), [(0, 136), (5_000_000, 72)])
def test_scales_do_not_depend_on_how_many_tensors_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, room_bytes: int, again: int
) -> None:
    samples, seen = np.concatenate([X, 3 * X[:40]]), []
    whole = quantize(seeded(Branches), samples, name="small")

    def run(self: observe._Recorder, batch: torch.Tensor) -> object:
        seen.append(len(batch))
        return super(observe._Recorder, self).run(batch)

    monkeypatch.setattr(observe._Recorder, "run", run)
    monkeypatch.setattr(observe, "_KEPT_BYTES", room_bytes)
    assert quantize(seeded(Branches), samples, name="small") == whole
    assert seen[:3] == [64, 64, 8]
    assert sum(seen[3:]) == again


@pytest.mark.parametrize("observer", ["mse", "minmax"])
@pytest.mark.parametrize("build", NETWORKS)
def test_outputs_are_close_to_the_float_model(build: type[nn.Module], observer: str) -> None:
    before = seeded(build)
    options = QuantizeOptions(observer=observer)  # type: ignore[arg-type]
    deployable = quantize(before, X, name="small", options=options)
    outputs = run_onnx(deployable, X)
    expected = before.graph(torch.from_numpy(X)).detach().numpy()
    error = np.sqrt(np.mean((outputs - expected) ** 2))
    assert error < 0.03 * expected.std()


def test_the_same_calibration_gives_the_same_bytes() -> None:
    first, second = (
        quantize(seeded(Residual), X, name="small").SerializeToString() for _ in range(2)
    )
    assert first == second


def test_a_batch_and_single_inputs_agree() -> None:
    model = quantize(seeded(Branches), X, name="small")
    options = onnxruntime.SessionOptions()
    # else sums of two int8 products saturate at 16 bits on CPUs with AVX2 and no VNNI
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    single = np.concatenate([session.run(None, {"image": x[None]})[0] for x in X[:6]])
    scale, _ = Islands(model).written("head")
    # onnxruntime may fuse the single run to integer kernels, which round ties its own way.
    np.testing.assert_allclose(run_onnx(model, X[:6]), single, atol=1.01 * scale)


def test_accuracy_counts_right_answers() -> None:
    before = seeded(Residual)
    model = quantize(before, X, name="small")
    labels = run_onnx(model, X).argmax(1).astype(np.int64)
    assert evaluate_deployable(model, Dataset(X, labels)) == 100.0
    labels[: len(X) // 4] = (labels[: len(X) // 4] + 1) % 4
    assert evaluate_deployable(model, Dataset(X, labels)) == 75.0
    with pytest.raises(BadData, match="labelled"):
        evaluate_deployable(model, Dataset(X, None))


def test_a_dead_channel_keeps_usable_scales_and_its_bias() -> None:
    before = seeded(Residual)
    with torch.no_grad():
        before.graph.get_submodule("head").weight[1] = 1e-30
        before.graph.get_submodule("head").bias[1] = 0.7
    model = quantize(before, X, name="small")
    np.testing.assert_allclose(run_onnx(model, X)[:, 1], 0.7, atol=0.02)
    scales = Islands(model).constants["head.weight.scale"]
    assert scales.min() >= scales.max() * 2.0**-21


def test_clipping_pays_where_one_value_is_far_out() -> None:
    """One spike in the calibration set must not cost everybody's resolution under "mse"."""
    before = seeded(Residual)
    spiked = X.copy()
    spiked[0] *= 20
    expected = before.graph(torch.from_numpy(X)).detach().numpy()
    errors = {
        options.observer: np.mean(
            (run_onnx(quantize(before, spiked, name="s", options=options), X) - expected) ** 2
        )
        for options in (QuantizeOptions(observer="mse"), QuantizeOptions(observer="minmax"))
    }
    assert errors["mse"] <= errors["minmax"]


class Doubled(nn.Module):
    """x + x, one layer called twice, and a ReLU6 that several read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding="same")
        self.relu6 = nn.ReLU6()
        self.flatten = nn.Flatten()
        self.head = nn.Linear(256, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.conv(x))
        x = self.relu6(x + x)
        return self.head(self.flatten(x + x))


def test_shared_layers_get_names_of_their_own() -> None:
    before = trainable(Doubled())
    model = quantize(before, X, name="small")
    assert {"conv", "conv_2", "head"} <= {node.name for node in model.graph.node}
    expected = before.graph(torch.from_numpy(X)).detach().numpy()
    outputs = run_onnx(model, X)
    assert np.sqrt(np.mean((outputs - expected) ** 2)) < 0.05 * expected.std()


@pytest.mark.parametrize(
    ("calibration", "words"),
    [
        (X[:0], "empty"),
        (X[:, :, :8], r"\[1, 8, 16\], the model takes \[1, 16, 16\]"),
        (np.full_like(X[:2], np.nan), "512 values"),
    ],
)
def test_unusable_calibration_is_refused(calibration: np.ndarray, words: str) -> None:
    with pytest.raises(BadData, match=words):
        quantize(seeded(Residual), calibration, name="small")


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)
        self.gate = nn.Hardshrink()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gate(self.conv(x))


def test_an_unknown_layer_is_named() -> None:
    with pytest.raises(UnsupportedOperators, match="Hardshrink 'gate'"):
        quantize(trainable(Unknown()), X, name="small")


def test_what_no_scale_can_store_is_named() -> None:
    """float32 ends at 3.4e38: a layer behind such inputs gives infinity, a NaN weight NaN."""
    sound = seeded(Residual)
    with pytest.raises(BadData, match=r"tensor \w+ holds infinity or NaN .* reach 3e\+38"):
        quantize(sound, X / np.abs(X).max() * np.float32(3e38), name="small")
    broken = seeded(Residual)
    next(broken.graph.parameters()).data.view(-1)[0] = np.nan
    with pytest.raises(BadData, match="look for such weights"):
        quantize(broken, X, name="small")
