from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
from elftools.elf.elffile import ELFFile
from onnx import TensorProto, helper, numpy_helper

from edgecompress.engines.tvm import build_cuda_package
from edgecompress.errors import BuildFailed, UnwritableOutput
from edgecompress.target import load_target


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    generator = np.random.default_rng(0)
    weights = {
        "w": generator.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "f": generator.normal(size=(8, 10)).astype(np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("GlobalAveragePool", ["b"], ["c"]),
            helper.make_node("Flatten", ["c"], ["d"]),
            helper.make_node("MatMul", ["d", "f"], ["y"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize(
    ("target", "arch", "machine"),
    [("cuda-sm_90", "sm_90", "EM_X86_64"), ("cuda-sm_87", "sm_87", "EM_AARCH64")],
)
def test_a_gpu_that_is_not_here_gets_a_whole_package(model, target, arch, machine, tmp_path):
    package = build_cuda_package(model, load_target(target), tmp_path)
    manifest = json.loads((package / "package.json").read_text())
    assert manifest["note"] == "compiled, not run"
    assert manifest["cuda"]["arch"] == arch
    assert manifest["inputs"] == [{"name": "x", "shape": [1, 3, 16, 16], "dtype": "float"}]
    source = (package / "kernels.cu").read_text()
    assert len(manifest["kernels"]) >= 3
    assert all(f"{name}(" in source for name in manifest["kernels"])
    with (package / "model.so").open("rb") as file:
        library = ELFFile(file)
        assert library["e_machine"] == machine
        assert library["e_type"] == "ET_DYN"
    assert (package / "kernels.cubin").exists() == (shutil.which("nvcc") is not None)


def test_nvcc_is_optional(model, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    package = build_cuda_package(model, load_target("cuda-sm_90"), tmp_path)
    assert not (package / "kernels.cubin").exists()
    manifest = json.loads((package / "package.json").read_text())
    assert manifest["device_code"] == "CUDA C, compiled by NVRTC at load"


def test_an_nvcc_that_refuses_is_named(model, tmp_path, monkeypatch):
    refusing = tmp_path / "nvcc"
    refusing.write_text('#!/bin/sh\necho "nvcc fatal error: no sm_90" >&2\nexit 1\n')
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(BuildFailed, match="nvcc refused the kernels for sm_90: nvcc fatal error"):
        build_cuda_package(model, load_target("cuda-sm_90"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_only_gpu_targets(model, tmp_path):
    with pytest.raises(BuildFailed, match=r"cortex-m7 has no \[cuda\] table"):
        build_cuda_package(model, load_target("cortex-m7"), tmp_path)


def test_an_unwritable_folder_is_one_clear_line(model, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(UnwritableOutput, match="cannot take the package"):
        build_cuda_package(model, load_target("cuda-sm_90"), blocked)
