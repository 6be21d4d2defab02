"""UF2, what boards with a drag-and-drop boot loader take (Microsoft's UF2 specification).

A file is 512-byte blocks, each with 256 bytes for one flash address, so that a boot loader can
write them in any order and tell a complete file from a torn one.
"""

from __future__ import annotations

import struct

from intelhex import IntelHex

from edgecompress.target.schema import DeviceProfile

_PAYLOAD_BYTES = 256
_DATA_BYTES = 476
_MAGIC_START = (0x0A324655, 0x9E5D5157)
_MAGIC_END = 0x0AB16F30
_FLAG_FAMILY = 0x00002000
# RP2040 datasheet 2.8.4.2, RP2350 datasheet 5.5.3.
_RP2_FAMILIES = {2040: 0xE48BFF56, 2350: 0xE48BFF59}
_RP2350_RISCV = 0xE48BFF5A


def uf2_family(profile: DeviceProfile) -> int | None:
    """What a boot ROM that takes UF2 calls this chip; None where there is no such boot ROM."""
    if profile.console.port != "rp2":
        return None
    if profile.core.isa.startswith("rv"):
        return _RP2350_RISCV
    return _RP2_FAMILIES[int(profile.console.settings["chip"])]


def uf2_blocks(memory: IntelHex, family: int) -> bytes:
    """The file: `memory` in whole 256-byte pages, gaps within a page 0xFF as erased flash reads.

    Args:
        memory: the loaded bytes at their flash addresses.
        family: the family ID; a boot ROM skips blocks of any other.
    """
    pages = sorted(
        {
            page
            for start, end in memory.segments()
            for page in range(start // _PAYLOAD_BYTES, (end - 1) // _PAYLOAD_BYTES + 1)
        }
    )
    blocks = bytearray()
    for number, page in enumerate(pages):
        address = page * _PAYLOAD_BYTES
        payload = memory.tobinstr(start=address, size=_PAYLOAD_BYTES)
        blocks += struct.pack(
            "<8I",
            *_MAGIC_START,
            _FLAG_FAMILY,
            address,
            _PAYLOAD_BYTES,
            number,
            len(pages),
            family,
        )
        blocks += payload.ljust(_DATA_BYTES, b"\0") + struct.pack("<I", _MAGIC_END)
    return bytes(blocks)
