"""The adb port against the genuine adb client, its server, and a phone that is a test daemon."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from adb_phone import Phone
from tiny_image import MODEL_HASH, output_reference

from edgecompress.cli import main
from edgecompress.device.adb_client import AdbClient, AdbDevice, Answer
from edgecompress.device.harness import open_device
from edgecompress.device.ports.adb import AdbAddress, AdbPort, open_adb, parse_adb_address
from edgecompress.device.ports.base import Clock
from edgecompress.device.ports.pipe import PipePort
from edgecompress.device.protocol import Client
from edgecompress.errors import (
    BadConfig,
    DeviceFault,
    DeviceNotFound,
    DeviceTimeout,
    DeviceTrouble,
    ProtocolError,
)
from edgecompress.target.registry import load_target
from edgecompress.target.schema import DeviceProfile

MakePhone = Callable[..., Phone]
Start = Callable[..., tuple[AdbPort, Client]]


def test_the_runner_answers_and_leaves_nothing_behind(start: Start, phone: MakePhone) -> None:
    device = phone()
    port, client = start("adb")
    assert client.identity().model == MODEL_HASH
    x = np.arange(-16, 16, dtype=np.int8).reshape(1, 32)
    client.load_input(x.tobytes())
    client.run()
    np.testing.assert_array_equal(
        np.frombuffer(client.output(10), np.int8).reshape(1, 10), output_reference(x)
    )
    assert len(device.pushed()) == 1
    port.close()
    assert device.pushed() == []


def test_the_harness_opens_it(phone: MakePhone, image: Path, aarch64: DeviceProfile) -> None:
    phone()
    with open_device(image.parent, aarch64, "adb,cluster=little") as session:
        assert session.port.kind == "adb"
        x = np.arange(32, dtype=np.int8).reshape(1, 32)
        np.testing.assert_array_equal(session.infer(x), output_reference(x))
        assert session.stack_high_water() is None


def test_two_devices_and_none_chosen(
    start: Start, phone: MakePhone, image: Path, aarch64: DeviceProfile
) -> None:
    first, second = phone(), phone()
    with pytest.raises(DeviceNotFound, match="2 adb devices are connected") as caught:
        open_adb(image, aarch64, "adb")
    assert first.serial in str(caught.value)
    assert second.serial in str(caught.value)
    port, _ = start(f"adb:{second.serial}")
    assert len(second.pushed()) == 1
    assert first.pushed() == []
    port.close()


def test_a_wrong_serial_lists_what_is_there(
    phone: MakePhone, image: Path, aarch64: DeviceProfile
) -> None:
    device = phone()
    with pytest.raises(DeviceNotFound, match=f"no device 'emulator-1'.*{device.serial}"):
        open_adb(image, aarch64, "adb:emulator-1")


def test_no_device_says_how_to_connect_one(image: Path, aarch64: DeviceProfile) -> None:
    with pytest.raises(DeviceNotFound, match=r"No adb device is connected.*USB debugging"):
        open_adb(image, aarch64, "adb")


def test_a_network_address_is_connected_to(start: Start, phone: MakePhone) -> None:
    device = phone(connect=False)
    port, _ = start(f"adb:{device.serial}")
    assert len(device.pushed()) == 1
    port.close()


def test_an_unauthorized_device_says_what_to_do(
    phone: MakePhone, image: Path, aarch64: DeviceProfile
) -> None:
    device = phone(authorizes=False)
    with pytest.raises(DeviceNotFound, match=r"is unauthorized.*Accept this computer's key"):
        open_adb(image, aarch64, f"adb:{device.serial}")


def test_an_offline_device_says_what_to_do(
    adb: AdbClient, image: Path, aarch64: DeviceProfile
) -> None:
    """A device that takes the connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        serial = f"127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(DeviceTimeout, match="adb connect did not end within 1 s"):
            adb.run("connect", serial, timeout_s=1)
        with pytest.raises(DeviceNotFound, match=rf"{serial} is offline.*adb reconnect offline"):
            open_adb(image, aarch64, f"adb:{serial}")
    adb.run("disconnect", serial)


def test_device_lines_are_parsed(monkeypatch: pytest.MonkeyPatch, adb: AdbClient) -> None:
    listed = (
        "* daemon started successfully\nList of devices attached\n"
        "0123456789ABCDEF       device usb:1-1 product:p model:Pixel_8 device:d transport_id:3\n"
        "XYZ  no permissions (user in plugdev group; are your udev rules wrong?); see [http://a]\n"
        "evil\x1b[31m device model:a\x07b\n\n"
    )
    monkeypatch.setattr(AdbClient, "run", lambda *_, **__: Answer(0, listed.encode(), b""))
    assert adb.devices() == [
        AdbDevice("0123456789ABCDEF", "device", "Pixel_8"),
        AdbDevice("XYZ", "no permissions"),
        AdbDevice("evil?[31m", "device", "a?b"),
    ]


def test_a_device_that_vanishes_in_the_middle(start: Start, phone: MakePhone) -> None:
    device = phone()
    port, client = start("adb")
    device.vanish()
    with pytest.raises(DeviceFault, match=r"disappeared: adb no longer reaches it"):
        for _ in range(50):
            client.run()
    port.close()


def test_the_devices_shell_removes_the_file_when_this_computer_dies(
    start: Start, phone: MakePhone
) -> None:
    device = phone()
    port, _ = start("adb")
    port._process.kill()
    deadline = time.monotonic() + 10
    while device.pushed() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert device.pushed() == []
    port.close()


def test_a_full_device_keeps_nothing(
    phone: MakePhone, image: Path, aarch64: DeviceProfile, tmp_path: Path
) -> None:
    device = phone(space_bytes=1000)
    with pytest.raises(DeviceTrouble, match=r"pushed.*No space left on device.*Free some space"):
        open_adb(_deep(image, tmp_path), aarch64, "adb")
    assert device.pushed() == []


def _deep(image: Path, folder: Path) -> Path:
    """The image under a path too long to be shown whole."""
    for _ in range(3):
        folder = folder / ("long-" * 20)
    folder.mkdir(parents=True)
    return shutil.copy(image, folder / "firmware")


def test_an_interrupted_start_keeps_nothing(
    phone: MakePhone, image: Path, aarch64: DeviceProfile, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = phone()

    def interrupted(self: AdbPort) -> str:
        assert len(device.pushed()) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(AdbPort, "_start_script", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_adb(image, aarch64, "adb")
    assert device.pushed() == []


_WAITS = """
import sys, time
from pathlib import Path
from edgecompress.device.harness import open_device
from edgecompress.target.registry import load_target
with open_device(Path(sys.argv[1]), load_target("aarch64"), "adb"):
    print("ready", flush=True)
    time.sleep(60)
"""


def test_ctrl_c_removes_the_runner(phone: MakePhone, image: Path) -> None:
    """As a terminal does it: the whole group of processes is interrupted, adb's client too."""
    device = phone()
    with subprocess.Popen(
        [sys.executable, "-c", _WAITS, str(image.parent)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert len(device.pushed()) == 1
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    assert device.pushed() == []


def test_profile_records_the_conditions(
    phone: MakePhone, image: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    phone()
    assert main(["profile", str(image.parent), "--device", "adb", "--runs", "3", "--json"]) == 0
    measured = json.loads(capfd.readouterr().out)
    seen = measured["provenance"]["conditions"]
    assert (seen["pinned_cluster"], seen["model"]) == ("big", "Test Phone")
    assert seen["temperatures_after_c"]["cpu"] == 41.5
    assert measured["time"]["runs"] == 3


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "it's",
        'say "hi"',
        "$(touch pwned)",
        "`touch pwned`; rm -rf .",
        "two\nlines",
        "--help",
    ],
)
def test_hostile_file_names_are_only_names(
    start: Start,
    name: str,
    phone: MakePhone,
    image: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    copied = tmp_path / name
    shutil.copy(image, copied)
    device = phone()
    port, client = start("adb", Path(name))
    assert client.identity().model == MODEL_HASH
    port.close()
    assert not list(tmp_path.rglob("pwned"))
    assert all(name not in command for command in device.commands)


@pytest.mark.parametrize("serial", ["$(touch pwned)", "a;touch pwned", "-e", "a b", "\x1b[2J"])
def test_hostile_serials_are_only_serials(
    serial: str,
    phone: MakePhone,
    image: Path,
    aarch64: DeviceProfile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    device = phone()
    with pytest.raises(DeviceNotFound, match="adb knows no device") as caught:
        open_adb(image, aarch64, f"adb:{serial}")
    assert "\x1b" not in str(caught.value)
    assert not list(tmp_path.rglob("pwned"))
    assert device.commands == []


def test_endless_output_ends(phone: MakePhone, image: Path, aarch64: DeviceProfile) -> None:
    phone(answer=lambda _command: itertools.repeat(b"x" * 32768))
    with pytest.raises(ProtocolError, match="printed more than 262144 bytes"):
        open_adb(image, aarch64, "adb")


def test_a_silent_device_ends(phone: MakePhone, adb: AdbClient) -> None:
    device = phone()
    with pytest.raises(DeviceTimeout, match=r"adb shell on .* did not end within 0.5 s"):
        adb.shell(device.serial, "sleep 5", timeout_s=0.5)


def test_a_garbled_account_is_refused(
    phone: MakePhone, image: Path, aarch64: DeviceProfile
) -> None:
    device = phone(answer=lambda _command: [b"\x1b]0;owned\x07machine|aarch64\n"])
    with pytest.raises(DeviceTrouble, match="no account of itself") as caught:
        open_adb(image, aarch64, "adb")
    assert "\x1b" not in str(caught.value)
    assert device.pushed() == []


def test_endless_errors_do_not_fill_memory() -> None:
    """What a program under `adb shell` writes to standard error is kept to its last few KiB."""
    loud = r"head -c 3000000 /dev/zero >&2; printf '\n\033[2J' >&2; exit 3"
    port = PipePort(["sh", "-c", loud], name="loud", kind="adb", clock=Clock("measured on device"))
    with pytest.raises(DeviceFault, match=r"loud ended with exit code 3: \?\[2J") as caught:
        while True:
            port.read(1.0)
    assert len(str(caught.value)) < 300
    port.close()


def test_an_image_for_another_processor_is_refused_before_it_is_pushed(
    phone: MakePhone, image: Path, x86: DeviceProfile, aarch64: DeviceProfile
) -> None:
    device = phone()
    with pytest.raises(DeviceNotFound, match="is a aarch64 machine; the image is for x86-64"):
        open_adb(image, x86, "adb")
    with pytest.raises(DeviceNotFound, match="do not run behind adb"):
        open_adb(image, load_target("cortex-m7"), "adb")
    assert device.pushed() == []


def test_the_server_listens_on_loopback_only(adb: AdbClient) -> None:
    port = int(os.environ["ANDROID_ADB_SERVER_PORT"])
    listening = [
        line for line in _sockets("tcp", "tcp6") if line.port == port and line.state == "0A"
    ]
    assert [line.address for line in listening] == ["0100007F"]
    inodes = _inodes_of_process_with(listening[0].inode)
    others = [line for line in _sockets("tcp", "tcp6", "udp", "udp6") if line.inode in inodes]
    assert {line.address for line in others} == {"0100007F"}


@dataclass(frozen=True)
class _Socket:
    """A line of /proc/net: the address in the kernel's hex."""

    address: str
    port: int
    state: str
    inode: str


def _sockets(*tables: str) -> list[_Socket]:
    found = []
    for table in tables:
        path = Path("/proc/net") / table
        if not path.exists():
            pytest.skip("/proc/net is not here")
        for line in path.read_text().splitlines()[1:]:
            fields = line.split()
            address, port = fields[1].split(":")
            found.append(_Socket(address, int(port, 16), fields[3], fields[9]))
    return found


def _inodes_of_process_with(inode: str) -> set[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            links = [os.readlink(entry) for entry in (process / "fd").iterdir()]
        except OSError:
            continue
        inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
        if inode in inodes:
            return inodes
    pytest.skip("the adb server belongs to another user")


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("adb", AdbAddress()),
        ("adb:emulator-5554", AdbAddress("emulator-5554")),
        ("adb:192.168.1.5:5555,cluster=big", AdbAddress("192.168.1.5:5555", "big")),
        ("adb,cpus=0-3+7", AdbAddress(cpus=(0, 1, 2, 3, 7))),
    ],
)
def test_addresses(device: str, expected: AdbAddress) -> None:
    assert parse_adb_address(device) == expected


@pytest.mark.parametrize(
    "device",
    ["adb:x,core=1", "adb,cpus=", "adb,cpus=9-1", "adb,cpus=4000", "adb,cluster", "adb,cluster=",
     "adb,cluster=big,cpus=1", "usb:x", "adb,cpus=$(id)"],
)  # fmt: skip
def test_wrong_addresses_show_the_form(device: str) -> None:
    with pytest.raises(BadConfig, match="is not an adb device"):
        parse_adb_address(device)
