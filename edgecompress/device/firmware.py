"""Whether a board's flash holds this very firmware: its own word proves only the model."""

from __future__ import annotations

from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from edgecompress.device.protocol import Client
from edgecompress.errors import BadInput, ProtocolError
from edgecompress.target.schema import DeviceProfile


def check_flash(client: Client, elf: Path, profile: DeviceProfile) -> None:
    """Compares every byte the image programs with the device's flash, by CRC-32 on the device.

    Gaps between the image's segments are whatever was there before, and are left out.

    Raises:
        ProtocolError: the flash holds something else.
        BadInput: the file is no ELF image for this profile.
    """
    for address, data in programmed_bytes(elf):
        region = next(
            (
                region
                for region in profile.regions
                if region.kind == "flash"
                and region.origin <= address
                and address + len(data) <= region.origin + region.size
            ),
            None,
        )
        if region is None:
            raise BadInput(
                f"{elf.name} programs {len(data)} bytes at {address:#010x}, outside the flash of "
                f"{profile.name}.",
                next_step="Compile the image again for this target.",
            )
        if not client.flash_matches(region.name, address - region.origin, data):
            raise ProtocolError(
                f"The flash of {client.port.name} holds other bytes than {elf.name} between "
                f"{address:#010x} and {address + len(data) - 1:#010x}, though it says that it runs "
                "the same model.",
                next_step="Flash the image of this folder.",
            )


def programmed_bytes(elf: Path) -> list[tuple[int, bytes]]:
    """(address, bytes) of each part of the image that is programmed, as a flash tool sees it.

    Raises:
        BadInput: it is no ELF file.
    """
    try:
        with elf.open("rb") as file:
            return [
                (segment["p_paddr"], segment.data())
                for segment in ELFFile(file).iter_segments("PT_LOAD")
                if segment["p_filesz"] > 0
            ]
    except (ELFError, OSError) as error:
        raise BadInput(f"{elf} is not an ELF image: {error}.") from None
