"""Puts an image onto a board: checks that it belongs there, then hands it to the profile's tool."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from intelhex import IntelHex

from edgecompress.device.flashers.job import Flashed, FlashJob, elapsed
from edgecompress.device.harness import load_manifest
from edgecompress.device_records import FlashReport
from edgecompress.errors import BadInput, DeviceNotFound
from edgecompress.progress import SILENT, Progress
from edgecompress.records import ImageManifest
from edgecompress.target.schema import DeviceProfile, Flashing
from edgecompress.units import format_bytes

Tool = Literal["pyocd", "stm32loader", "esptool", "uf2"]


@dataclass(frozen=True)
class FlashOptions:
    """What the user may say beyond which board.

    Attributes:
        tool: instead of the profile's usual one.
        uf2_drive: where a boot loader's drive is mounted; implies tool "uf2".
        unlock: a locked chip may be erased whole to open it.
        force: program although the chip does not identify itself as the target.
    """

    tool: Tool | None = None
    uf2_drive: Path | None = None
    unlock: bool = False
    force: bool = False


def flash(
    image_dir: Path,
    profile: DeviceProfile,
    *,
    probe: str | None = None,
    port: str | None = None,
    progress: Progress = SILENT,
    options: FlashOptions | None = None,
) -> FlashReport:
    """Programs a board with an image, and verifies it.

    Args:
        image_dir: a folder with image.json and firmware.elf.
        profile: the target the image was made for.
        probe: the debug probe's unique id or its beginning; None: the only one.
        port: the serial port of a boot loader, with or without "serial:"; None: the likely one.

    Raises:
        BadInput: no image, another target's, one that is larger than flash, or another chip.
        DeviceTrouble: see the tool's module in `flashers`.
    """
    options = options or FlashOptions()
    start_s = time.monotonic()
    manifest = _manifest_for(image_dir, profile)
    tool = _choose_tool(profile, options, port=port)
    job = FlashJob(
        profile=profile,
        # A UF2 drive needs nothing that the profile would say of another tool.
        flashing=profile.flashing or Flashing(tool="stm32loader"),
        segments=_segments(image_dir / manifest.firmware, profile),
        progress=progress,
        probe=probe,
        port=None if port is None else port.removeprefix("serial:"),
        drive=options.uf2_drive,
        unlock=options.unlock,
        force=options.force,
    )
    done = _flasher(tool)(job)
    return FlashReport(
        tool=tool,
        where=done.where,
        target=profile.name,
        chip=done.chip,
        firmware_hash=manifest.firmware_hash,
        flash_bytes=job.size_bytes,
        seconds=elapsed(start_s),
        verified=done.verified,
    )


def _manifest_for(image_dir: Path, profile: DeviceProfile) -> ImageManifest:
    """The folder's manifest, its firmware's hash compared, once it is this chip's."""
    manifest = load_manifest(image_dir)
    if manifest.target != profile.name:
        raise BadInput(
            f"{image_dir} holds an image for {manifest.target}, not for {profile.name}.",
            next_step=f"Compile it for {profile.name}.",
        )
    if profile.kind != "mcu":
        raise BadInput(
            f"{profile.name} images are programs: nothing is flashed.",
            next_step="Run it with profile --device process or adb.",
        )
    return manifest


def _choose_tool(profile: DeviceProfile, options: FlashOptions, *, port: str | None) -> Tool:
    """A drive means UF2 and a serial port a boot loader; else the profile's usual tool."""
    if options.uf2_drive is not None:
        if options.tool not in (None, "uf2"):
            raise BadInput(f"--uf2-drive is not for --tool {options.tool}.")
        return "uf2"
    if options.tool == "uf2":
        raise BadInput("--tool uf2 needs --uf2-drive FOLDER.")
    known = profile.flashing
    tools: tuple[Tool, ...] = () if known is None else (known.tool, *known.others)
    if not tools:
        raise DeviceNotFound(
            f"{profile.name} does not say how it is flashed.",
            next_step="Add a [flashing] table to the target, or program firmware.hex yourself.",
        )
    if not profile.has_firmware:
        raise BadInput(
            f"There is no port of the firmware for {profile.name}: its firmware.elf is for the "
            "virtual board.",
            next_step="Link lib/libmodel.a into your own firmware, or name a port in [console].",
        )
    if options.tool is not None:
        if options.tool not in tools:
            raise BadInput(
                f"{profile.name} is not flashed by {options.tool}.",
                next_step=f"Use {' or '.join(tools)}.",
            )
        return options.tool
    if port is not None:
        over_serial: list[Tool] = [tool for tool in tools if tool != "pyocd"]
        if not over_serial:
            raise BadInput(
                f"{profile.name} is flashed by {tools[0]}, which uses no serial port.",
                next_step="Leave out --device; --probe names the probe.",
            )
        return over_serial[0]
    return tools[0]


def _segments(firmware: Path, profile: DeviceProfile) -> tuple[tuple[int, bytes], ...]:
    """What the ELF file loads into flash: the one file whose hash the manifest has.

    Raises:
        BadInput: damaged, empty, or beyond flash.
    """
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    memory = IntelHex()
    try:
        with firmware.open("rb") as file:
            for segment in ELFFile(file).iter_segments("PT_LOAD"):
                if segment["p_filesz"]:
                    memory.frombytes(segment.data(), offset=segment["p_paddr"])
    except (ELFError, ValueError) as error:
        raise BadInput(f"{firmware} is no image: {error}.", next_step="Compile it again.") from None
    pieces = []
    for start, end in memory.segments():
        _check_fits(start, end, profile)
        pieces.append((start, bytes(memory.tobinarray(start=start, size=end - start))))
    if not pieces:
        raise BadInput(f"{firmware} loads nothing.", next_step="Compile the image again.")
    return tuple(pieces)


def _check_fits(start: int, end: int, profile: DeviceProfile) -> None:
    flash = [region for region in profile.regions if region.kind == "flash"]
    for region in flash:
        if region.origin <= start and end <= region.origin + region.size:
            return
        if region.origin <= start < region.origin + region.size:
            raise BadInput(
                f"The image takes {format_bytes(end - start)} from {start:#010x}; {region.name} of "
                f"{profile.name} ends after {format_bytes(region.origin + region.size - start)}.",
                next_step="Fit it with --flash, or choose a larger part.",
            )
    raise BadInput(
        f"The image has {end - start} bytes at {start:#010x}, outside the flash of {profile.name}."
    )


def _flasher(tool: Tool) -> Callable[[FlashJob], Flashed]:
    """Imported when used: each brings its own library."""
    if tool == "pyocd":
        from edgecompress.device.flashers.pyocd import flash_with_pyocd

        return flash_with_pyocd
    if tool == "stm32loader":
        from edgecompress.device.flashers.stm32loader import flash_with_stm32loader

        return flash_with_stm32loader
    if tool == "esptool":
        from edgecompress.device.flashers.esptool import flash_with_esptool

        return flash_with_esptool
    from edgecompress.device.flashers.uf2 import flash_with_uf2

    return flash_with_uf2
