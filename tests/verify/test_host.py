from __future__ import annotations

import time

import numpy as np
import pytest
from sample_programs import float_program, int8_program

from edgecompress.errors import BadData
from edgecompress.lower.program import Program
from edgecompress.verify.host import HostModel, aligned


@pytest.fixture(scope="module")
def program() -> Program:
    return int8_program()


@pytest.fixture(scope="module")
def host(program) -> HostModel:
    return HostModel(program)


def expected_layers(program: Program, x: np.ndarray) -> dict[str, np.ndarray]:
    """Each kernel's own numpy reference, chained."""
    values = {program.input_buffers[0]: x}
    for step in program.steps:
        arrays = [
            program.constants[int(item.name)] if item.kind == "constant" else values[item.name]
            for item in step.arguments[:-1]
        ]
        values[step.output] = step.kernel.reference(*arrays)
    return {step.name: values[step.output] for step in program.steps}


def samples(count: int) -> np.ndarray:
    return np.random.default_rng(2).integers(-128, 128, (count, 96)).astype(np.int8)


def test_every_layer_is_the_reference(program, host):
    for x in samples(5):
        layers = host.layers(x[None])
        expected = expected_layers(program, x[None])
        assert list(layers) == [step.name for step in program.steps]
        for name, value in layers.items():
            np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_run_batch_and_layers_agree(host):
    x = samples(20)
    batch = host.run_batch(x)
    assert batch.shape == (20, 10)
    assert len(np.unique(batch, axis=0)) > 10
    for one, result in zip(x, batch, strict=True):
        np.testing.assert_array_equal(host.run(one[None])[0], result)
        np.testing.assert_array_equal(host.layers(one[None])["head"][0], result)


def test_a_batch_costs_no_python_per_sample(host):
    x = samples(5000)
    start = time.process_time()
    host.run_batch(x)
    assert time.process_time() - start < 2.0


def test_float_programs_run():
    program = float_program()
    x = np.random.default_rng(1).normal(0, 1, (1, 20)).astype(np.float32)
    layers = HostModel(program).layers(x)
    for name, value in expected_layers(program, x).items():
        np.testing.assert_allclose(layers[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "x", [np.zeros((1, 96), np.float32), np.zeros((1, 95), np.int8)], ids=["dtype", "shape"]
)
def test_foreign_input_is_refused(host, x):
    with pytest.raises(BadData, match=r"takes int8 samples of shape \[1, 96\]"):
        host.run(x)


def test_aligned_copies_start_on_64_bytes():
    for size in (1, 3, 64, 1000):
        copy = aligned(np.arange(size, dtype=np.int16))
        assert copy.ctypes.data % 64 == 0
        np.testing.assert_array_equal(copy, np.arange(size))
