"""The rp2 port on the virtual boards of RP2040 and RP2350, and the slips the boards must find."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from spoilt_port import board, fault_on, spoil, talk

from edgecompress.device.peripherals.base import Surroundings
from edgecompress.device.peripherals.rp2_boot import stage_checksum
from edgecompress.device.peripherals.rp2_clocks import Clocks, Oscillator, Pll, Resets
from edgecompress.errors import BuildFailed, InvalidTarget
from edgecompress.link.sizes import read_sizes
from edgecompress.target import load_target

TinyImage = Callable[..., Path]

# What start-up, runner, protocol and port may take of flash, in bytes, vectors and all.
RUNTIME_LIMIT_BYTES = {"rp2040": 6700, "rp2350": 5900, "rp2350-riscv": 7400}
IDENTITY = {
    "rp2040": ("xip_cache=on flash=03h flash_divider=4", ""),
    "rp2350": ("xip_cache=on flash=as_boot_rom_left_it", "0123456789abcdef"),
    "rp2350-riscv": ("xip_cache=on flash=as_boot_rom_left_it", "0123456789abcdef"),
}


@pytest.mark.parametrize("target", IDENTITY)
def test_it_runs_at_the_rated_speed_from_the_pll(tiny_image: TinyImage, target: str) -> None:
    profile = load_target(target)
    identity, ticks = talk(tiny_image(target), profile)
    assert 100 < ticks < 2000
    assert identity.clock_hz == identity.tick_hz == profile.core.clock_hz
    assert identity.clock_source == "registers"
    assert (identity.settings, identity.device_id) == IDENTITY[target]
    size = read_sizes(tiny_image(target) / "firmware.elf", profile)
    parts = size.flash_sections
    assert parts["runtime"] + parts["vectors"] < RUNTIME_LIMIT_BYTES[target]


def test_ticks_of_the_rp2040_are_exact_beyond_24_bits(
    tiny_image: TinyImage, tmp_path: Path
) -> None:
    """Two equal waits of more than 2^25 cycles take the same ticks, to the last one."""
    profile = load_target("rp2040")
    tick_hz = "uint32_t port_tick_hz(void) {"
    measured = """
      __attribute__((noinline)) static uint64_t wait(void) {
        uint64_t before = port_ticks();
        for (volatile int round = 0; round < 5000000; round++) {
        }
        return port_ticks() - before;
      }
      uint32_t port_tick_hz(void) {
        uint64_t first = wait(), second = wait();
        if (first != second || first >> 25 != 1) return 1;
    """
    image = spoil(tiny_image("rp2040"), tmp_path / "image", profile, {tick_hz: measured})
    assert talk(image, profile)[0].tick_hz == profile.core.clock_hz


@pytest.mark.parametrize(
    ("target", "other", "said"),
    [
        ("rp2040", {"baud": 9600}, "at 115207 baud; the profile says 9600"),
        ("rp2040", {"tx_pin": 12}, "while GPIO12 has function 31, not 2 (UART)"),
        ("rp2040", {"clock_hz": 133_000_000}, "the core runs at 125000000 Hz; the profile says 13"),
        ("rp2350", {"crystal_hz": 10_000_000}, "at 96006 baud; the profile says 115200"),
        ("rp2350", {"crystal_hz": 15_000_000}, "the VCO of PLL_SYS to 1875 MHz"),
    ],
)
def test_an_image_for_another_board_is_found_out(
    tiny_image: TinyImage, target: str, other: dict[str, int], said: str
) -> None:
    assert said in fault_on(tiny_image(target), board(target, **other))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("RESET_PADS_BANK0 | RESET_UART)", "RESET_PADS_BANK0)", "used UART0 while it is in reset"),
        ("release(RESET_TIMER);", "", "used TIMER while it is in reset"),
        ("while (!(XOSC_STATUS & XOSC_STABLE)) {\n  }", "", "clk_ref to the crystal before it is"),
        ("PLL_PWR &= ~PLL_PWR_POST_DIVIDERS;", "", "switched clk_sys to PLL_SYS, which does not"),
        ("CLK_PERI_CTRL = CLK_PERI_ENABLE;", "", "while clk_peri is stopped"),
        ("GPIO_CTRL(PORT_TX_PIN) = GPIO", "(void)GPIO", "GPIO0 has function 31, not 2"),
        ("UART_LINE = UART_8_BITS_FIFO;", "", "UARTLCR_H 0x0, not 8 bits"),
        (
            "_TICK_ENABLE | PORT",
            "_TICK_ENABLE * 0 + PORT",
            "WATCHDOG.TICK does not make microseconds",
        ),
        ("PORT_POST_DIVIDER_1 << 16", "(PORT_POST_DIVIDER_1 - 1) << 16", "it is rated 133 MHz"),
    ],
)
def test_a_spoilt_port_is_found_out(
    tiny_image: TinyImage, tmp_path: Path, old: str, new: str, said: str
) -> None:
    profile = load_target("rp2040")
    image = spoil(tiny_image("rp2040"), tmp_path / "image", profile, {old: new})
    assert said in fault_on(image, profile)


def test_a_platform_timer_that_does_not_count_cycles_is_found_out(
    tiny_image: TinyImage, tmp_path: Path
) -> None:
    profile = load_target("rp2350-riscv")
    slips = {"MTIME_CTRL = MTIME_CTRL_FULL_SPEED_AND_ENABLE": "(void)0"}
    image = spoil(tiny_image("rp2350-riscv"), tmp_path / "image", profile, slips)
    assert "read MTIME while it does not count core cycles" in fault_on(image, profile)


def test_an_isolated_pad_is_found_out(tiny_image: TinyImage, tmp_path: Path) -> None:
    profile = load_target("rp2350")
    slips = {"PAD(PORT_TX_PIN) = ": "PAD(PORT_TX_PIN) |= "}
    image = spoil(tiny_image("rp2350"), tmp_path / "image", profile, slips)
    assert "while the pad of GPIO0 is isolated (ISO)" in fault_on(image, profile)


def test_a_clock_the_pll_cannot_make_does_not_compile(
    tiny_image: TinyImage, tmp_path: Path
) -> None:
    profile = board("rp2350", clock_hz=100_000_000, post_divider_2=1)
    with pytest.raises(BuildFailed, match=r"750\.\.1600 MHz"):
        spoil(tiny_image("rp2350"), tmp_path / "image", profile)


def test_the_second_stage_carries_its_own_checksum(tiny_image: TinyImage) -> None:
    with (tiny_image("rp2040") / "firmware.elf").open("rb") as file:
        start = ELFFile(file).get_section_by_name(".vectors").data()
    assert struct.unpack("<I", start[252:256]) == (stage_checksum(start[:252]),)
    stack, entry = struct.unpack("<II", start[256:264])
    assert stack == 0x20042000
    assert 0x10000100 < entry < 0x10200000


def test_the_checksum_is_the_catalogued_one() -> None:
    """CRC-32/MPEG-2 of "123456789" in the catalogue of parametrised CRC algorithms."""
    assert stage_checksum(b"123456789") == 0x0376E6E7


@pytest.mark.parametrize(
    ("target", "old", "new", "said"),
    [
        ("rp2040", b"\x18\x02\x00\x03", b"\x18\x02\x00\x0b", "stage with the CRC 0x119efcb7"),
        ("rp2350", b"\x79\x35\x12\xab", bytes(4), "no IMAGE_DEF for this processor"),
        ("rp2350", b"\x42\x01\x21\x10", b"\x42\x01\x01\x11", "no IMAGE_DEF for this processor"),
        ("rp2350-riscv", b"\x42\x01\x01\x11", b"\x42\x01\x21\x10", "no IMAGE_DEF for this proc"),
    ],
)  # fmt: skip
def test_the_boot_rom_refuses(
    tiny_image: TinyImage, tmp_path: Path, target: str, old: bytes, new: bytes, said: str
) -> None:
    image = tmp_path / "image"
    shutil.copytree(tiny_image(target), image)
    elf = image / "firmware.elf"
    content = elf.read_bytes()
    assert content.count(old) == 1
    elf.write_bytes(content.replace(old, new))
    assert said in fault_on(image, load_target(target))


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"tx_pin": 4}, "UART0 has its TX on 0, 12, 16, 28"),
        ({"base_address": 0x40034100}, "no UART of the chip"),
    ],
)
def test_what_the_chip_does_not_have_is_an_invalid_target(
    tiny_image: TinyImage, other: dict[str, int], said: str
) -> None:
    with pytest.raises(InvalidTarget, match=said):
        talk(tiny_image("rp2040"), board("rp2040", **other))


class _Halted(Exception):
    pass


def _clock_tree() -> tuple[Resets, Oscillator, Pll, Clocks]:
    def halt(reason: str) -> None:
        raise _Halted(reason)

    class Silence:
        def send(self, byte: int) -> None: ...

        def receive(self, *, wait: bool) -> int | None:
            return None

        def available(self) -> bool:
            return False

    surroundings = Surroundings(load_target("rp2040"), Silence(), lambda: 0, halt)
    resets = Resets(0x4000C000, surroundings)
    oscillator = Oscillator(0x40024000, surroundings)
    pll = Pll(0x40028000, surroundings, oscillator, resets.guard("PLL_SYS", 12))
    return resets, oscillator, pll, Clocks(0x40008000, surroundings, oscillator, pll)


def test_the_clock_tree_starts_in_order_or_not_at_all() -> None:
    resets, oscillator, pll, clocks = _clock_tree()
    with pytest.raises(_Halted, match="used PLL_SYS while it is in reset"):
        pll.read(0x0)
    resets.write(0x0, 0)
    with pytest.raises(_Halted, match="without a start-up delay"):
        oscillator.write(0x00, 0xFABAA0)
    oscillator.write(0x0C, 47)
    oscillator.write(0x00, 0xFABAA0)
    pll.write(0x8, 125)
    with pytest.raises(_Halted, match="powered PLL_SYS before the crystal is stable"):
        pll.write(0x4, 0x0)
    while not oscillator.read(0x04):
        pass
    pll.write(0x4, 0x0)
    assert pll.read(0x0) >> 31
    pll.write(0xC, 6 << 16 | 2 << 12)
    clocks.write(0x3C, 1)
    assert clocks.core_hz == 125_000_000
    with pytest.raises(_Halted, match="rated 133 MHz"):
        pll.write(0xC, 5 << 16 | 2 << 12)
        clocks.write(0x3C, 1)
