"""Through an STM32's own boot loader on a serial port (ST AN3155), by the stm32loader program."""

from __future__ import annotations

import re

from edgecompress.device.chip_ids import chip_name, expected_chip
from edgecompress.device.flashers.job import Flashed, FlashJob, need, run_tool, serial_port_for
from edgecompress.errors import BadInput, DeviceFault, DeviceNotFound, DeviceTrouble

_MODULE = "stm32loader"
_BAUD = 115200
_CHIP_ID = re.compile(r"Chip id: 0x([0-9A-Fa-f]{1,6})\b")
_BOOT = "Set BOOT0 high and reset the board, so that its boot loader runs."


def flash_with_stm32loader(job: FlashJob) -> Flashed:
    """Asks which chip it is, then erases, programs, verifies and starts it.

    Raises:
        DeviceNotFound: no stm32loader, no port, or no boot loader answers on it.
        BadInput: the chip is not the image's target, or the image has more than one piece.
        DeviceFault: what was read back differs.
        DeviceTrouble: the chip is protected, or the line fails.
    """
    need(_MODULE, "flash")
    if len(job.segments) != 1:
        raise BadInput(
            f"The image has {len(job.segments)} pieces of flash; the boot loader takes one.",
            next_step="Flash it with --tool pyocd.",
        )
    port = serial_port_for(job)
    chip = _check_chip(job, port)
    if job.unlock:
        _run(job, port, ["--unprotect"], "Unlock")
    address, data = job.segments[0]
    with job.binary() as firmware:
        _run(
            job,
            port,
            ["--erase", "--write", "--verify", "--address", hex(address),
             "--go-address", hex(address), str(firmware)],
            f"Erase, program and verify {len(data)} bytes",
        )  # fmt: skip
    return Flashed(port, chip, "read back by stm32loader, equal")


def loader_arguments(job: FlashJob, port: str) -> list[str]:
    """What every call begins with."""
    # Parts with other transfer or page sizes than the default need their family's letter.
    family = ["--family", "L0"] if job.profile.name.startswith("stm32l0") else []
    return ["--port", port, "--baud", str(_BAUD), "--no-progress", *family]


def _check_chip(job: FlashJob, port: str) -> str:
    output = _run(job, port, [], f"Ask the boot loader on {port}")
    match = _CHIP_ID.search(output)
    expected = expected_chip(job.profile.name)
    if match is None:
        raise DeviceTrouble(f"The boot loader on {port} did not say which chip it is.")
    found = int(match[1], 16)
    if expected is None:
        return f"chip id {found:#x} (not checked)"
    if found != expected.value and not job.force:
        raise BadInput(
            f"The image is for {job.profile.name} ({expected.name}); the chip on {port} is "
            f"{chip_name(found, expected)}.",
            next_step="Compile for the chip that is there.",
        )
    return chip_name(found, expected)


def _run(job: FlashJob, port: str, arguments: list[str], stage: str) -> str:
    job.progress.stage(stage)
    code, output = run_tool(_MODULE, [*loader_arguments(job, port), *arguments])
    if code == 0:
        return output
    said = output.splitlines()[-1] if output else f"exit code {code}"
    if "Verification FAILED" in output:
        raise DeviceFault(f"Flash differs after programming: {said}.", next_step="Flash again.")
    if "init into bootloader" in output:
        raise DeviceNotFound(f"No STM32 boot loader answers on {port}.", next_step=_BOOT)
    if "could not open port" in output or "No such file" in output:
        raise DeviceNotFound(f"Serial port '{port}' cannot be opened: {said}.")
    if "protection" in output:
        raise DeviceTrouble(
            f"The {job.profile.name} on {port} is protected against its boot loader.",
            next_step="--unlock erases the whole chip and opens it.",
        )
    raise DeviceTrouble(f"stm32loader on {port} failed: {said}.", next_step=_BOOT)
