"""Whole models through `lower`: against onnxruntime, against LiteRT's files, and refused ones."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from host_kernels import HOST_TARGET
from qdq_model import small_model

from edgecompress.errors import BadData, UnreadableModel, UnsupportedOperators
from edgecompress.lower import twin
from edgecompress.lower.codegen import build_object
from edgecompress.lower.pipeline import lower
from edgecompress.lower.program import Program, dequantize_output, quantize_input
from edgecompress.target.registry import load_target

PROFILE = load_target("cortex-m7")


class Host:
    """Runs a program's own PrimFuncs on this machine, step by step."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        (folder / "program.o").write_bytes(build_object(program.functions, HOST_TARGET))
        command = [sys.executable, "-m", "ziglang", "cc", "-shared", "program.o", "-lm"]
        subprocess.run([*command, "-o", "program.so"], cwd=folder, check=True)
        self.library = ctypes.CDLL(str(folder / "program.so"))

    def run(self, x: np.ndarray) -> dict[str, np.ndarray]:
        memory = {
            name: np.zeros(buffer.shape, buffer.dtype)
            for name, buffer in self.program.buffers.items()
        }
        memory[self.program.input_buffers[0]][...] = x
        for step in self.program.steps:
            arrays = [
                memory[argument.name]
                if argument.kind == "buffer"
                else self.program.constants[int(argument.name)]
                for argument in step.arguments
            ]
            pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in arrays]
            getattr(self.library, step.function)(*pointers)
        return memory


def samples(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(0, 3, (1, 3, 8, 8)).astype(np.float32) for _ in range(count)]


def reference(model: object, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"input": x})[0]


@pytest.mark.parametrize("requantize", ["smmla", "tflite"])
@pytest.mark.parametrize("flatten", [False, True])
def test_qdq_onnx_is_onnxruntime_and_its_twin(
    flatten: bool, requantize: str, tmp_path: Path
) -> None:
    """One LSB of the output for one rounding; LiteRT's two roundings may add another."""
    model = small_model(1, flatten=flatten)
    program = lower(model, name="small", profile=PROFILE, requantize=requantize)
    assert program.float_layers == ()
    assert [step.op for step in program.steps if step.op != "mean"] == [
        "conv2d", "depthwise_conv2d", "add", "dense",
    ]  # fmt: skip
    host = Host(program, tmp_path)
    for x in samples(10):
        quantized = quantize_input(program, x)
        memory = host.run(quantized)
        for name, expected in twin.run(program, quantized).items():
            np.testing.assert_array_equal(memory[name].ravel(), expected.ravel())
        real = dequantize_output(program, memory[program.output_buffers[0]])
        steps = np.abs(real - reference(model, x)) / program.outputs[0].scale
        assert steps.max() < (1.01 if requantize == "smmla" else 2.01)


@pytest.mark.parametrize("name", ["kws", "ic", "ad"])
def test_mlperf_tiny_has_no_float_layer(name: str, shared_data: Path) -> None:
    content = (shared_data / "mlperf_tiny" / f"{name}_int8.tflite").read_bytes()
    program = lower(content, name=name, profile=PROFILE)
    assert program.float_layers == ()
    assert program.macs == {"kws": 2_664_768, "ic": 12_505_728, "ad": 264_192}[name]
    assert {spec.dtype for spec in (*program.inputs, *program.outputs)} == {"int8"}


def test_unquantized_operator_is_refused_with_its_reason() -> None:
    model = small_model(0, flatten=False, softmax=True)
    with pytest.raises(UnsupportedOperators, match="softmax") as refusal:
        lower(model, name="small", profile=PROFILE)
    assert [operator for operator, _, _ in refusal.value.operators] == ["nn.softmax"]


def test_allowed_float_runs_and_is_listed(tmp_path: Path) -> None:
    model = small_model(0, flatten=False, softmax=True)
    program = lower(model, name="small", profile=PROFILE, allow_float=True)
    assert any("softmax" in layer for layer in program.float_layers)
    assert not any("conv2d" in layer or "dense" in layer for layer in program.float_layers)
    assert program.outputs[0].dtype == "float32"
    host = Host(program, tmp_path)
    x = samples(1)[0]
    probability = host.run(quantize_input(program, x))[program.output_buffers[0]]
    np.testing.assert_allclose(probability, reference(model, x), atol=0.02)


def test_float32_keeps_the_source_layout(tmp_path: Path) -> None:
    """Precision float32 takes any ONNX, here the QDQ one with its quantizers left in."""
    model = small_model(2, flatten=True)
    program = lower(model, name="small", profile=PROFILE, precision="float32")
    assert program.inputs[0].shape == (1, 3, 8, 8)
    assert len(program.float_layers) == len(program.steps)
    x = samples(1)[0]
    result = Host(program, tmp_path).run(x)[program.output_buffers[0]]
    np.testing.assert_allclose(result, reference(model, x), atol=0.21)


def test_every_pass_is_dumped(tmp_path: Path) -> None:
    lower(small_model(0, flatten=True), name="small", profile=PROFILE, dump=tmp_path)
    stages = [path.stem.split("-", 1)[1] for path in sorted(tmp_path.iterdir())]
    assert stages[:3] == ["import", "integerize", "legalize"]
    assert stages[-1] == "linearize"


def test_bytes_that_are_no_model_are_refused() -> None:
    with pytest.raises(UnreadableModel, match="TFL3"):
        lower(b"nothing of the kind", name="x", profile=PROFILE)


def test_a_sample_of_another_shape_is_refused() -> None:
    program = lower(small_model(0, flatten=True), name="small", profile=PROFILE)
    with pytest.raises(BadData, match=r"\(1, 3, 8, 8\)"):
        quantize_input(program, np.zeros((1, 8, 8, 4), np.float32))
