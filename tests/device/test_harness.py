"""Sessions on every kind of device that is here, and what opening one refuses."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_image as tiny

from edgecompress.device.harness import open_device
from edgecompress.errors import (
    BadData,
    BadInput,
    DeviceFault,
    DeviceNotFound,
    DeviceTimeout,
    ProtocolError,
)
from edgecompress.target.registry import load_target
from edgecompress.target.schema import DeviceProfile

TinyImage = Callable[..., Path]
X = np.random.default_rng(0).integers(-100, 100, (1, 32)).astype(np.int8)


def test_layers_and_reads_are_the_references(tiny_image: TinyImage, m7: DeviceProfile) -> None:
    with open_device(tiny_image("cortex-m7"), m7) as session:
        traces = session.layers(X, session.manifest)
        assert [trace.name for trace in traces] == ["hidden", "out"]
        assert np.array_equal(session.read_layer(0), tiny.hidden_reference(X))
        assert np.array_equal(session.read_layer(1), tiny.output_reference(X))


def test_the_virtual_board_is_reached_over_a_terminal(
    tiny_image: TinyImage, m7: DeviceProfile
) -> None:
    with open_device(tiny_image("cortex-m7"), m7) as session:
        assert session.port._serial.name.startswith("/dev/")


def test_emulated_figures_are_never_called_measured(
    tiny_image: TinyImage, m7: DeviceProfile
) -> None:
    with open_device(tiny_image("cortex-m7"), m7) as session:
        measurement = session.measure(X, runs=3, warmup=1)
    assert measurement.label == "emulated instructions"
    assert measurement.latency_us is None
    assert measurement.instructions is not None
    assert measurement.instructions > 100
    assert measurement.stack_high_water_bytes is not None
    assert 0 < measurement.stack_high_water_bytes < 4096
    assert [layer.name for layer in measurement.layers] == ["hidden", "out"]


def test_a_process_of_this_machine_is_measured_in_time(
    tiny_image: TinyImage, x86: DeviceProfile
) -> None:
    try:
        session = open_device(tiny_image("x86-64"), x86, "process")
    except DeviceNotFound as error:
        pytest.skip(str(error))
    with session:
        assert np.array_equal(session.infer(X), tiny.output_reference(X))
        measurement = session.measure(X, runs=5)
    assert measurement.label == "measured on device"
    assert measurement.instructions is None
    assert measurement.latency_us is not None
    assert measurement.latency_us > 0
    assert measurement.stack_high_water_bytes is None


def test_qemu_user_reports_no_time(tiny_image: TinyImage) -> None:
    with open_device(tiny_image("aarch64"), load_target("aarch64"), "process") as session:
        assert np.array_equal(session.infer(X), tiny.output_reference(X))
        measurement = session.measure(X)
        emulated = "qemu" in session.port.name
    assert (measurement.latency_us is None) == emulated
    assert measurement.instructions is None


def test_a_crash_of_the_process_names_its_signal(tiny_image: TinyImage, x86: DeviceProfile) -> None:
    x = X.copy()
    x[0, 0] = tiny.READ_NOWHERE
    with (
        open_device(tiny_image("x86-64"), x86, "process") as session,
        pytest.raises(DeviceFault, match=r"SIGSEGV|SIGILL|SIGTRAP"),
    ):
        session.infer(x)


@pytest.fixture
def bridge(tiny_image: TinyImage) -> Iterator[str]:
    """The tiny image behind a TCP socket, as a serial server would put it."""
    program = subprocess.Popen(
        [tiny_image("x86-64") / "firmware"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    server = socket.create_server(("127.0.0.1", 0))
    assert program.stdin is not None
    assert program.stdout is not None

    def serve() -> None:
        connection, _ = server.accept()

        def upward() -> None:
            while data := program.stdout.read(4096):
                connection.sendall(data)

        threading.Thread(target=upward, daemon=True).start()
        while data := connection.recv(4096):
            program.stdin.write(data)

    threading.Thread(target=serve, daemon=True).start()
    yield f"socket://127.0.0.1:{server.getsockname()[1]}"
    program.kill()
    program.wait()
    server.close()


def test_a_board_behind_a_socket(tiny_image: TinyImage, x86: DeviceProfile, bridge: str) -> None:
    with open_device(tiny_image("x86-64"), x86, bridge) as session:
        assert np.array_equal(session.infer(X), tiny.output_reference(X))
        assert np.array_equal(session.read_layer(0), tiny.hidden_reference(X))


def test_another_model_on_the_device_is_refused(
    tiny_image: TinyImage, x86: DeviceProfile, tmp_path: Path
) -> None:
    folder = tmp_path / "image"
    shutil.copytree(tiny_image("x86-64"), folder)
    text = (folder / "image.json").read_text().replace(tiny.MODEL_HASH, "c0de" * 16)
    (folder / "image.json").write_text(text)
    with pytest.raises(ProtocolError, match=r"runs model 5eed5eed5eed.*holds c0dec0dec0de"):
        open_device(folder, x86, "process")


def test_a_changed_firmware_is_refused_before_it_runs(
    tiny_image: TinyImage, m7: DeviceProfile, tmp_path: Path
) -> None:
    folder = tmp_path / "image"
    shutil.copytree(tiny_image("cortex-m7"), folder)
    with (folder / "firmware.elf").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BadInput, match=r"image\.json says"):
        open_device(folder, m7)


@pytest.mark.parametrize("content", [None, b"{", b'{"schema_version": 1}', b"\xff\xfe"])
def test_a_folder_without_an_image_is_bad_input(
    m7: DeviceProfile, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "image.json").write_bytes(content)
    with pytest.raises(BadInput, match=r"image\.json"):
        open_device(tmp_path, m7)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("frobnicator", "is not a device"),
        ("serial:/dev/nothing-here", "cannot be opened"),
        ("socket://127.0.0.1:1", "cannot be opened"),
        ("gopher://x", "cannot be opened"),
        ("process", "do not run as a process"),
    ],
)
def test_a_device_that_is_not_there(
    tiny_image: TinyImage, m7: DeviceProfile, device: str, message: str
) -> None:
    with pytest.raises(DeviceNotFound, match=message):
        open_device(tiny_image("cortex-m7"), m7, device)


def test_missing_qemu_says_how_to_get_it(
    tiny_image: TinyImage, m7: DeviceProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DeviceNotFound, match="apt install qemu-system-arm"):
        open_device(tiny_image("cortex-m7"), m7, "qemu")


def test_a_silent_device_is_a_timeout(
    tiny_image: TinyImage, x86: DeviceProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecompress.device.protocol import Client

    monkeypatch.setattr(Client.synchronize, "__kwdefaults__", {"patience_s": 0.3})
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"socket://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(DeviceTimeout, match="did not answer 'name'"):
            open_device(tiny_image("x86-64"), x86, url)


@pytest.mark.parametrize("x", [X.astype(np.float32), X[:, :31], np.zeros((0,), np.int8)])
def test_a_sample_of_the_wrong_kind_is_bad_data(
    tiny_image: TinyImage, m7: DeviceProfile, x: np.ndarray
) -> None:
    with (
        open_device(tiny_image("cortex-m7"), m7) as session,
        pytest.raises(BadData, match=r"one int8 sample of shape \[1, 32\]"),
    ):
        session.infer(x)
