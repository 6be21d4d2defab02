"""Through an Espressif chip's ROM boot loader, by the esptool program, which verifies by MD5."""

from __future__ import annotations

import re
from pathlib import Path

from edgecompress.device.flashers.job import Flashed, FlashJob, need, run_tool, serial_port_for
from edgecompress.errors import BadInput, DeviceFault, DeviceNotFound, DeviceTrouble

_MODULE = "esptool"
_BAUD = 460800
_PERCENT = re.compile(r"(\d{1,3})(?:\.\d)? ?%")
_BOOT = "Hold BOOT while pressing RESET, then try again."


def flash_with_esptool(job: FlashJob) -> Flashed:
    """Writes the image; esptool itself refuses another chip than the profile's.

    Raises:
        DeviceNotFound: no esptool, no port, or nothing answers on it.
        BadInput: the chip is another.
        DeviceFault: the MD5 of what was written differs.
        DeviceTrouble: anything else esptool says.
    """
    need(_MODULE, "flash")
    port = serial_port_for(job)
    job.progress.stage(f"Program {job.size_bytes} bytes", 100)
    shown = 0

    def on_line(line: str) -> None:
        nonlocal shown
        match = _PERCENT.search(line)
        if match and shown < int(match[1]) <= 100:
            job.progress.advance(int(match[1]) - shown)
            shown = int(match[1])

    with job.binary() as firmware:
        code, output = run_tool(_MODULE, esptool_arguments(job, port, firmware), on_line)
    if code != 0:
        raise _explain(output, job, port)
    if "Hash of data verified" not in output:
        raise DeviceFault(f"esptool did not verify what it wrote through {port}.")
    return Flashed(port, job.flashing.esptool_chip, "MD5 of the flash computed by the chip, equal")


def esptool_arguments(job: FlashJob, port: str, firmware: Path) -> list[str]:
    """esptool 5's command line."""
    return [
        "--chip", job.flashing.esptool_chip, "--port", port, "--baud", str(_BAUD),
        "--before", "default-reset", "--after", "hard-reset",
        "write-flash", hex(job.flashing.offset), str(firmware),
    ]  # fmt: skip


def _explain(output: str, job: FlashJob, port: str) -> DeviceTrouble | BadInput:
    lines = output.splitlines()
    said = next((line for line in reversed(lines) if "error" in line.lower()), (lines or [""])[-1])
    if "Wrong chip argument" in output or "This chip is" in output:
        return BadInput(f"The image is for {job.profile.name}, but on {port}: {said}")
    if "Could not open" in output or "could not open port" in output:
        return DeviceNotFound(f"Serial port '{port}' cannot be opened: {said}")
    if "Failed to connect" in output or "No serial data received" in output:
        return DeviceNotFound(f"No Espressif boot loader answers on {port}.", next_step=_BOOT)
    return DeviceTrouble(f"esptool on {port} failed: {said}", next_step=_BOOT)
