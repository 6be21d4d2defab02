"""Images whose input, output and activations share bytes: the harness loads the input again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sample_programs import int8_program

from edgecompress.device.harness import open_device
from edgecompress.link.image import build_image
from edgecompress.lower import twin
from edgecompress.lower.memory.arena import input_preserved
from edgecompress.target.registry import load_target


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    build_image(int8_program(), load_target("cortex-m3"), folder, model_hash="ab" * 32)
    return folder


def test_an_overwritten_input_is_loaded_again(image: Path) -> None:
    program = int8_program()
    assert not input_preserved(program)
    random = np.random.default_rng(2)
    samples = random.integers(-128, 128, (2, *program.inputs[0].shape)).astype(np.int8)
    with open_device(image, load_target("cortex-m3")) as session:
        assert session.manifest.size.ram_parts["io"] == 0
        for x in samples:
            expected = twin.run(program, x)
            last = expected[program.steps[-1].name]
            np.testing.assert_array_equal(session.infer(x).ravel(), last.ravel())
            # the inference above has written over the input
            for index in (0, 3, 1):
                found = session.read_layer(index)
                name = program.steps[index].name
                np.testing.assert_array_equal(found.ravel(), expected[name].ravel())
        once = session.measure(samples[0], runs=1)
        often = session.measure(samples[0], runs=3, warmup=2)
        assert often.instructions == pytest.approx(once.instructions, rel=0.01)
        np.testing.assert_array_equal(session.infer(samples[1]).ravel(), last.ravel())
