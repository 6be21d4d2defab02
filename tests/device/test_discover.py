"""What is found around: USB facts given, probes and phones given, ports asked over real PTYs."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import threading
import time
import tomllib
import tty
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import serial.tools.list_ports
from serial.tools.list_ports_common import ListPortInfo
from tiny_image import MODEL_HASH

from edgecompress.cli import main
from edgecompress.device import adapters, discover
from edgecompress.device.adb_client import AdbClient, AdbDevice
from edgecompress.device.ports.board import Board
from edgecompress.device.ports.virtual import PtyConsole
from edgecompress.errors import DeviceNotFound
from edgecompress.report.devices import devices_table
from edgecompress.report.text import plain_text
from edgecompress.target.registry import load_target, target_names

SetPorts = Callable[..., None]


def _port(device: str, **facts: object) -> ListPortInfo:
    port = ListPortInfo(device, skip_link_detection=True)
    for name, value in facts.items():
        setattr(port, name, value)
    return port


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> SetPorts:
    def given(*found: ListPortInfo) -> None:
        monkeypatch.setattr(serial.tools.list_ports, "comports", lambda: list(found))

    return given


@pytest.fixture(autouse=True)
def _no_adb_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AdbClient, "__init__", lambda self: None)
    monkeypatch.setattr(AdbClient, "devices", lambda self: [])


def test_every_adapter_is_well_formed() -> None:
    known = adapters.known_adapters()
    assert len(known) > 10
    names = set(target_names())
    for adapter in known:
        assert adapter.source
        assert all(0 <= pid <= 0xFFFF for pid in adapter.pid)
        for pattern in adapter.likely_targets:
            assert "*" in pattern or pattern in names, f"{adapter.name} names no target: {pattern}"


def test_no_entry_of_the_table_hides_another() -> None:
    table = Path(adapters.__file__).with_name("adapters.toml")
    for entry in tomllib.loads(table.read_text())["adapters"]:
        for pid in entry.get("pid", [0xFFFF]):
            found = adapters.find_adapter(entry["vid"], pid)
            assert found is not None
            assert found.name == entry["name"]


@pytest.mark.parametrize(
    ("vid", "pid", "name"),
    [
        (0x0483, 0x374B, "ST-LINK/V2-1 virtual COM port"),
        (0x0483, 0x374E, "ST-LINK/V3 virtual COM port"),
        (0x1366, 0x1015, "SEGGER J-Link"),
        (0x0D28, 0x0204, "DAPLink"),
        (0x2E8A, 0x000A, "Raspberry Pi Pico USB (CDC)"),
        (0x2E8A, 0x000C, "Raspberry Pi Debug Probe"),
        (0x303A, 0x1001, "Espressif USB JTAG/serial"),
        (0x10C4, 0xEA60, "Silicon Labs CP210x"),
        (0x1A86, 0x7523, "WCH CH340"),
        (0x0403, 0x6001, "FTDI USB serial"),
    ],
)
def test_known_boards(vid: int, pid: int, name: str) -> None:
    found = adapters.find_adapter(vid, pid)
    assert found is not None
    assert found.name == name


def test_unknown_and_absent_usb_numbers() -> None:
    assert adapters.find_adapter(0xDEAD, 0xBEEF) is None
    assert adapters.find_adapter(None, None) is None


def test_patterns_become_names_where_they_are_few() -> None:
    names = ["rp2040", "rp2350", *(f"stm32f{n}" for n in range(6))]
    assert adapters.matching_targets(("rp2*",), names) == ("rp2040", "rp2350")
    assert adapters.matching_targets(("stm32*", "rp2040"), names) == ("stm32*", "rp2040")


def test_a_serial_port_is_described_and_not_opened(ports: SetPorts, tmp_path: Path) -> None:
    missing = tmp_path / "ttyACM0"
    facts = {"product": "Pico", "serial_number": "E66", "location": "1-1"}
    ports(_port(str(missing), vid=0x2E8A, pid=0x000A, **facts))
    (found,) = discover.serial_devices(["rp2040", "rp2350"])
    assert found.address == f"serial:{missing}"
    assert found.description == "Pico (Raspberry Pi Pico USB (CDC))"
    assert found.likely_targets == ("rp2040", "rp2350")
    assert found.details == {
        "usb": "2e8a:000a", "product": "Pico", "serial_number": "E66", "location": "1-1",
    }  # fmt: skip
    assert found.state == "no permission (docs/devices.md)"


def test_what_usb_says_is_cleaned(ports: SetPorts) -> None:
    ports(
        _port("/dev/null", vid=1, pid=2, product="\x1b[2Jevil\n" + "x" * 500, serial_number="\x07")
    )
    (found,) = discover.serial_devices([])
    assert "\x1b" not in found.description
    assert "\n" not in found.description
    assert len(found.description) < 100
    assert found.details["serial_number"] == "?"


def test_an_answering_board_is_named(ports: SetPorts, tiny_image: Callable[..., Path]) -> None:
    """The virtual board's own PTY stands for the cable: another program holds neither end."""
    console = PtyConsole()
    board = Board(tiny_image("cortex-m7") / "firmware.elf", load_target("cortex-m7"), console)

    def power_on() -> None:
        board.run()
        console.flush()

    thread = threading.Thread(target=power_on, daemon=True)
    thread.start()
    ports(_port(console.path))
    try:
        (found,) = discover.serial_devices([], probe=True)
    finally:
        console.switch_off()
        board.stop()
        thread.join(10)
        console.close()
    assert found.model == MODEL_HASH
    assert found.likely_targets == ("cortex-m7",)


def test_a_silent_and_a_missing_port(ports: SetPorts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover, "_PROBE_SECONDS", 0.3)
    monkeypatch.setattr(discover, "_access", lambda path: "ready")
    master, slave = pty.openpty()
    ports(_port(os.ttyname(slave)), _port("/dev/there-is-none"))
    try:
        states = {found.address: found.state for found in discover.serial_devices([], probe=True)}
    finally:
        os.close(master)
        os.close(slave)
    assert states["serial:/dev/there-is-none"] == "cannot be opened: in use?"
    assert sorted(states.values()) == [
        "cannot be opened: in use?", "no edgecompress firmware answered",
    ]  # fmt: skip


def test_a_port_that_never_stops_talking_is_left(
    ports: SetPorts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discover, "_access", lambda path: "ready")
    monkeypatch.setattr(discover, "_PROBE_SECONDS", 0.5)
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    done = threading.Event()

    def talk() -> None:
        while not done.wait(0.001):
            with contextlib.suppress(BlockingIOError):
                os.write(master, b"m-name-dut-[\x1b[2J" * 200 + b"\n")

    talker = threading.Thread(target=talk, daemon=True)
    talker.start()
    ports(_port(os.ttyname(slave)))
    begun = time.monotonic()
    try:
        (found,) = discover.serial_devices([], probe=True)
    finally:
        done.set()
        talker.join(5)
        os.close(master)
        os.close(slave)
    assert found.state == "no edgecompress firmware answered"
    assert found.model == ""
    assert time.monotonic() - begun < 20


def test_adb_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [AdbDevice("A1", "device", "Pixel_8"), AdbDevice("B2", "unauthorized")]
    monkeypatch.setattr(AdbClient, "devices", lambda self: listed)
    first, second = discover.adb_devices()
    assert (first.address, first.description, first.likely_targets, first.state) == (
        "adb:A1", "Pixel 8", ("aarch64",), "ready",
    )  # fmt: skip
    assert (second.state, second.likely_targets) == ("unauthorized", ())


def test_a_debug_probe_names_the_target_of_its_board(monkeypatch: pytest.MonkeyPatch) -> None:
    helpers = pytest.importorskip("pyocd.core.helpers", reason="pyOCD is not installed")
    board = SimpleNamespace(name="nRF52840-DK", target="nrf52840")
    probes = [
        SimpleNamespace(unique_id="1102", description="DAPLink", associated_board_info=board),
        SimpleNamespace(unique_id="0\x1b", description="J-Link\n", associated_board_info=None),
    ]
    monkeypatch.setattr(helpers.ConnectHelper, "get_all_connected_probes", lambda **_: probes)
    first, second = discover.debug_probes([load_target("nrf52840"), load_target("cortex-m7")])
    assert (first.address, first.description) == ("1102", "nRF52840-DK")
    assert first.likely_targets == ("nrf52840",)
    assert (second.address, second.description, second.likely_targets) == ("0?", "J-Link?", ())


def test_without_pyocd_there_is_one_hint(monkeypatch: pytest.MonkeyPatch, ports: SetPorts) -> None:
    ports()
    monkeypatch.setattr(discover.importlib.util, "find_spec", lambda name: None)
    found = discover.look_around()
    assert [hint for hint in found.hints if "edgecompress[probes]" in hint] == list(found.hints)


def test_emulators_name_their_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discover.shutil, "which", lambda name: None)
    profiles = [load_target(name) for name in ("cortex-m7", "cortex-m55", "x86-64")]
    virtual, process, qemu = discover.virtual_devices(profiles)
    assert virtual.likely_targets == ("cortex-m7",)
    assert "x86-64" in process.likely_targets
    assert qemu.likely_targets == ("cortex-m7", "cortex-m55")
    assert qemu.state == "qemu-system-arm not on PATH"


def test_a_kind_that_fails_is_a_hint(monkeypatch: pytest.MonkeyPatch, ports: SetPorts) -> None:
    ports()

    def broken(self: AdbClient) -> None:
        raise DeviceNotFound("The adb server does not start: no.")

    monkeypatch.setattr(AdbClient, "__init__", broken)
    found = discover.look_around()
    assert "The adb server does not start: no." in found.hints
    assert any(device.kind == "virtual" for device in found.devices)


def test_the_command_prints_a_table_and_json(
    ports: SetPorts, capsys: pytest.CaptureFixture[str]
) -> None:
    ports(_port("/dev/null", vid=0x0483, pid=0x374B, product="STM32 STLink", serial_number="066"))
    assert main(["devices"]) == 0
    table = capsys.readouterr().out
    assert "serial:/dev/null" in table
    assert "0483:374b" in table
    assert main(["devices", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    (board,) = [device for device in document["devices"] if device["kind"] == "serial"]
    assert board["likely_targets"] == ["stm32*"]


def test_nothing_connected_is_said() -> None:
    assert "No board or phone is connected." in plain_text(devices_table([], ["a hint"]))
