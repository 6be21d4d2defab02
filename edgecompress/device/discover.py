"""What could run an image here: serial ports, adb devices, debug probes, and what is emulated.

Looking opens no serial port. Asking (`probe=True`) opens each for a moment, which resets boards
whose adapter pulls their reset line.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from edgecompress.device.adapters import find_adapter, matching_targets
from edgecompress.device.adb_client import AdbClient, printable
from edgecompress.device_records import FoundDevice
from edgecompress.errors import DeviceNotFound, DeviceTrouble, EdgeCompressError
from edgecompress.target.registry import list_targets
from edgecompress.target.schema import DeviceProfile

_PROBE_SECONDS = 1.5
_TEXT_CHARACTERS = 80
_READY = "ready"


@dataclass(frozen=True)
class Surroundings:
    """Everything found, and a line for each kind that could not be looked for."""

    devices: tuple[FoundDevice, ...]
    hints: tuple[str, ...] = ()


def discover(*, probe: bool = False) -> list[FoundDevice]:
    """All devices here; see `look_around`."""
    return list(look_around(probe=probe).devices)


def look_around(*, probe: bool = False) -> Surroundings:
    """Looks for every kind of device; a kind that fails becomes a hint, never an error.

    Args:
        probe: also open every serial port and ask whoever answers for its model and target.
    """
    profiles = [profile for _, profile in list_targets()[0]]
    names = [profile.name for profile in profiles]
    devices: list[FoundDevice] = []
    hints: list[str] = []
    kinds: list[Callable[[], Sequence[FoundDevice]]] = [
        lambda: serial_devices(names, probe=probe),
        adb_devices,
        lambda: debug_probes(profiles),
        lambda: virtual_devices(profiles),
    ]
    for find in kinds:
        try:
            devices += find()
        except EdgeCompressError as error:
            hints.append(str(error))
    return Surroundings(tuple(devices), tuple(hints))


def serial_devices(target_names: list[str], *, probe: bool = False) -> list[FoundDevice]:
    """Serial ports of this machine, with what USB says of them."""
    from serial.tools.list_ports import comports

    found = [_serial_device(port, target_names) for port in sorted(comports())]
    if probe and found:
        with ThreadPoolExecutor(max_workers=min(len(found), 16)) as pool:
            found = list(pool.map(_asked, found))
    return found


def _serial_device(port: Any, target_names: list[str]) -> FoundDevice:
    adapter = find_adapter(port.vid, port.pid)
    details = {
        "usb": f"{port.vid:04x}:{port.pid:04x}" if port.vid is not None else "",
        "product": _text(port.product),
        "manufacturer": _text(port.manufacturer),
        "serial_number": _text(port.serial_number),
        "location": _text(port.location),
    }
    described = details["product"] or _text(port.description).replace("n/a", "") or "serial port"
    return FoundDevice(
        kind="serial",
        address=f"serial:{port.device}",
        description=f"{described} ({adapter.name})" if adapter else described,
        likely_targets=matching_targets(adapter.likely_targets, target_names) if adapter else (),
        state=_access(port.device),
        details={key: value for key, value in details.items() if value},
    )


def _access(path: str) -> str:
    if os.name != "posix" or os.access(path, os.R_OK | os.W_OK):
        return _READY
    return "no permission (docs/devices.md)"


def _asked(device: FoundDevice) -> FoundDevice:
    """The device with the model and target its firmware names, or with why it does not."""
    from edgecompress.device.ports.serial import SerialPort
    from edgecompress.device.protocol import Client

    if device.state != _READY:
        return device
    try:
        port = SerialPort(device.address.removeprefix("serial:"))
    except DeviceNotFound:
        return device.model_copy(update={"state": "cannot be opened: in use?"})
    try:
        client = Client(port, timeout_s=_PROBE_SECONDS)
        client.synchronize(patience_s=_PROBE_SECONDS)
        identity = client.identity()
    except DeviceTrouble:
        return device.model_copy(update={"state": "no edgecompress firmware answered"})
    finally:
        port.close()
    return device.model_copy(
        update={
            "model": identity.model,
            "likely_targets": (identity.target,),
            "details": {**device.details, "device_id": identity.device_id},
        }
    )


def adb_devices() -> list[FoundDevice]:
    """What adb lists. Starts its server when none runs.

    Raises:
        DeviceTrouble: there is no adb, or it fails.
    """
    return [
        FoundDevice(
            kind="adb",
            address=f"adb:{device.serial}",
            description=device.model.replace("_", " ") or "Android or Linux device",
            likely_targets=("aarch64",) if device.usable else (),
            state=_READY if device.usable else device.state,
        )
        for device in AdbClient().devices()
    ]


def debug_probes(profiles: Sequence[DeviceProfile]) -> list[FoundDevice]:
    """Probes that pyOCD sees. Opens none.

    Raises:
        DeviceNotFound: pyOCD is not installed, or cannot look.
    """
    if importlib.util.find_spec("pyocd") is None:
        raise DeviceNotFound(
            "Debug probes are found by pyOCD, which is not installed.",
            next_step="pip install 'edgecompress[probes]'.",
        )
    from pyocd.core.exceptions import Error
    from pyocd.core.helpers import ConnectHelper

    try:
        probes = ConnectHelper.get_all_connected_probes(blocking=False, print_wait_message=False)
    except (Error, OSError, ValueError) as error:
        raise DeviceNotFound(f"pyOCD cannot look for probes: {printable(str(error))}.") from None
    return [_debug_probe(probe, profiles) for probe in probes]


def _debug_probe(probe: Any, profiles: Sequence[DeviceProfile]) -> FoundDevice:
    board = probe.associated_board_info
    part = board.target if board is not None and board.target else ""
    return FoundDevice(
        kind="probe",
        address=_text(probe.unique_id),
        description=_text(board.name if board is not None else probe.description),
        likely_targets=tuple(
            profile.name
            for profile in profiles
            if part and profile.flashing is not None and profile.flashing.pyocd_target == part
        ),
        details={"probe": _text(probe.description), **({"pyocd_target": part} if part else {})},
    )


def virtual_devices(profiles: Sequence[DeviceProfile]) -> list[FoundDevice]:
    """The emulators here, each with the targets it runs, and this machine as a process."""
    from edgecompress.device.ports.process import find_qemu_user, runs_here

    def runs(profile: DeviceProfile) -> bool:
        if profile.kind != "host":
            return False
        try:
            return runs_here(profile) or bool(find_qemu_user(profile))
        except DeviceNotFound:
            return False

    boards = [profile.name for profile in profiles if profile.virtual is not None]
    machines = [profile.name for profile in profiles if profile.qemu and profile.qemu.machine]
    processes = [profile.name for profile in profiles if runs(profile)]
    qemu = shutil.which("qemu-system-arm") is not None
    here = f"this {platform.machine()} machine, others under qemu-user"
    listed = [
        ("virtual", "boards emulated in this program (Unicorn)", boards, _READY),
        ("process", here, processes, _READY),
        ("qemu", "boards in QEMU", machines, _READY if qemu else "qemu-system-arm not on PATH"),
    ]
    return [
        FoundDevice(kind="virtual", address=address, description=description,
                    likely_targets=tuple(targets), state=state)
        for address, description, targets, state in listed
    ]  # fmt: skip


def _text(value: str | None) -> str:
    """USB strings are the device's own words."""
    return printable(value or "", _TEXT_CHARACTERS).strip()
