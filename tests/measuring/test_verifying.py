"""A device against the host build, on a small compiled model: agreement, errors, broken lines."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from lines import board_on_a_network

from edgecompress import api
from edgecompress.device.harness import Session
from edgecompress.errors import BadInput, DeviceFault
from edgecompress.records import DeviceVerification

sys.path.insert(0, str(Path(__file__).parents[1] / "lower"))

from qdq_model import small_model


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A QDQ network of eight layers, as `compile` leaves it for this machine."""
    folder = tmp_path_factory.mktemp("compiled")
    onnx.save(small_model(3, flatten=True), folder / "net.onnx")
    api.compile_model(str(folder / "net.onnx"), target="x86-64", output=folder / "net")
    return folder / "net"


@pytest.fixture
def folder(compiled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(compiled, tmp_path / "net"))


@pytest.fixture
def data(tmp_path: Path) -> str:
    random = np.random.default_rng(0)
    arrays = {
        f"{split}_{part}": values
        for split in ("train", "validation", "test")
        for part, values in (
            ("x", random.standard_normal((8, 3, 8, 8)).astype(np.float32)),
            ("y", random.integers(0, 10, 8)),
        )
    }
    np.savez(tmp_path / "data.npz", **arrays)
    return str(tmp_path / "data.npz")


def test_the_device_agrees_and_the_file_says_so(folder: Path) -> None:
    found = api.verify(folder, samples=4)
    assert found.agrees
    assert found.verification.exact
    assert found.verification.sides == ("host", "device")
    assert found.verification.samples == found.samples_asked == 4
    assert found.data == "seeded noise"
    assert found.device_accuracy is None
    assert not found.broken
    (file,) = (folder / "measurements").glob("*.verification.json")
    assert DeviceVerification.from_json(file.read_bytes()) == found


def test_accuracy_on_the_device_with_labels(folder: Path, data: str) -> None:
    found = api.verify(folder, samples=8, data=data)
    assert found.device_accuracy == found.host_accuracy
    assert found.device_accuracy in [100 * hits / 8 for hits in range(9)]
    outputs = [api.verify(folder, samples=count, data=data).device_accuracy for count in (1, 8)]
    assert outputs[0] in (0.0, 100.0)
    assert outputs[1] == found.device_accuracy


def test_data_of_another_shape_is_refused(folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "wrong.npz", x=np.zeros((9, 5, 5), np.float32))
    with pytest.raises(BadInput, match="shape"):
        api.verify(folder, data=str(tmp_path / "wrong.npz"))


def corrupted(monkeypatch: pytest.MonkeyPatch, *, layer: int, samples: set[int]) -> None:
    """A device that computes one layer wrong for some samples, whatever it is asked for."""
    layers, read = Session.layers, Session.read_layer
    seen = -1

    def wrong_layers(self: Session, x: np.ndarray, manifest: Any = None) -> Any:
        nonlocal seen
        seen += 1
        traces = layers(self, x, manifest)
        if seen in samples:
            import dataclasses
            import zlib

            crc = zlib.crc32(self.read_layer(layer).tobytes())
            traces[layer] = dataclasses.replace(traces[layer], crc=crc)
        return traces

    def wrong_read(self: Session, index: int) -> np.ndarray:
        found = read(self, index).copy()
        if index == layer and seen in samples:
            found.reshape(-1)[5] ^= 1
        return found

    monkeypatch.setattr(Session, "layers", wrong_layers)
    monkeypatch.setattr(Session, "read_layer", wrong_read)


def test_the_first_difference_is_named_and_the_rest_still_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrupted(monkeypatch, layer=1, samples={2, 4})
    found = api.verify(folder, samples=6)
    assert not found.agrees
    assert found.verification.samples == 6
    assert found.first_sample == 2
    name = found.disagreements.popitem()
    assert name[1] == 2
    difference = found.verification.first_difference
    assert difference is not None
    assert difference.layer == name[0]
    assert np.ravel_multi_index(difference.element, _shape(folder, 1)) == 5
    assert abs(difference.values[0] - difference.values[1]) == 1


def _shape(folder: Path, index: int) -> tuple[int, ...]:
    from edgecompress.device.harness import load_manifest

    return load_manifest(folder).layers[index].output_shape


def test_a_pulled_cable_keeps_what_was_verified(folder: Path) -> None:
    with board_on_a_network(folder / "firmware", pull_after_bytes=20_000) as url:
        found = api.verify(folder, device=url, samples=5000)
    assert found.agrees
    assert found.broken
    assert url in found.stopped
    assert 0 < found.verification.samples < 5000
    assert list((folder / "measurements").glob("*.verification.json"))


def test_a_device_that_fails_on_the_first_sample_is_trouble(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: Any) -> None:
        raise DeviceFault("the board is gone.")

    monkeypatch.setattr(Session, "layers", gone)
    with pytest.raises(DeviceFault):
        api.verify(folder)
    assert not (folder / "measurements").exists()


def test_the_time_is_bounded(folder: Path) -> None:
    found = api.verify(folder, samples=20_000, time_limit_s=1.0)
    assert found.stopped == "the time limit of 1 s was reached"
    assert not found.broken
    assert found.agrees
    assert 0 < found.verification.samples < 20_000


def test_an_interrupt_keeps_what_was_verified(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, calls = Session.layers, iter(range(10))

    def interrupted(self: Session, x: np.ndarray, manifest: Any = None) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return layers(self, x, manifest)

    monkeypatch.setattr(Session, "layers", interrupted)
    found = api.verify(folder, samples=10)
    assert (found.verification.samples, found.stopped, found.broken) == (3, "interrupted", True)


Damage = Callable[[Path], object]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model.onnx").unlink(), "neither model.onnx nor model.tflite"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"x"), "the image was made from"),
        (lambda folder: (folder / "image.json").unlink(), r"image\.json is missing"),
    ],
)
def test_a_folder_without_its_model_is_refused(folder: Path, damage: Damage, message: str) -> None:
    damage(folder)
    with pytest.raises(BadInput, match=message):
        api.verify(folder)


def test_a_model_that_compiles_otherwise_now_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecompress.records import ImageManifest

    path = folder / "image.json"
    manifest = ImageManifest.from_json(path.read_bytes())
    path.write_text(manifest.model_copy(update={"layers": manifest.layers[:-1]}).to_json())
    with pytest.raises(BadInput, match="and they are not the same"):
        api.verify(folder)
