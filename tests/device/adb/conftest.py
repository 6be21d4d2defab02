"""A phone behind a genuine adb server of our own, both on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from adb_phone import Phone

from edgecompress.device.adb_client import AdbClient
from edgecompress.device.ports.adb import AdbPort, open_adb
from edgecompress.device.ports.process import find_qemu_user
from edgecompress.device.protocol import Client
from edgecompress.errors import DeviceNotFound
from edgecompress.target.registry import load_target
from edgecompress.target.schema import DeviceProfile


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def adb_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server of our own: its port, its keys, no USB and no emulators of this machine."""
    environment = {
        "ANDROID_ADB_SERVER_PORT": str(_free_port()),
        "HOME": str(tmp_path_factory.mktemp("adb-home")),
        "ADB_USB": "0",
        "ADB_EMU": "0",
    }
    yield environment
    from adbutils import adb_path

    subprocess.run(
        [adb_path(), "kill-server"], env={**os.environ, **environment}, check=False,
        capture_output=True, timeout=20,
    )  # fmt: skip


@pytest.fixture(scope="session")
def image(tiny_image: Callable[..., Path]) -> Path:
    return tiny_image("aarch64") / "firmware"


@pytest.fixture(autouse=True)
def _our_server(
    adb_environment: dict[str, str], image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image is built before HOME changes, where the compiler has its cache."""
    for name, value in adb_environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)


@pytest.fixture(scope="session")
def aarch64() -> DeviceProfile:
    return load_target("aarch64")


@pytest.fixture
def phone(tmp_path: Path, aarch64: DeviceProfile, adb: AdbClient) -> Iterator[Callable[..., Phone]]:
    """`phone(...)` is a connected Phone; all of them vanish at the end."""
    phones: list[Phone] = []
    try:
        qemu = find_qemu_user(aarch64)
    except DeviceNotFound as missing:
        pytest.skip(str(missing))

    def make(*, connect: bool = True, **options: object) -> Phone:
        made = Phone(tmp_path / f"phone{len(phones)}", qemu=qemu, **options)  # type: ignore[arg-type]
        phones.append(made.__enter__())
        if connect:
            for _ in range(2):
                adb.run("connect", made.serial)
        return made

    yield make
    for made in phones:
        made.vanish()
        adb.run("disconnect", made.serial)


@pytest.fixture
def adb() -> AdbClient:
    return AdbClient()


@pytest.fixture
def start(image: Path, aarch64: DeviceProfile) -> Callable[..., tuple[AdbPort, Client]]:
    """`start("adb:SERIAL")` runs the image there; it answers."""

    def started(device: str, firmware: Path = image) -> tuple[AdbPort, Client]:
        port = open_adb(firmware, aarch64, device)
        client = Client(port)
        client.synchronize()
        return port, client

    return started
