"""Comparison of the three executions, on the hand-written image with a device that can be wrong."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgecompress.device.harness import open_device
from edgecompress.errors import ProtocolError
from edgecompress.lower.program import Argument, Buffer, Program, Step
from edgecompress.records import TensorSpec
from edgecompress.target.registry import load_target
from edgecompress.verify.compare import FLOAT_TOLERANCE, layers_behind_float, verify

sys.path.insert(0, str(Path(__file__).parents[1] / "device"))
import tiny_image as tiny

SAMPLES = np.random.default_rng(1).integers(-10, 10, (3, 1, 32)).astype(np.int8)


@dataclass(frozen=True)
class Twin:
    function: object
    op: str = "by_hand"
    macs: int = 0

    def reference(self, *arrays: np.ndarray) -> np.ndarray:
        return self.function(*arrays)


def program(*, second_is_float: bool = False) -> Program:
    def buffer(name: str, shape: tuple[int, ...]) -> Buffer:
        return Buffer(name, shape, "int8", int(np.prod(shape)), 0, 1)

    arguments = [Argument("buffer", name) for name in ("x", "h", "y")]
    parameter = {n: SimpleNamespace(ty=SimpleNamespace(shape=(1, n))) for n in (32, 10)}
    return Program(
        name="tiny01",
        steps=(
            Step("hidden", "f0", tuple(arguments[:2]), Twin(tiny.hidden_reference), "by_hand"),
            Step(
                "out", "f1", tuple(arguments[1:]),
                None if second_is_float else Twin(out_of_hidden), "by_hand",
            ),
        ),
        buffers={
            "x": buffer("x", (1, 32)),
            "h": buffer("h", (1, 32)),
            "y": buffer("y", (1, 10)),
        },
        constants=(),
        functions={
            "f0": SimpleNamespace(params=[parameter[32], parameter[32]]),
            "f1": SimpleNamespace(params=[parameter[32], parameter[10]]),
        },
        inputs=(TensorSpec(name="x", shape=(1, 32), dtype="int8", scale=1.0),),
        outputs=(TensorSpec(name="y", shape=(1, 10), dtype="int8", scale=1.0),),
        input_buffers=("x",),
        output_buffers=("y",),
    )  # fmt: skip


def out_of_hidden(hidden: np.ndarray) -> np.ndarray:
    wide = hidden.astype(np.int32).reshape(-1)
    total = wide[:10] + wide[10:20] + wide[20:30]
    return np.clip(total, -128, 127).astype(np.int8).reshape(1, 10)


@dataclass
class Host:
    """Right, except where `errors` adds to a layer's element."""

    errors: dict[str, tuple[int, int]] = field(default_factory=dict)

    def layers(self, x: np.ndarray) -> dict[str, np.ndarray]:
        hidden = tiny.hidden_reference(x.reshape(1, 32))
        layers = {"hidden": hidden, "out": out_of_hidden(hidden)}
        for name, (element, error) in self.errors.items():
            layers[name] = layers[name].copy()
            layers[name][0, element] += error
        return layers


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, slip in (("right", ""), ("wrong", "+ (i == 5)")):
        folders[name] = tmp_path_factory.mktemp(name)
        tiny.build_tiny_image(load_target("cortex-m7"), folders[name], slip=slip)
    return folders


def run(folder: Path, host: Host, model: Program):
    with open_device(folder, load_target("cortex-m7")) as session:
        return verify(model, host, session, session.manifest, SAMPLES)


def test_three_equal_sides_are_exact(images: dict[str, Path]) -> None:
    found = run(images["right"], Host(), program())
    assert found.exact
    assert found.agrees
    assert (found.layers, found.samples) == (2, 3)
    assert found.sides == ("numpy twin", "host", "device")
    assert found.tolerance is None


def test_a_wrong_device_is_named_to_the_element(images: dict[str, Path]) -> None:
    found = run(images["wrong"], Host(), program())
    difference = found.first_difference
    assert difference is not None
    assert not found.exact
    assert (difference.layer, difference.element) == ("hidden", (0, 5))
    assert difference.sides == ("host", "device")
    assert difference.values[1] == difference.values[0] + 1


def test_a_wrong_host_is_told_from_a_wrong_device(images: dict[str, Path]) -> None:
    difference = run(images["right"], Host({"out": (3, 1)}), program()).first_difference
    assert difference is not None
    assert (difference.layer, difference.element) == ("out", (0, 3))
    assert difference.sides == ("numpy twin", "host")


def test_without_a_device_two_sides_are_compared(images: dict[str, Path]) -> None:
    manifest = tiny_manifest(images["right"])
    found = verify(program(), Host(), None, manifest, SAMPLES)
    assert found.exact
    assert found.sides == ("numpy twin", "host")


def test_behind_a_float_small_steps_are_tolerated_and_not_called_exact(
    images: dict[str, Path],
) -> None:
    model = program(second_is_float=True)
    assert layers_behind_float(model) == {"out"}
    found = run(images["right"], Host({"out": (3, -1)}), model)
    assert found.agrees
    assert not found.exact
    assert found.tolerance == FLOAT_TOLERANCE
    assert found.sides == ("host", "device")
    assert not run(images["right"], Host({"out": (3, -9)}), model).agrees
    assert not run(images["right"], Host({"hidden": (3, -1)}), model).agrees


def test_an_image_of_another_program_is_refused(images: dict[str, Path]) -> None:
    manifest = tiny_manifest(images["right"])
    other = manifest.model_copy(update={"layers": manifest.layers[:1]})
    with pytest.raises(ProtocolError, match="built from another program"):
        verify(program(), Host(), None, other, SAMPLES)


def tiny_manifest(folder: Path):
    from edgecompress.device.harness import load_manifest

    return load_manifest(folder)
