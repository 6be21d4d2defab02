"""Residual additions inside the convolution before them: same numbers, less memory."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from qdq_model import QdqBuilder

from edgecompress.lower import twin
from edgecompress.lower.memory.arena import input_preserved, memory_map
from edgecompress.lower.passes.specialize import specialize
from edgecompress.lower.pipeline import lower
from edgecompress.lower.program import Program
from edgecompress.target.registry import load_target
from edgecompress.verify.host import HostModel


def residual_model(
    *, read_twice: bool = False, order: str = "ba", groups: int = 1
) -> onnx.ModelProto:
    """[1, 8, 8, 8]: conv a, conv b, conv c, add of a and c, mean, dense."""
    build = QdqBuilder(3)
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    x = build.wire("input", 0.05, -3, "x")
    build.node("Conv", [x, *build.weights("a", (8, 8, 3, 3), 0.05)], "a_out", **same)
    a = build.wire(build.node("Relu", ["a_out"], "a_relu"), 0.06, -128, "a_in")
    build.node("Conv", [a, *build.weights("b", (8, 8, 3, 3), 0.06)], "b_out", **same)
    b = build.wire("b_out", 0.08, 5, "b_in")
    weights = build.weights("c", (8, 8 // groups, 3, 3), 0.08)
    build.node("Conv", [b, *weights], "c_out", **same, group=groups)
    c = build.wire("c_out", 0.08, 5, "c_in")
    build.node("Add", [a, c] if order == "ab" else [c, a], "sum")
    s = build.wire(build.node("Relu", ["sum"], "sum_relu"), 0.1, -128, "s")
    if read_twice:
        s = build.wire(build.node("Add", [s, c], "again"), 0.1, -20, "s2")
    mean = build.wire(build.node("GlobalAveragePool", [s], "mean"), 0.03, -20, "m")
    d = build.wire(build.node("Flatten", [mean], "flat"), 0.03, -20, "d")
    build.node("Gemm", [d, *build.weights("fc", (10, 8), 0.03)], "fc", transB=1)
    return build.model([1, 8, 8, 8], build.wire("fc", 0.05, 10, "y"), [1, 10])


def compiled(model: onnx.ModelProto, **options) -> Program:
    return lower(model, name="residual", profile=load_target("cortex-m7"), **options)


def sample(program: Program, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(-128, 128, program.inputs[0].shape).astype(np.int8)


@pytest.mark.parametrize("requantize", ["smmla", "tflite"])
@pytest.mark.parametrize("order", ["ab", "ba"])
def test_fused_and_apart_agree_on_every_bit(order: str, requantize: str) -> None:
    model = residual_model(order=order)
    fused = compiled(model, requantize=requantize)
    apart = compiled(model, requantize=requantize, fuse=False)
    assert [step.op for step in apart.steps][:4] == ["conv2d", "conv2d", "conv2d", "add"]
    assert [step.op for step in fused.steps][:3] == ["conv2d", "conv2d", "conv2d_add"]
    assert fused.steps[2].name == "conv2d_2_add_0"
    assert fused.macs == apart.macs
    for seed in range(3):
        x = sample(fused, seed)
        one, other = twin.run(fused, x), twin.run(apart, x)
        np.testing.assert_array_equal(one["conv2d_2_add_0"], other["add_0"])
        np.testing.assert_array_equal(one[fused.steps[-1].name], other[apart.steps[-1].name])


def test_the_host_computes_in_place_what_the_twin_computes_apart() -> None:
    program = compiled(residual_model())
    host = HostModel(program)
    x = sample(program)
    expected = twin.run(program, x)
    np.testing.assert_array_equal(host.run(x).ravel(), expected[program.steps[-1].name].ravel())


def test_the_sum_lies_over_what_it_is_added_to() -> None:
    program = compiled(residual_model())
    other, output = (program.buffers[program.steps[2].arguments[at].name] for at in (1, -1))
    assert output.offset_bytes == other.offset_bytes
    maps = 8 * 8 * 8
    assert 2 * maps <= program.arena_bytes < 2.5 * maps
    assert compiled(residual_model(), fuse=False).arena_bytes > program.arena_bytes


def test_a_convolution_read_twice_stays_apart() -> None:
    assert "conv2d_add" not in [step.op for step in compiled(residual_model(read_twice=True)).steps]


def test_a_grouped_convolution_stays_apart_and_runs_on_its_own_kernel() -> None:
    program = compiled(residual_model(groups=4))
    assert [step.op for step in program.steps][2:4] == ["conv2d", "add"]
    device = specialize(program, load_target("cortex-m7"))
    assert "grouped" in device.steps[2].implementation
    assert device.steps[3].implementation


def test_occupied_bytes_are_those_of_the_arena() -> None:
    program = specialize(compiled(residual_model()), load_target("cortex-m7"))
    memory = memory_map(program)
    assert len(memory.occupied_bytes) == len(program.steps)
    assert memory.peak_live_bytes <= max(memory.occupied_bytes) <= memory.arena_bytes
    assert not input_preserved(program)
    roomy = {
        name: dataclasses.replace(buffer, offset_bytes=4096)
        for name, buffer in program.buffers.items()
    }
    (name,) = program.input_buffers
    roomy[name] = program.buffers[name]
    assert input_preserved(dataclasses.replace(program, buffers=roomy))
