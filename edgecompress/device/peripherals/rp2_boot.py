"""What the boot ROMs of RP2040 and RP2350 do with an image (datasheets 2.8.1 and 5.9)."""

from __future__ import annotations

import struct

from unicorn.arm_const import UC_ARM_REG_PC, UC_ARM_REG_SP
from unicorn.unicorn_const import UC_PROT_ALL, UC_PROT_READ, UC_PROT_WRITE
from unicorn.unicorn_py3 import Uc

from edgecompress.device.peripherals.base import Surroundings

# RP2040 datasheet 2.8.1.3: the ROM copies the second stage to the end of SRAM5.
_STAGE_BYTES, _STAGE_ADDRESS = 256, 0x20041F00
_STAGE_INSTRUCTIONS = 10_000
_PAGE_BYTES = 0x1000
_SSI = 0x18000000
# Winbond W25Q16JV datasheet 9.6, the flash of a Pico: command 03h. Others are no slower.
_READ_LIMIT_HZ = 50_000_000

# RP2350 datasheet 5.9.1 and 5.9.5; the item types are those of 5.9.3.
_BLOCK_BEGIN, _BLOCK_END = 0xFFFFDED3, 0xAB123579
_IMAGE_TYPE_ARM, _IMAGE_TYPE_RISCV = 0x10210142, 0x11010142
_SEARCHED_BYTES = 4096


def boot(engine: Uc, surroundings: Surroundings) -> int:
    """Starts the image as the ROM would; returns where execution goes on.

    Halts the board with the reason where the ROM would not start the image.
    """
    flash = surroundings.profile.region("flash").origin
    if surroundings.profile.console.settings["chip"] == 2040:
        return _boot_rp2040(engine, surroundings, flash)
    return _boot_rp2350(engine, surroundings, flash)


def stage_checksum(stage: bytes) -> int:
    """The CRC-32 of a second stage's 252 bytes (RP2040 datasheet 2.8.1.3.1).

    Polynomial 04C11DB7h, from all ones, most significant bit first, not inverted at the end.
    """
    value = 0xFFFFFFFF
    for byte in stage:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7 if value & 0x80000000 else value << 1) & 0xFFFFFFFF
    return value


def _boot_rp2040(engine: Uc, surroundings: Surroundings, flash: int) -> int:
    stage = surroundings.read_memory(flash, _STAGE_BYTES)
    (stored,) = struct.unpack("<I", stage[-4:])
    if stored != (right := stage_checksum(stage[:-4])):
        surroundings.halt(
            f"has a second stage with the CRC {stored:#010x}, not {right:#010x}: the boot ROM "
            f"goes on to USB"
        )
        return flash
    surroundings.write_memory(_STAGE_ADDRESS, stage)
    page = _STAGE_ADDRESS - _STAGE_ADDRESS % _PAGE_BYTES
    engine.mem_protect(page, _PAGE_BYTES, UC_PROT_ALL)
    _stack, entry = struct.unpack("<II", surroundings.read_memory(flash + _STAGE_BYTES, 8))
    engine.emu_start(_STAGE_ADDRESS | 1, entry & ~1, count=_STAGE_INSTRUCTIONS)
    engine.mem_protect(page, _PAGE_BYTES, UC_PROT_READ | UC_PROT_WRITE)
    if engine.reg_read(UC_ARM_REG_PC) != entry & ~1:
        surroundings.halt("has a second stage that does not reach the image")
    _check_flash(surroundings)
    return entry | 1


def _check_flash(surroundings: Surroundings) -> None:
    """Whether what the second stage set up reads flash at the speed the core will run at."""
    registers = {
        offset: struct.unpack("<I", surroundings.read_memory(_SSI + offset, 4))[0]
        for offset in (0x00, 0x08, 0x14, 0xF4)
    }
    divider = registers[0x14]
    clock_hz = surroundings.profile.core.clock_hz
    if registers[0x08] != 1 or registers[0x00] != 0x001F0300 or registers[0xF4] != 0x03000218:
        surroundings.halt("has a second stage that does not make flash readable with command 03h")
    elif divider < 2 or divider % 2 or clock_hz / divider > _READ_LIMIT_HZ:
        surroundings.halt(
            f"has a second stage that clocks flash at core clock / {divider}; command 03h takes "
            f"{_READ_LIMIT_HZ // 1_000_000} MHz at most"
        )


def _boot_rp2350(engine: Uc, surroundings: Surroundings, flash: int) -> int:
    is_riscv = surroundings.profile.core.isa.startswith("rv")
    start = surroundings.read_memory(flash, _SEARCHED_BYTES)
    words = struct.unpack(f"<{len(start) // 4}I", start)
    image_type = _IMAGE_TYPE_RISCV if is_riscv else _IMAGE_TYPE_ARM
    block = (_BLOCK_BEGIN, image_type, 0x000001FF, 0, _BLOCK_END)
    if not any(words[index : index + 5] == block for index in range(len(words) - 4)):
        surroundings.halt(
            "has no IMAGE_DEF for this processor in its first 4096 bytes: the boot ROM goes on to "
            "USB"
        )
    if is_riscv:
        return flash
    engine.reg_write(UC_ARM_REG_SP, words[0])
    return words[1] | 1
