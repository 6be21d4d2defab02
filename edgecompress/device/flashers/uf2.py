"""Onto the drive that an RP2040 or RP2350 shows while BOOTSEL is held: one UF2 file is copied."""

from __future__ import annotations

import os
from pathlib import Path

from edgecompress.device.adb_client import printable
from edgecompress.device.flashers.job import Flashed, FlashJob
from edgecompress.errors import BadInput, DeviceNotFound, DeviceTrouble
from edgecompress.link.uf2 import uf2_blocks, uf2_family

_INFO_FILE = "INFO_UF2.TXT"
_INFO_BYTES = 4096


# What the boot ROMs write into INFO_UF2.TXT.
_BOARD_IDS = {"rp2040": "RPI-RP2", "rp2350": "RP2350"}


def flash_with_uf2(job: FlashJob) -> Flashed:
    """Copies the image; the chip restarts with it as soon as the last block is there.

    Raises:
        BadInput: the target has no UF2 boot loader, or the drive is another chip's.
        DeviceNotFound: the folder is no UF2 drive.
        DeviceTrouble: it cannot be written.
    """
    family = uf2_family(job.profile)
    wanted = next((known for name, known in _BOARD_IDS.items()
                   if job.profile.name.startswith(name)), None)  # fmt: skip
    if family is None or wanted is None:
        raise BadInput(
            f"{job.profile.name} has no UF2 boot loader; {', '.join(_BOARD_IDS)} do.",
            next_step="Leave out --uf2-drive.",
        )
    assert job.drive is not None
    found = _board_id(job.drive)
    if found != wanted:
        raise BadInput(
            f"The image is for {job.profile.name} (Board-ID {wanted}); {job.drive} is of a {found}."
        )
    content = uf2_blocks(job.memory(), family)
    job.progress.stage(f"Copy {len(content)} bytes to {job.drive}")
    try:
        with (job.drive / "firmware.uf2").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DeviceTrouble(f"{job.drive} cannot be written: {error.strerror}.") from None
    return Flashed(str(job.drive), found, "not read back: the chip restarts once it has the file")


def _board_id(drive: Path) -> str:
    try:
        with (drive / _INFO_FILE).open("rb") as file:
            text = file.read(_INFO_BYTES).decode("ascii", errors="replace")
    except OSError:
        raise DeviceNotFound(
            f"{drive} is not the drive of a UF2 boot loader ({_INFO_FILE} is missing).",
            next_step="Hold BOOTSEL while connecting the board, and name its drive.",
        ) from None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "Board-ID":
            return printable(value.strip(), 40)
    return "board without an id"
