"""Onto the drive that an RP2040 or RP2350 shows while BOOTSEL is held: one UF2 file is copied.

The format is Microsoft's (github.com/microsoft/uf2): 512 byte blocks of 256 bytes each; the family
ids are those of the RP2040 datasheet (2.8.4.2) and the RP2350 datasheet (5.5.3).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from edgecompress.device.adb_client import printable
from edgecompress.device.flashers.job import Flashed, FlashJob
from edgecompress.errors import BadInput, DeviceNotFound, DeviceTrouble

_BLOCK = struct.Struct("<8I476sI")
_MAGIC = (0x0A324655, 0x9E5D5157)
_MAGIC_END = 0x0AB16F30
_FAMILY_ID_PRESENT = 0x00002000
_PAYLOAD_BYTES = 256
_INFO_FILE = "INFO_UF2.TXT"
_INFO_BYTES = 4096


@dataclass(frozen=True)
class _Chip:
    """A boot loader: the family its blocks name, and the Board-ID its drive shows."""

    family: int
    board_id: str


_CHIPS = {"rp2040": _Chip(0xE48BFF56, "RPI-RP2"), "rp2350": _Chip(0xE48BFF59, "RP2350")}


def flash_with_uf2(job: FlashJob) -> Flashed:
    """Copies the image; the chip restarts with it as soon as the last block is there.

    Raises:
        BadInput: the target has no UF2 boot loader, or the drive is another chip's.
        DeviceNotFound: the folder is no UF2 drive.
        DeviceTrouble: it cannot be written.
    """
    chip = next((chip for name, chip in _CHIPS.items() if job.profile.name.startswith(name)), None)
    if chip is None:
        raise BadInput(
            f"{job.profile.name} has no UF2 boot loader; {', '.join(_CHIPS)} do.",
            next_step="Leave out --uf2-drive.",
        )
    assert job.drive is not None
    found = _board_id(job.drive)
    if found != chip.board_id:
        raise BadInput(
            f"The image is for {job.profile.name} (Board-ID {chip.board_id}); {job.drive} is of a "
            f"{found}."
        )
    content = uf2_blocks(job.segments, chip.family)
    job.progress.stage(f"Copy {len(content)} bytes to {job.drive}")
    try:
        with (job.drive / "firmware.uf2").open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise DeviceTrouble(f"{job.drive} cannot be written: {error.strerror}.") from None
    return Flashed(str(job.drive), found, "not read back: the chip restarts once it has the file")


def uf2_blocks(segments: tuple[tuple[int, bytes], ...], family: int) -> bytes:
    """The segments as UF2; the last block of each is filled up with 0xFF, as erased flash reads.

    Raises:
        BadInput: a segment does not begin on a 256 byte page.
    """
    pages: list[tuple[int, bytes]] = []
    for address, data in segments:
        if address % _PAYLOAD_BYTES:
            raise BadInput(f"UF2 takes whole 256 byte pages; {address:#010x} does not begin one.")
        for start in range(0, len(data), _PAYLOAD_BYTES):
            page = data[start : start + _PAYLOAD_BYTES].ljust(_PAYLOAD_BYTES, b"\xff")
            pages.append((address + start, page))
    return b"".join(
        _BLOCK.pack(*_MAGIC, _FAMILY_ID_PRESENT, address, _PAYLOAD_BYTES, number, len(pages),
                    family, page, _MAGIC_END)
        for number, (address, page) in enumerate(pages)
    )  # fmt: skip


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
