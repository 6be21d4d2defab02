"""What the tests of one family's port need: talk to an image on a board, and images spoilt so."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tiny_image as tiny

from edgecompress.device.ports.virtual import VirtualPort
from edgecompress.device.protocol import Client, Identity
from edgecompress.errors import DeviceFault
from edgecompress.target import DeviceProfile, load_target


def talk(image: Path, profile: DeviceProfile, *, counter: str = "auto") -> tuple[Identity, int]:
    """What the firmware says of itself on a board, and the ticks of one right inference."""
    x = np.random.default_rng(3).integers(-100, 100, (1, 32)).astype(np.int8)
    port = VirtualPort(image / "firmware.elf", profile, counter=counter)
    try:
        client = Client(port)
        client.synchronize()
        client.load_input(x.tobytes())
        ticks = client.run()
        assert client.output(10) == tiny.output_reference(x).tobytes()
        return client.identity(), ticks
    finally:
        port.close()


def fault_on(image: Path, profile: DeviceProfile) -> str:
    """Why the board stopped the firmware.

    Raises:
        AssertionError: it did not.
    """
    try:
        talk(image, profile)
    except DeviceFault as fault:
        return str(fault)
    raise AssertionError(f"{profile.name} ran {image} without a fault")


def board(target: str, **changes: Any) -> DeviceProfile:
    """A board that differs from `target` in its console's settings, `baud` or `clock_hz`."""
    tables = load_target(target).model_dump()
    if "clock_hz" in changes:
        tables["core"]["clock_hz"] = changes.pop("clock_hz")
    for key in ("baud", "base_address"):
        if key in changes:
            tables["console"][key] = changes.pop(key)
    tables["console"]["settings"] |= changes
    return DeviceProfile.model_validate(tables)


def spoil(
    good: Path,
    folder: Path,
    profile: DeviceProfile,
    slips: Mapping[str, str] | None = None,
    *,
    file: str = "port.c",
) -> Path:
    """A copy of the image `good` with other words in a port's file, or for another `profile`."""
    shutil.copytree(good, folder)
    port = folder / "ports" / profile.console.port / file
    text = port.read_text(encoding="utf-8")
    for old, new in (slips or {}).items():
        assert old in text, f"{file} has no {old!r}"
        text = text.replace(old, new)
    port.write_text(text, encoding="utf-8")
    tiny.rebuild_port(profile, folder)
    return folder
