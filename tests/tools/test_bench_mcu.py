"""The bench's rows, ratios and table, on a small QDQ model and on recorded figures."""

from __future__ import annotations

import importlib.util
import json
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecompress.errors import BadInput
from edgecompress.lower.pipeline import lower
from edgecompress.model.load import load_source
from edgecompress.target import load_target

TOOL = Path(__file__).resolve().parents[2] / "tools" / "bench" / "mcu.py"
ISSUE_FIELDS = {
    "model", "core", "instructions", "words", "macs", "flash_bytes", "weights_bytes", "ram_bytes",
    "arena_bytes", "stack_bytes", "exact", "fallback_layers",
}  # fmt: skip
IC_HASH = "3c002613d1b2475eb51dd78dfb85a546c8ae658dee71cf6ade43b022fe205415"


@pytest.fixture(scope="module")
def mcu() -> ModuleType:
    specification = importlib.util.spec_from_file_location("bench_mcu", TOOL)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def dense_model(path: Path) -> Path:
    """Quantize, 8 -> 4 dense with int8 weights, dequantize."""
    weight = np.arange(32, dtype=np.int8).reshape(4, 8)
    constants = {
        "s": np.float32(0.05), "z": np.int8(0), "ws": np.full(4, 0.01, np.float32),
        "wz": np.zeros(4, np.int8), "w": weight, "bs": np.full(4, 0.0005, np.float32),
        "bz": np.zeros(4, np.int32), "b": np.arange(4, dtype=np.int32),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["bd"], axis=0),
        helper.make_node("Gemm", ["xd", "wd", "bd"], ["y"], transB=1),
        helper.make_node("QuantizeLinear", ["y", "s", "z"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, path)
    return path


def a_row(**changes: Any) -> dict[str, Any]:
    return {
        "model": "net", "core": "cortex-m4", "instructions": 15_000_000, "words": 16_000_000,
        "macs": 12_501_632, "m4_cycles": 18_200_000, "cycles": None, "flash_bytes": 92_000,
        "weights_bytes": 81_000, "ram_bytes": 36_500, "arena_bytes": 36_000, "stack_bytes": 300,
        "exact": True, "fallback_layers": ["softmax_0"], "model_hash": IC_HASH, **changes,
    }  # fmt: skip


def test_a_models_rows_are_exact_and_deterministic(
    mcu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(dense_model(tmp_path / "dense.onnx"))
    arguments = [model, "--cores", "m4,m3", "--json", "--jobs", "1"]
    assert mcu.main(arguments) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["core"] for row in rows] == ["cortex-m4", "cortex-m3"]
    for row in rows:
        assert set(row) == ISSUE_FIELDS
        assert row["exact"] is True
        assert row["macs"] == 32
        assert row["words"] >= row["instructions"] > 32
        assert row["flash_bytes"] > row["weights_bytes"] >= 32
        assert row["ram_bytes"] >= row["arena_bytes"] + row["stack_bytes"]
    assert mcu.main([model, "--cores", "m3", "--json", "--all", "--jobs", "1"]) == 0
    (again,) = json.loads(capsys.readouterr().out)
    assert {name: again[name] for name in ISSUE_FIELDS} == rows[1]
    assert again["m4_cycles"] > again["instructions"]
    assert again["rivals"] == []


def test_convolutions_fused_with_their_additions_count(mcu: ModuleType, shared_data: Path) -> None:
    source = load_source(str(shared_data / "mlperf_tiny" / "ic_int8.tflite"))
    program = lower(source.tflite, name="ic", profile=load_target("cortex-m7"))
    assert {"conv2d", "conv2d_add", "dense"} <= {step.op for step in program.steps}
    assert mcu.weighted_macs(program) == 12_501_632


def test_other_cores_are_compared_with_the_m4(mcu: ModuleType) -> None:
    other = a_row(core="cortex-m33", instructions=16_500_000, flash_bytes=46_000)
    lines = mcu.table([a_row(), other]).splitlines()
    (line,) = [line.split() for line in lines if line.startswith("  to cortex-m4")]
    assert line[2:] == ["1.10x", "1.00x", "1.00x", "0.50x", "1.00x"]
    assert "to cortex-m4" not in mcu.table([a_row(), {**other, "model": "another"}])


def test_names_stand_for_the_files_of_mlperf_tiny(
    mcu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECOMPRESS_DATA", str(tmp_path))
    with pytest.raises(BadInput, match="kws is no file"):
        mcu.model_path("kws")
    (tmp_path / "mlperf_tiny").mkdir()
    (tmp_path / "mlperf_tiny" / "kws_int8.tflite").touch()
    assert mcu.model_path("kws") == str(tmp_path / "mlperf_tiny" / "kws_int8.tflite")
    assert mcu.model_path("some/net.tflite") == "some/net.tflite"
    asked: list[str] = []
    monkeypatch.setattr(mcu, "model_path", lambda name: asked.append(name) or name)
    monkeypatch.setattr(mcu, "bench", lambda models, cores, jobs: ([], []))
    assert mcu.main([]) == 0
    assert asked == ["ic", "kws", "ad"]


def test_recorded_figures_are_of_the_same_file_only(mcu: ModuleType) -> None:
    first, second = mcu.comparisons(a_row())
    assert first["engine"] == "TFLM + CMSIS-NN"
    assert first["ratios"]["instructions"] == pytest.approx(0.5)
    assert first["ratios"]["m4_cycles"] == pytest.approx(0.5)
    assert set(second["ratios"]) == {"instructions", "flash_bytes", "ram_bytes"}
    assert mcu.comparisons(a_row(model_hash="0" * 64)) == []
    assert mcu.comparisons(a_row(core="cortex-m55")) == []


def test_every_recorded_figure_names_its_source(mcu: ModuleType) -> None:
    recorded = tomllib.loads(TOOL.with_name("mcu_rivals.toml").read_text())["models"]
    assert len(recorded) == 3
    for model in recorded.values():
        for rival in model["rivals"]:
            assert rival["source"]
            assert set(rival) - {"engine", "source"} <= set(mcu._COMPARED)


def test_the_table_shows_ratios_and_what_is_missing(mcu: ModuleType) -> None:
    text = mcu.table([a_row(), a_row(core="cortex-m55", words=None, m4_cycles=None, exact=False)])
    lines = [line.split() for line in text.splitlines()]
    assert lines[1][:6] == ["net", "m4", "15,000,000", "1.20", "16,000,000", "18,200,000"]
    assert "0.50x" in text.splitlines()[2]
    m55 = next(line for line in lines if line[1:2] == ["m55"])
    assert m55[1:6] == ["m55", "15,000,000", "1.20", "-", "-"]
    assert "NO" in m55
    assert "30,000,000" in mcu.sources([a_row()])


def test_a_model_that_cannot_be_taken_leaves_the_other_rows(
    mcu: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def measure(model: str, target: str) -> dict[str, Any]:
        if target == "cortex-m0plus":
            raise BadInput("it is 9 bytes too big.")
        return a_row(core=target)

    monkeypatch.setattr(mcu, "measure", measure)
    assert mcu.main(["some/net.tflite", "--cores", "m0plus,m4", "--jobs", "1"]) == 2
    captured = capsys.readouterr()
    assert "15,000,000" in captured.out
    assert captured.err == "error: net.tflite on cortex-m0plus: it is 9 bytes too big.\n"


def test_bad_input_ends_with_one_line(
    mcu: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mcu.main([str(tmp_path / "none.tflite"), "--jobs", "1"]) == 2
    assert mcu.main([str(tmp_path / "none.tflite"), "--cores", "m99"]) == 2
    assert mcu.main([str(tmp_path / "none.tflite"), "--cores", "x86-64"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 4  # the missing file, on the two default cores
    assert all(line.startswith("error: ") for line in errors)
