"""UF2 files: read back by the specification, block by block."""

from __future__ import annotations

import struct

import pytest
from intelhex import IntelHex

from edgecompress.link.uf2 import uf2_blocks, uf2_family
from edgecompress.target import load_target

RP2040, RP2350_ARM, RP2350_RISCV = 0xE48BFF56, 0xE48BFF59, 0xE48BFF5A


@pytest.mark.parametrize(
    ("target", "family"),
    [
        ("rp2040", RP2040),
        ("rp2350", RP2350_ARM),
        ("rp2350-riscv", RP2350_RISCV),
        ("nrf52840", None),
        ("esp32c3", None),
    ],
)
def test_only_chips_whose_rom_takes_it_have_a_family(target: str, family: int | None) -> None:
    assert uf2_family(load_target(target)) == family


def test_blocks_carry_every_byte_to_its_address_once() -> None:
    memory = IntelHex()
    memory.padding = 0xFF
    first, second = bytes(range(256)) * 2 + b"tail", b"far away"
    memory.frombytes(first, offset=0x10000000)
    memory.frombytes(second, offset=0x10004010)
    file = uf2_blocks(memory, RP2040)
    assert len(file) == 4 * 512
    found: dict[int, bytes] = {}
    for number in range(4):
        block = file[number * 512 : (number + 1) * 512]
        head = struct.unpack("<8I", block[:32])
        assert head[:3] == (0x0A324655, 0x9E5D5157, 0x2000)
        assert head[4:] == (256, number, 4, RP2040)
        assert struct.unpack("<I", block[508:]) == (0x0AB16F30,)
        found[head[3]] = block[32:288]
    assert sorted(found) == [0x10000000, 0x10000100, 0x10000200, 0x10004000]
    assert found[0x10000000] + found[0x10000100] + found[0x10000200] == first + b"\xff" * 252
    assert found[0x10004000] == b"\xff" * 16 + second + b"\xff" * (240 - len(second))
