"""The esp32c3 port on its virtual board, its two flash windows, and the slips that are found."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from spoilt_port import board, fault_on, spoil, talk
from unicorn.riscv_const import UC_RISCV_REG_X0, UC_RISCV_REG_X5
from unicorn.unicorn_const import UC_ARCH_RISCV, UC_MODE_RISCV32
from unicorn.unicorn_py3 import Uc

from edgecompress.device.ports.processors import access_control_register
from edgecompress.errors import InvalidTarget
from edgecompress.link.sizes import read_sizes, write_flash_images
from edgecompress.target import DeviceProfile, load_target

TinyImage = Callable[..., Path]

# What start-up, runner, protocol and port may take of flash, in bytes.
RUNTIME_LIMIT_BYTES = 7600
FETCHED, READ = range(0x42000000, 0x42400000), range(0x3C000000, 0x3C400000)


@pytest.fixture
def esp32c3() -> DeviceProfile:
    return load_target("esp32c3")


def test_it_runs_at_the_rated_speed(tiny_image: TinyImage, esp32c3: DeviceProfile) -> None:
    identity, ticks = talk(tiny_image("esp32c3"), esp32c3)
    assert 100 < ticks < 2000
    assert identity.clock_hz == identity.tick_hz == 160_000_000
    assert identity.clock_source == "registers"
    assert identity.settings == "icache=as_rom_left_it flash=as_rom_left_it tick=mpccr"
    assert identity.device_id == "020000000001"
    size = read_sizes(tiny_image("esp32c3") / "firmware.elf", esp32c3)
    assert size.flash_sections["runtime"] < RUNTIME_LIMIT_BYTES


def test_both_counters_count_around_the_makers_own_registers(
    tiny_image: TinyImage, esp32c3: DeviceProfile
) -> None:
    image = tiny_image("esp32c3")
    ticks = {talk(image, esp32c3, counter=kind)[1] for kind in ("native", "python")}
    assert len(ticks) == 1


def test_half_the_speed_is_read_from_the_registers(tiny_image: TinyImage, tmp_path: Path) -> None:
    profile = board("esp32c3", clock_hz=80_000_000)
    image = spoil(tiny_image("esp32c3"), tmp_path / "image", profile)
    assert talk(image, profile)[0].clock_hz == 80_000_000


def test_code_and_constants_lie_in_their_own_windows(
    tiny_image: TinyImage, tmp_path: Path, esp32c3: DeviceProfile
) -> None:
    """Each section is at the same offset in flash whichever window it is used through."""
    elf = tmp_path / "firmware.elf"
    shutil.copy(tiny_image("esp32c3") / "firmware.elf", elf)
    write_flash_images(elf, esp32c3)
    flash = (tmp_path / "firmware.bin").read_bytes()
    assert flash[:8] == struct.pack("<II", 0xAEDB041D, 0xAEDB041D)
    with elf.open("rb") as file:
        sections = [
            section
            for section in ELFFile(file).iter_sections()
            if section["sh_flags"] & 2 and section["sh_type"] == "SHT_PROGBITS" and section.data()
        ]
        seen = set()
        for section in sections:
            start, content = section["sh_addr"], section.data()
            window = FETCHED if section["sh_flags"] & 4 else READ
            if section["sh_flags"] & 1:  # variables
                continue
            assert start in window, section.name
            assert flash[start - window[0] : start - window[0] + len(content)] == content
            seen.add(window)
    assert seen == {FETCHED, READ}


def test_reading_through_the_instruction_bus_is_found_out(
    tiny_image: TinyImage, tmp_path: Path, esp32c3: DeviceProfile
) -> None:
    slips = {
        "port_flush(void) {": "port_flush(void) {\n  (void)*(volatile uint8_t *)0x42000001u;",
    }
    image = spoil(tiny_image("esp32c3"), tmp_path / "image", esp32c3, slips)
    assert "read memory that cannot be read: 1 bytes at 0x42000001" in fault_on(image, esp32c3)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  stop_watchdogs();\n", "", "a watchdog of RTC_CNTL, TIMG0 is going to reset the chip"),
        ("RTC_WDT_PROTECT = WDT_KEY;", "", "wrote to the watchdog of RTC_CNTL without unlocking"),
        ("SUPER_WDT_CONFIG |= SUPER_WDT_FEEDS_ITSELF;", "", "a watchdog of RTC_CNTL is going"),
        ("  start_clock();\n", "", "the core runs at 20000000 Hz; the profile says 160000000"),
        ("PERIP_RST_EN0 &= ~(UART0_BIT | UART_MEMORY_BIT);", "", "used UART0 while it is in reset"),
        ("PERIP_CLK_EN0 |= UART0_BIT |", "PERIP_CLK_EN0 |=", "without its clock or its memory's"),
        ("UART_UPDATE (1u << 31)", "UART_UPDATE 0u", "its clocks do not run off the crystal"),
        ("IO_MUX_GPIO(TX_PIN) = ", "(void)", "GPIO21 has function 1, not 0 (UART0)"),
        ("IO_MUX_INPUT_ENABLE |", "", "the input of GPIO20 is off"),
        ("csrwi 0x7E0, 1", "nop", "read mpccr while it does not count cycles"),
    ],
)
def test_a_spoilt_port_is_found_out(
    tiny_image: TinyImage,
    tmp_path: Path,
    esp32c3: DeviceProfile,
    old: str,
    new: str,
    said: str,
) -> None:
    image = spoil(tiny_image("esp32c3"), tmp_path / "image", esp32c3, {old: new})
    assert said in fault_on(image, esp32c3)


def test_another_baud_rate_is_found_out(tiny_image: TinyImage) -> None:
    fault = fault_on(tiny_image("esp32c3"), board("esp32c3", baud=9600))
    assert "at 115191 baud; the profile says 9600" in fault


def test_an_image_without_the_magic_words_is_not_booted(
    tiny_image: TinyImage, tmp_path: Path, esp32c3: DeviceProfile
) -> None:
    image = tmp_path / "image"
    shutil.copytree(tiny_image("esp32c3"), image)
    elf = image / "firmware.elf"
    content, magic = elf.read_bytes(), struct.pack("<II", 0xAEDB041D, 0xAEDB041D)
    assert content.count(magic) == 1
    elf.write_bytes(content.replace(magic, magic[:4] + b"\xe9\0\0\0"))
    assert "begins with 0xaedb041d 0x000000e9" in fault_on(image, esp32c3)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"clock_hz": 240_000_000}, "80 MHz or 160 MHz"),
        ({"base_address": 0x60010000}, "the port uses UART0"),
    ],
)
def test_what_the_chip_does_not_have_is_an_invalid_target(
    tiny_image: TinyImage, other: dict[str, int], said: str
) -> None:
    with pytest.raises(InvalidTarget, match=said):
        talk(tiny_image("esp32c3"), board("esp32c3", **other))


class _Register:
    def __init__(self) -> None:
        self.value, self.reads, self.writes = 0b1100, 0, 0

    def read(self) -> int:
        self.reads += 1
        return self.value

    def write(self, value: int) -> None:
        self.writes += 1
        self.value = value


@pytest.mark.parametrize(
    ("funct3", "source", "after", "reads", "writes"),
    [
        (1, 5, 0b1010, 1, 1),  # csrrw x6, csr, x5
        (2, 5, 0b1110, 1, 1),  # csrrs
        (3, 5, 0b0100, 1, 1),  # csrrc
        (2, 0, 0b1100, 1, 0),  # csrr x6, csr: no write
        (5, 3, 0b0011, 1, 1),  # csrrwi
        (6, 3, 0b1111, 1, 1),  # csrrsi
        (7, 4, 0b1000, 1, 1),  # csrrci
        (6, 0, 0b1100, 1, 0),
    ],
)
def test_instructions_on_a_makers_register(
    funct3: int, source: int, after: int, reads: int, writes: int
) -> None:
    """RISC-V unprivileged architecture, chapter 9: what each of the six reads and writes."""
    engine, register = Uc(UC_ARCH_RISCV, UC_MODE_RISCV32), _Register()
    engine.reg_write(UC_RISCV_REG_X5, 0b1010)
    word = 0x7E2 << 20 | source << 15 | funct3 << 12 | 6 << 7 | 0x73
    assert access_control_register(engine, struct.pack("<I", word), {0x7E2: register})
    assert (register.value, register.reads, register.writes) == (after, reads, writes)
    assert engine.reg_read(UC_RISCV_REG_X0 + 6) == 0b1100


@pytest.mark.parametrize("word", [0x00000073, 0x7E302373, 0xFFFFFFFF])
def test_other_instructions_stay_illegal(word: int) -> None:
    engine, register = Uc(UC_ARCH_RISCV, UC_MODE_RISCV32), _Register()
    assert not access_control_register(engine, struct.pack("<I", word), {0x7E2: register})
    assert register.reads == register.writes == 0
