"""Before any tool is asked: does the image belong on the chip. UF2 drives and esptool's words."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_image import manifest_of

from edgecompress.cli import main
from edgecompress.device import flash as flash_module
from edgecompress.device.chip_ids import expected_chip, id_register, known_chips, known_registers
from edgecompress.device.flash import FlashOptions, flash
from edgecompress.device.flashers import esptool
from edgecompress.device.flashers.job import Flashed, FlashJob, run_tool
from edgecompress.errors import (
    BadInput,
    DeviceFault,
    DeviceNotFound,
    DeviceTimeout,
    DeviceTrouble,
)
from edgecompress.progress import SILENT
from edgecompress.record_base import sha256_file
from edgecompress.target.registry import load_target, target_names

MakeImage = Callable[..., Path]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, FlashJob]]:
    """Which tool was given which job, in place of doing it."""
    given: list[tuple[str, FlashJob]] = []

    def flasher(tool: str) -> Callable[[FlashJob], Flashed]:
        def done(job: FlashJob) -> Flashed:
            given.append((tool, job))
            return Flashed("somewhere", "a chip", "looked at")

        return done

    monkeypatch.setattr(flash_module, "_flasher", flasher)
    return given


def test_the_profiles_tool_is_given_the_bytes(
    make_image: MakeImage, seen: list[tuple[str, FlashJob]]
) -> None:
    folder = make_image("stm32f446re", size=3000)
    report = flash(folder, load_target("stm32f446re"), probe="066")
    ((tool, job),) = seen
    assert tool == report.tool == "pyocd"
    assert job.probe == "066"
    assert job.segments == ((0x08000000, (folder / "content").read_bytes()),)
    assert (report.flash_bytes, report.target, report.chip) == (3000, "stm32f446re", "a chip")


def test_a_serial_port_means_the_boot_loader(
    make_image: MakeImage, seen: list[tuple[str, FlashJob]]
) -> None:
    flash(make_image("stm32f446re"), load_target("stm32f446re"), port="serial:/dev/ttyUSB0")
    ((tool, job),) = seen
    assert (tool, job.port) == ("stm32loader", "/dev/ttyUSB0")


def test_another_targets_image_is_refused(make_image: MakeImage) -> None:
    with pytest.raises(BadInput, match="holds an image for stm32f446re, not for stm32h743zi"):
        flash(make_image("stm32f446re"), load_target("stm32h743zi"))


def test_an_image_beyond_flash_is_refused_with_numbers(make_image: MakeImage) -> None:
    folder = make_image("stm32f446re", size=2048, at=0x08080000 - 1024)
    with pytest.raises(BadInput, match=r"takes 2\.0 KiB from 0x0807fc00.* ends after 1\.0 KiB"):
        flash(folder, load_target("stm32f446re"))
    folder = make_image("stm32f446re", size=16, at=0x20000000)
    with pytest.raises(BadInput, match="16 bytes at 0x20000000, outside the flash"):
        flash(folder, load_target("stm32f446re"))


def test_a_changed_firmware_is_refused(make_image: MakeImage) -> None:
    folder = make_image("stm32f446re")
    (folder / "firmware.elf").write_bytes(b"other")
    with pytest.raises(BadInput, match="sha256"):
        flash(folder, load_target("stm32f446re"))


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"\x7fELF", b"\x7fELF\x01\x01\x01" + b"\xff" * 90]
)
def test_a_damaged_elf_file_is_refused(
    make_image: MakeImage, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, profile = make_image("stm32f446re"), load_target("stm32f446re")
    firmware = folder / "firmware.elf"
    firmware.write_bytes(content)
    (folder / "image.json").write_text(
        manifest_of(profile, "firmware.elf", sha256_file(firmware)).to_json()
    )
    with pytest.raises(BadInput, match=r"is no image|loads nothing"):
        flash(folder, profile)


def test_targets_that_are_not_flashed_say_so(make_image: MakeImage) -> None:
    with pytest.raises(DeviceNotFound, match="cortex-m7 does not say how it is flashed"):
        flash(make_image("cortex-m7"), load_target("cortex-m7"))


def test_tools_the_target_does_not_have(make_image: MakeImage) -> None:
    folder, profile = make_image("stm32f446re"), load_target("stm32f446re")
    with pytest.raises(BadInput, match=r"not flashed by esptool.*pyocd or stm32loader"):
        flash(folder, profile, options=FlashOptions(tool="esptool"))
    with pytest.raises(BadInput, match="needs --uf2-drive"):
        flash(folder, profile, options=FlashOptions(tool="uf2"))
    with pytest.raises(BadInput, match="uses no serial port"):
        flash(make_image("nrf52840"), load_target("nrf52840"), port="/dev/ttyACM0")


def test_the_command_prints_a_report(
    make_image: MakeImage,
    seen: list[tuple[str, FlashJob]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_image("stm32f446re")
    assert main(["flash", str(folder)]) == 0
    assert "looked at" in capsys.readouterr().out
    assert main(["flash", str(folder), "--tool", "stm32loader", "--unlock", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tool"] == "stm32loader"
    assert seen[-1][1].unlock


def test_the_command_refuses_in_one_line(
    make_image: MakeImage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["flash", str(make_image("cortex-m7"))]) == 3
    assert main(["flash", "/nowhere"]) == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert errors.count("error:") == 2


def _drive(folder: Path, board_id: str) -> Path:
    folder.mkdir()
    info = f"UF2 Bootloader v3.0\nModel: Raspberry Pi RP2\nBoard-ID: {board_id}\n"
    (folder / "INFO_UF2.TXT").write_text(info)
    return folder


def test_a_uf2_drive_takes_the_image(make_image: MakeImage, tmp_path: Path) -> None:
    folder = make_image("rp2040", size=700)
    drive = _drive(tmp_path / "RPI-RP2", "RPI-RP2")
    report = flash(folder, load_target("rp2040"), options=FlashOptions(uf2_drive=drive))
    assert report.verified.startswith("not read back")
    written = (drive / "firmware.uf2").read_bytes()
    assert _decoded(written) == (0xE48BFF56, 0x10000000, (folder / "content").read_bytes())


def _decoded(content: bytes) -> tuple[int, int, bytes]:
    """Family, first address and bytes of a UF2 file, read as its specification says."""
    stream, data = io.BytesIO(content), b""
    count = len(content) // 512
    for number in range(count):
        block = stream.read(512)
        first, second, flags, address, size, index, total, family = struct.unpack("<8I", block[:32])
        assert (first, second, flags) == (0x0A324655, 0x9E5D5157, 0x2000)
        assert block[508:] == struct.pack("<I", 0x0AB16F30)
        assert (index, total, size) == (number, count, 256)
        assert address == 0x10000000 + 256 * number
        data += block[32 : 32 + size]
    padding = -700 % 256
    assert data[-padding:] == b"\xff" * padding
    return family, 0x10000000, data[:-padding]


def test_uf2_drives_that_are_refused(make_image: MakeImage, tmp_path: Path) -> None:
    folder, profile = make_image("rp2040"), load_target("rp2040")
    with pytest.raises(DeviceNotFound, match="is not the drive of a UF2 boot loader"):
        flash(folder, profile, options=FlashOptions(uf2_drive=tmp_path))
    other = _drive(tmp_path / "RP2350", "RP2350")
    with pytest.raises(BadInput, match=r"Board-ID RPI-RP2.* is of a RP2350"):
        flash(folder, profile, options=FlashOptions(uf2_drive=other))
    with pytest.raises(BadInput, match="has no UF2 boot loader"):
        flash(
            make_image("stm32f446re"),
            load_target("stm32f446re"),
            options=FlashOptions(uf2_drive=other),
        )
    assert not (other / "firmware.uf2").exists()


def _esp_job(**more: object) -> FlashJob:
    profile = load_target("esp32c3")
    assert profile.flashing is not None
    return FlashJob(
        profile=profile, flashing=profile.flashing,
        segments=((profile.region("flash").origin, b"x" * 10),), progress=SILENT, **more,
    )  # type: ignore[arg-type]  # fmt: skip


def test_esptool_is_called_with_the_profiles_chip_and_offset(tmp_path: Path) -> None:
    command = esptool.esptool_arguments(_esp_job(), "/dev/ttyUSB0", tmp_path / "firmware.bin")
    assert command == [
        "--chip", "esp32c3", "--port", "/dev/ttyUSB0", "--baud", "460800", "--before",
        "default-reset", "--after", "hard-reset", "write-flash", "0x0",
        str(tmp_path / "firmware.bin"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "error", "match"),
    [
        ("A fatal error occurred: This chip is ESP32-S3, not ESP32-C3. Wrong chip argument?",
         BadInput, "This chip is ESP32-S3"),
        ("A fatal error occurred: Failed to connect to ESP32-C3: No serial data received.",
         DeviceNotFound, "Hold BOOT"),
        ("A fatal error occurred: Could not open /dev/x, the port is busy or doesn't exist.",
         DeviceNotFound, "cannot be opened"),
        ("Traceback\nRuntimeError: something else", DeviceTrouble, "something else"),
    ],
)  # fmt: skip
def test_what_esptool_says_becomes_an_error(
    said: str,
    error: type[Exception],
    match: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(esptool, "need", lambda *_: None)
    monkeypatch.setattr(esptool, "run_tool", lambda *_: (2, said))
    with pytest.raises(error, match=match):
        esptool.flash_with_esptool(_esp_job(port="/dev/x"))


def test_esptool_must_have_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(esptool, "need", lambda *_: None)
    monkeypatch.setattr(esptool, "run_tool", lambda *_: (0, "Wrote 10 bytes"))
    with pytest.raises(DeviceFault, match="did not verify"):
        esptool.flash_with_esptool(_esp_job(port="/dev/x"))
    monkeypatch.setattr(esptool, "run_tool", lambda *_: (0, "Hash of data verified."))
    done = esptool.flash_with_esptool(_esp_job(port="/dev/x"))
    assert (done.where, done.chip) == ("/dev/x", "esp32c3")


def test_a_tool_is_heard_line_by_line_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "print('a\\r 10 %\\r\\x1b[2J')\nfor _ in range(20000): print('y' * 50)"
    (tmp_path / "loud_tool.py").write_text(script)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    lines: list[str] = []
    code, output = run_tool("loud_tool", [], lines.append)
    assert code == 0
    assert lines[:3] == ["a", "10 %", "?[2J"]
    assert len(output) < 100_000
    (tmp_path / "slow_tool.py").write_text("import time; time.sleep(60)")
    with pytest.raises(DeviceTimeout, match=r"slow_tool did not end within 0\.5 s"):
        run_tool("slow_tool", [], timeout_s=0.5)


def test_the_working_folder_cannot_stand_in_for_a_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("open('pwned', 'w')")
    monkeypatch.chdir(tmp_path)
    run_tool("json.tool", ["--help"])
    assert not (tmp_path / "pwned").exists()


def test_every_identification_belongs_to_a_register() -> None:
    for chip in known_chips():
        for pattern in chip.targets:
            part = pattern.replace("*", "").replace("?", "r")
            assert id_register(part) is not None, f"{chip.name}: no register for {part}"
    assert all(register.source for register in known_registers())


def test_shipped_targets_are_identified_by_their_own_chip() -> None:
    """No chip's pattern hides another's: the name of the chip shares the target's digits."""
    for name in target_names():
        chip = expected_chip(name)
        if chip is not None and name.startswith(("stm32f4", "nrf52", "rp2")):
            digits = name.removeprefix("stm32").removeprefix("nrf")[:3]
            assert digits[1:3] in chip.name.lower(), f"{name} is taken for {chip.name}"


def test_a_chip_the_firmware_has_no_port_for_is_not_flashed(make_image: MakeImage) -> None:
    with pytest.raises(BadInput, match="no port of the firmware for stm32f103c8") as caught:
        flash(make_image("stm32f103c8"), load_target("stm32f103c8"), probe="066")
    assert "lib/libmodel.a" in str(caught.value.next_step)
