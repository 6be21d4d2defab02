"""Bad input through the real api: one line that names the fault, the right exit code, no files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgecompress.cli import main


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save_model(path: Path, *operators: str) -> str:
    """A float ONNX of one 1x1 convolution and then the given element-wise operators."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["t0"], name="conv")]
    for index, operator in enumerate(operators):
        inputs, outputs = [f"t{index}"], [f"t{index + 1}"]
        nodes.append(helper.make_node(operator, inputs, outputs, name=f"node_{index}"))
    weights = np.ones((4, 3, 1, 1), np.float32)
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info(f"t{len(operators)}", TensorProto.FLOAT, [1, 4, 8, 8])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return str(path)


def save_data(path: Path, x: np.ndarray, y: np.ndarray | None = None) -> str:
    np.savez(path, **({"x": x} if y is None else {"x": x, "y": y}))
    return str(path)


def good_x(count: int = 40) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 8, 8)).astype(np.float32)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    """The one line the command ends with, after checking the code, stdout and the JSON form."""
    assert main(arguments) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, captured.err
    assert "Traceback" not in captured.err
    assert not Path("build").exists() or not list(Path("build").iterdir())
    return errors[0]


def test_missing_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert "'absent.onnx'" in refused(["inspect", "absent.onnx"], capsys)


@pytest.mark.parametrize("name", ["foreign.onnx", "foreign.tflite", "foreign.pt2"])
def test_foreign_model_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(name).write_bytes(b"this is not a model at all" * 10)
    assert name in refused(["inspect", name], capsys)
    assert name in refused(["compile", name, "-t", "cortex-m7"], capsys)


def test_a_model_without_data(capsys: pytest.CaptureFixture[str]) -> None:
    model = save_model(Path("net.onnx"), "Relu")
    assert "needs data" in refused(["fit", model, "-t", "cortex-m7"], capsys)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (good_x()[:, :, :, :7], "[3, 8, 7], but the model takes [3, 8, 8]"),
        (good_x()[:0], "empty"),
        (np.where(np.arange(40)[:, None, None, None] == 3, np.nan, good_x()), "NaN"),
        (np.full((40, 3, 8, 8), "text"), "float"),
    ],
    ids=["wrong shape", "empty", "NaN", "wrong dtype"],
)
def test_bad_data(x: np.ndarray, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = save_model(Path("net.onnx"), "Relu"), save_data(Path("d.npz"), x)
    line = refused(["fit", model, "--data", data, "-t", "cortex-m7"], capsys)
    assert words.lower() in line.lower()


def test_missing_and_foreign_data(capsys: pytest.CaptureFixture[str]) -> None:
    model = save_model(Path("net.onnx"), "Relu")
    Path("foreign.npz").write_bytes(b"not a zip")
    for data in ("absent.npz", "foreign.npz"):
        assert data in refused(["fit", model, "--data", data, "-t", "cortex-m7"], capsys)


def test_unsupported_operators_are_all_listed(capsys: pytest.CaptureFixture[str]) -> None:
    model = save_model(Path("net.onnx"), "Erf", "Relu", "Sin")
    data = save_data(Path("d.npz"), good_x())
    line = refused(["fit", model, "--data", data, "-t", "cortex-m7"], capsys)
    assert "2 unsupported operators" in line
    assert "Erf" in line
    assert "Sin" in line
    assert main(["fit", model, "--data", data, "-t", "cortex-m7", "--json"]) == 2
    listed = json.loads(capsys.readouterr().out)["error"]["operators"]
    assert [one["operator"] for one in listed] == ["Erf", "Sin"]
    assert all(one["node"] for one in listed)


def test_a_float_model_is_not_a_deployable(capsys: pytest.CaptureFixture[str]) -> None:
    model = save_model(Path("net.onnx"), "Relu")
    assert "float model" in refused(["compile", model, "-t", "cortex-m7"], capsys)


def test_unwritable_output(capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("a file, not a folder")
    model, data = save_model(Path("net.onnx"), "Relu"), save_data(Path("d.npz"), good_x())
    arguments = ["fit", model, "--data", data, "-t", "cortex-m7", "--output"]
    assert "taken" in refused([*arguments, "taken"], capsys)
    assert "taken" in refused([*arguments, "taken/inside"], capsys)
    Path("mine").mkdir()
    Path("mine/precious.txt").write_text("keep me")
    assert "not an edgecompress result" in refused([*arguments, "mine"], capsys)
    assert Path("mine/precious.txt").read_text() == "keep me"


@pytest.mark.parametrize(("option", "word"), [("--flash", "flash"), ("--ram", "RAM")])
def test_a_budget_that_cannot_be_met(
    option: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = save_model(Path("net.onnx"), "Relu"), save_data(Path("d.npz"), good_x())
    arguments = ["fit", model, "--data", data, "-t", "cortex-m7", option, "512"]
    line = refused(arguments, capsys, code=1)
    assert word in line
    assert "512 B" in line
    assert main([*arguments, "--json"]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["kind"], error["limit"]) == ("DoesNotFit", 512)
    assert error["needed"] > error["limit"]


def test_profile_of_a_folder_without_an_image(capsys: pytest.CaptureFixture[str]) -> None:
    assert "image.json" in refused(["profile", "."], capsys)


def test_a_damaged_plan(capsys: pytest.CaptureFixture[str]) -> None:
    model, data = save_model(Path("net.onnx"), "Relu"), save_data(Path("d.npz"), good_x())
    for content in ("{", "[]", '{"seed": 0}', "\x00"):
        Path("plan.json").write_text(content)
        arguments = ["fit", model, "--data", data, "-t", "cortex-m7", "--plan", "plan.json"]
        assert "plan.json is not a plan" in refused(arguments, capsys)
