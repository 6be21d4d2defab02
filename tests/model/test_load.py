"""Every form of model arrives, and every file that is none is refused in one clear line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import user_models
from onnx import TensorProto, numpy_helper
from onnx_nets import constant, graph, node, run_onnx

from edgecompress.errors import BadInput, EdgeCompressError, UnreadableModel
from edgecompress.model.load import load_source
from edgecompress.model.tflite_file import require_int8
from edgecompress.model.trainable import to_trainable

MIXED_SHAPE = (1, 3, 16, 16)
RELU = [node("Relu", "x")]


def save(model: onnx.ModelProto, folder: Path) -> str:
    path = folder / "net.onnx"
    onnx.save(model, path)
    return str(path)


def one_line(error: pytest.ExceptionInfo[EdgeCompressError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def check_same(spec: str, module: torch.nn.Module, shape: tuple[int, ...], **options: object):
    """The trainable form, onnxruntime and the module itself agree; returns the source."""
    source = load_source(spec, **options)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with torch.no_grad():
        expected = module.eval()(torch.from_numpy(x)).numpy()
        batched = to_trainable(source).graph(torch.from_numpy(np.repeat(x, 4, 0))).numpy()
    assert source.kind == "float"
    assert expected.std() > 1e-3
    np.testing.assert_allclose(run_onnx(source.onnx, x), expected, atol=1e-5)
    np.testing.assert_allclose(batched, np.repeat(expected, 4, 0), atol=1e-5)
    return source


def test_callable_with_a_given_shape():
    source = check_same(
        "user_models:mixed", user_models.mixed(), MIXED_SHAPE, input_shape=MIXED_SHAPE
    )
    names = {n.name: n.op_type for n in source.onnx.graph.node}
    assert names["norm"] == "BatchNormalization"
    assert names["entry"] == names["depthwise"] == "Conv"
    assert source.name == "mixed"


def test_callable_whose_module_says_its_shape():
    source = check_same("user_models:perceptron", user_models.perceptron(), (1, 12))
    kinds = [n.op_type for n in source.onnx.graph.node]
    assert "BatchNormalization" in kinds


def test_same_module_same_hash():
    first = load_source("user_models:perceptron")
    assert first.hash == load_source("user_models:perceptron").hash
    assert len(first.hash) == 64


@pytest.mark.parametrize("dynamic", [False, True])
def test_pt2(dynamic: bool, tmp_path: Path):
    module = user_models.mixed().eval()
    shapes = ({0: torch.export.Dim("batch", min=1, max=64)},) if dynamic else None
    example = torch.zeros(2 if dynamic else 1, *MIXED_SHAPE[1:])
    program = torch.export.export(module, (example,), dynamic_shapes=shapes)
    torch.export.save(program, tmp_path / "net.pt2")
    source = check_same(str(tmp_path / "net.pt2"), module, MIXED_SHAPE)
    assert "BatchNormalization" in [n.op_type for n in source.onnx.graph.node]


def test_trusted_pickle(tmp_path: Path):
    path = tmp_path / "net.pt"
    torch.save(user_models.perceptron(), path)
    with pytest.raises(UnreadableModel, match="pickle") as refused:
        load_source(str(path))
    assert "--trust" in one_line(refused)
    check_same(str(path), user_models.perceptron(), (1, 12), trust=True)


def test_trusted_pickle_of_weights_alone(tmp_path: Path):
    path = tmp_path / "net.pt"
    torch.save(user_models.perceptron().state_dict(), path)
    with pytest.raises(UnreadableModel, match=r"OrderedDict \(weights alone\)") as refused:
        load_source(str(path), trust=True)
    assert "pkg.mod:callable" in one_line(refused)


def test_onnx_with_a_free_batch_gets_batch_one(tmp_path: Path):
    source = load_source(save(graph(RELU, ["N", 3, 8, 8]), tmp_path))
    assert [d.dim_value for d in source.onnx.graph.input[0].type.tensor_type.shape.dim] == [
        1,
        3,
        8,
        8,
    ]


def test_onnx_with_free_sizes_needs_a_shape(tmp_path: Path):
    path = save(graph([node("GlobalAveragePool", "x")], ["N", 3, "height", 8]), tmp_path)
    with pytest.raises(BadInput, match=r"\[N, 3, height, 8\]: dimension 2 \('height'\)") as refused:
        load_source(path)
    assert "--input-shape" in one_line(refused)
    source = load_source(path, input_shape=(1, 3, 6, 8))
    assert run_onnx(source.onnx, np.ones((1, 3, 6, 8), np.float32)).shape == (1, 3, 1, 1)


def test_given_shape_against_the_models_own(tmp_path: Path):
    path = save(graph(RELU, [1, 3, 8, 8]), tmp_path)
    with pytest.raises(BadInput, match=r"\[1, 3, 8, 8\], but the given shape is \[1, 1, 8, 8\]"):
        load_source(path, input_shape=(1, 1, 8, 8))


@pytest.mark.parametrize("shape", [(), (2, 3, 8, 8), (1, 0, 8, 8)])
def test_given_shape_must_be_one_positive_sample(shape: tuple[int, ...], tmp_path: Path):
    with pytest.raises(BadInput, match="batch of 1"):
        load_source(save(graph(RELU, [1, 3, 8, 8]), tmp_path), input_shape=shape)


def test_fixed_batch_other_than_one(tmp_path: Path):
    with pytest.raises(BadInput, match=r"\[8, 3, 8, 8\].*batch of 1"):
        load_source(save(graph(RELU, [8, 3, 8, 8]), tmp_path))


def test_integer_input(tmp_path: Path):
    nodes = [node("Cast", "x", to=TensorProto.FLOAT)]
    with pytest.raises(BadInput, match="input 'x' is uint8"):
        load_source(save(graph(nodes, [1, 4], input_type=TensorProto.UINT8), tmp_path))


def test_two_outputs(tmp_path: Path):
    nodes = [node("Relu", "x"), node("Softmax", "x", "z")]
    with pytest.raises(BadInput, match="1 inputs and 2 outputs"):
        load_source(save(graph(nodes, [1, 4], outputs=["y", "z"]), tmp_path))


def quantized_model(batch: int | str) -> onnx.ModelProto:
    scale = numpy_helper.from_array(np.float32(0.1), "s")
    zero = numpy_helper.from_array(np.int8(3), "z")
    weight = numpy_helper.from_array(np.arange(-6, 6, dtype=np.int8).reshape(4, 3), "w")
    weight_zero = numpy_helper.from_array(np.int8(0), "wz")
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("DequantizeLinear", "w s wz", "f"),
        node("MatMul", "d f", "m"),
        node("QuantizeLinear", "m s z", "r"),
        node("DequantizeLinear", "r s z"),
    ]
    return graph(nodes, [batch, 4], [scale, zero, weight, weight_zero])


@pytest.mark.parametrize("batch", [1, "N"])
def test_qdq_onnx_is_deployable_and_keeps_every_node(batch: int | str, tmp_path: Path):
    model = quantized_model(batch)
    source = load_source(save(model, tmp_path))
    assert source.kind == "deployable"
    assert [n.op_type for n in source.onnx.graph.node] == [n.op_type for n in model.graph.node]
    x = np.linspace(-2, 2, 4, dtype=np.float32)[None]
    np.testing.assert_array_equal(run_onnx(source.onnx, x), run_onnx(model, x))
    with pytest.raises(UnreadableModel, match="quantized already"):
        to_trainable(source)


def test_tflite(shared_data: Path):
    source = load_source(str(shared_data / "mlperf_tiny" / "ic_int8.tflite"))
    assert (source.kind, source.name) == ("tflite", "ic_int8")
    with pytest.raises(UnreadableModel, match="float32 input"):
        load_source(str(shared_data / "mlperf_tiny" / "ic_fp32.tflite"))
    with pytest.raises(BadInput, match="shapes fixed"):
        load_source(str(shared_data / "mlperf_tiny" / "ic_int8.tflite"), input_shape=(1, 2))


def test_damaged_tflite(shared_data: Path, tmp_path: Path):
    content = (shared_data / "mlperf_tiny" / "ad_int8.tflite").read_bytes()
    (tmp_path / "cut.tflite").write_bytes(content[:200])
    with pytest.raises(UnreadableModel, match="damaged TFLite"):
        load_source(str(tmp_path / "cut.tflite"))


def test_tflite_with_flipped_bytes_is_read_or_refused(shared_data: Path):
    content = (shared_data / "mlperf_tiny" / "kws_int8.tflite").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for index in range(200):
        damaged = bytearray(content)
        reach = len(content) if index % 2 else 3000
        for position in rng.integers(8, reach, 40):
            damaged[position] = rng.integers(0, 256)
        try:
            require_int8(bytes(damaged), "flipped")
        except UnreadableModel:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("net.onnx", b"", "not a valid ONNX model"),
        ("net.onnx", b"\x89PNG\r\n\x1a\n not a model", "not a valid ONNX model"),
        ("net.pt2", b"PK not a zip", "not a torch.export program"),
        ("net.tflite", b"GIF89a........", "no TFL3 mark"),
        ("net.h5", b"anything", "not a model I can read"),
        ("net", b"anything", "not a model I can read"),
    ],
)
def test_foreign_files(name: str, content: bytes, says: str, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableModel, match=says) as refused:
        load_source(str(tmp_path / name))
    assert name in one_line(refused)


def test_cut_onnx(tmp_path: Path):
    weights = [constant("w", 64, 3, 3, 3)]
    path = Path(save(graph([node("Conv", "x w")], [1, 3, 8, 8], weights), tmp_path))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UnreadableModel, match="not a valid ONNX model") as refused:
        load_source(str(path))
    one_line(refused)


@pytest.mark.parametrize("name", ["gone.onnx", "gone.pt2", "gone.tflite", "gone.pt", "a/b.onnx"])
def test_missing_files(name: str):
    with pytest.raises(UnreadableModel, match=f"There is no file '{name}'"):
        load_source(name)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("no_such_package.thing:make", "no Python module 'no_such_package'"),
        ("user_models:nothing", "no attribute 'nothing'.*perceptron"),
        ("user_models:VALUE", "is a int, not a callable"),
        ("user_models:not_a_module", "returned a dict, not a torch.nn.Module"),
        ("user_models:raises", "user_models.py:.*weights.pt is missing"),
        ("user_models:mixed", "input shape of 'mixed' is not known.*--input-shape"),
        ("user_models:branching", "torch.export cannot trace"),
    ],
)
def test_callables_that_give_no_module(spec: str, says: str):
    with pytest.raises(BadInput, match=says) as refused:
        load_source(spec)
    one_line(refused)


def test_shape_a_module_does_not_take():
    with pytest.raises(BadInput, match=r"forward pass on a \[1, 2, 16, 16\] float32 input fails"):
        load_source("user_models:mixed", input_shape=(1, 2, 16, 16))


def test_module_file_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "broken_user_file.py").write_text("import torch\nx = 1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"ZeroDivisionError at broken_user_file.py:2"):
        load_source("broken_user_file:make")
