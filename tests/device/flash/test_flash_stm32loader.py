"""The genuine stm32loader program against an emulated boot loader on a pseudo-terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from stm32_boot import BootLoader

from edgecompress.device.flash import flash
from edgecompress.device.flashers.job import FlashJob, serial_port_for
from edgecompress.device.flashers.stm32loader import loader_arguments
from edgecompress.errors import BadInput, DeviceFault, DeviceNotFound, DeviceTrouble
from edgecompress.progress import SILENT
from edgecompress.target.registry import load_target

pytest.importorskip("stm32loader", reason="stm32loader is not installed")

MakeImage = Callable[..., Path]
TARGET = "stm32f446re"

# stm32loader sets DTR, RTS and even parity; a pseudo-terminal has none of them and refuses.
_ONLY_BYTES = """
from serial.serialposix import Serial
reconfigure = Serial._reconfigure_port

def without_parity(self, *arguments, **more):
    self._parity = "N"
    return reconfigure(self, *arguments, **more)

Serial._update_dtr_state = Serial._update_rts_state = lambda self: None
Serial._reconfigure_port = without_parity
"""


@pytest.fixture(autouse=True)
def _a_pty_will_do(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(_ONLY_BYTES)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_it_is_programmed_verified_and_started(make_image: MakeImage) -> None:
    folder = make_image(TARGET, size=3001)
    with BootLoader() as board:
        report = flash(folder, load_target(TARGET), port=board.path)
    content = (folder / "content").read_bytes()
    assert bytes(board.flash[:3001]) == content
    assert set(board.flash[3328:]) == {0xFF}
    assert board.started_at == 0x08000000
    assert (report.tool, report.where, report.chip) == ("stm32loader", board.path, "STM32F446")
    assert "equal" in report.verified


def test_another_chip_is_refused_before_it_is_erased(make_image: MakeImage) -> None:
    with (
        BootLoader(chip_id=0x450) as board,
        pytest.raises(BadInput, match=r"chip on .* is STM32H74"),
    ):
        flash(make_image(TARGET), load_target(TARGET), port=board.path)
    assert set(board.flash) == {0}


def test_worn_flash_is_found(make_image: MakeImage) -> None:
    with BootLoader(worn=1000) as board, pytest.raises(DeviceFault, match="differs"):
        flash(make_image(TARGET), load_target(TARGET), port=board.path)
    assert board.started_at is None


def test_a_protected_chip_says_how_to_open_it(make_image: MakeImage) -> None:
    with BootLoader(protected=True) as board, pytest.raises(DeviceTrouble, match="--unlock erases"):
        flash(make_image(TARGET), load_target(TARGET), port=board.path)
    assert set(board.flash) == {0}


def test_no_boot_loader_says_how_to_start_it(make_image: MakeImage) -> None:
    with BootLoader(foreign=True) as board, pytest.raises(DeviceNotFound, match="Set BOOT0 high"):
        flash(make_image(TARGET), load_target(TARGET), port=board.path)


def test_a_port_that_is_not_there(make_image: MakeImage) -> None:
    with pytest.raises(DeviceNotFound, match="cannot be opened"):
        flash(make_image(TARGET), load_target(TARGET), port="/dev/there-is-none")


def _job(target: str, port: str | None = None) -> FlashJob:
    profile = load_target(target)
    assert profile.flashing is not None
    return FlashJob(profile, profile.flashing, (), SILENT, port=port)


def test_the_likely_port_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import serial.tools.list_ports
    from serial.tools.list_ports_common import ListPortInfo

    def ports(*numbers: tuple[int, int]) -> None:
        found = []
        for index, (vid, pid) in enumerate(numbers):
            port = ListPortInfo(f"/dev/ttyACM{index}", skip_link_detection=True)
            port.vid, port.pid = vid, pid
            found.append(port)
        monkeypatch.setattr(serial.tools.list_ports, "comports", lambda: found)

    ports((0x0403, 0x6001), (0x0483, 0x374B))
    assert serial_port_for(_job(TARGET)) == "/dev/ttyACM1"
    assert serial_port_for(_job(TARGET, port="/dev/x")) == "/dev/x"
    ports((0x0483, 0x374B), (0x0483, 0x374B))
    with pytest.raises(DeviceNotFound, match=r"2 serial ports lead.*Name one with --device"):
        serial_port_for(_job(TARGET))
    ports()
    with pytest.raises(DeviceNotFound, match="no serial port at all"):
        serial_port_for(_job(TARGET))


def test_a_hostile_port_name_is_only_a_name(
    make_image: MakeImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = loader_arguments(_job(TARGET), "$(touch pwned)")
    assert command[:2] == ["--port", "$(touch pwned)"]
    with pytest.raises(DeviceNotFound):
        flash(make_image(TARGET), load_target(TARGET), port="$(touch pwned)")
    assert not (tmp_path / "pwned").exists()
