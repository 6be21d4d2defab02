"""The nrf port on the virtual boards of nRF52 and nRF53, and the slips the boards must find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from spoilt_port import board, fault_on, spoil, talk

from edgecompress.device.peripherals import nrf
from edgecompress.errors import InvalidTarget
from edgecompress.link.sizes import read_sizes
from edgecompress.target import load_target

TinyImage = Callable[..., Path]

# What start-up, runner, protocol and port may take of flash, in bytes.
RUNTIME_LIMIT_BYTES = 5700
SETTINGS = {
    "nrf52840": "icache=on hfclk=crystal",
    "nrf5340": "cache=on hfclk=crystal network_core=off",
}


@pytest.mark.parametrize("target", SETTINGS)
def test_it_runs_at_the_rated_speed_from_the_crystal(tiny_image: TinyImage, target: str) -> None:
    profile = load_target(target)
    identity, ticks = talk(tiny_image(target), profile)
    assert 100 < ticks < 2000
    assert identity.clock_hz == identity.tick_hz == profile.core.clock_hz
    assert identity.clock_source == "registers"
    assert identity.settings == SETTINGS[target]
    assert identity.device_id == "0123456789abcdef"
    size = read_sizes(tiny_image(target) / "firmware.elf", profile)
    assert size.flash_sections["runtime"] < RUNTIME_LIMIT_BYTES


def test_a_crystal_that_never_starts_is_given_up(
    tiny_image: TinyImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nrf.Clock, "crystal_works", False)
    profile = load_target("nrf52840")
    # Fewer rounds than on silicon, where one is some ten cycles and not a call into Python.
    slips = {"CRYSTAL_ROUNDS 1000000u": "CRYSTAL_ROUNDS 1000u"}
    image = spoil(tiny_image("nrf52840"), tmp_path / "image", profile, slips)
    identity, _ticks = talk(image, profile)
    assert identity.clock_source == "configured"
    assert identity.settings == "icache=on hfclk=rc"


def test_a_board_without_a_crystal_keeps_the_internal_oscillator(
    tiny_image: TinyImage, tmp_path: Path
) -> None:
    profile = board("nrf5340", crystal=0)
    identity, _ticks = talk(spoil(tiny_image("nrf5340"), tmp_path / "image", profile), profile)
    assert identity.settings == "cache=on hfclk=rc network_core=off"


def test_a_part_without_a_cache_says_so(tiny_image: TinyImage) -> None:
    identity, _ticks = talk(tiny_image("nrf52810"), load_target("nrf52810"))
    assert identity.settings == "icache=off hfclk=crystal"


def test_half_the_speed_is_read_from_the_divider(tiny_image: TinyImage, tmp_path: Path) -> None:
    profile = board("nrf5340", clock_hz=64_000_000)
    identity, _ticks = talk(spoil(tiny_image("nrf5340"), tmp_path / "image", profile), profile)
    assert identity.clock_hz == 64_000_000


@pytest.mark.parametrize(
    ("target", "other", "said"),
    [
        ("nrf52840", {"baud": 9600}, "BAUDRATE 0x01d60000; 9600 baud is 0x00275000"),
        ("nrf52840", {"tx_pin": 7}, "PSEL.TXD 0x6; the console is on pin 7"),
        ("nrf52840", {"rx_pin": 33}, "PSEL.RXD 0x8; the console is on pin 33"),
        ("nrf5340", {"clock_hz": 64_000_000}, "runs at 128000000 Hz; the profile says 64000000"),
    ],
)
def test_an_image_for_another_board_is_found_out(
    tiny_image: TinyImage, target: str, other: dict[str, int], said: str
) -> None:
    assert said in fault_on(tiny_image(target), board(target, **other))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  start_crystal();\n", "", "without ever starting the crystal oscillator"),
        ("UART_ENABLE = UART_ENABLE_UARTE", "(void)0", "started UARTE while it is not enabled"),
        ("UART_ENABLE_UARTE 8u", "UART_ENABLE_UARTE 4u", "wrote 0x4 to UARTE ENABLE"),
        ("configure_pin(PORT_TX_PIN, PIN_OUTPUT);", "", "its TXD pin 6 is not an output"),
        ("UART_TRANSMIT_COUNT = 1;", "", "started EasyDMA with MAXCNT 0"),
        ("static volatile uint8_t sent_byte,", "static const uint8_t flash_byte = 0;\n"
         "static volatile uint8_t sent_byte,", ""),
    ],
)  # fmt: skip
def test_a_spoilt_port_is_found_out(
    tiny_image: TinyImage, tmp_path: Path, old: str, new: str, said: str
) -> None:
    slips = {old: new}
    if not said:
        slips["&sent_byte"], said = "&flash_byte", "it reaches RAM only"
    profile = load_target("nrf52840")
    image = spoil(tiny_image("nrf52840"), tmp_path / "image", profile, slips)
    assert said in fault_on(image, profile)


def test_an_untrimmed_nrf53_is_found_out(tiny_image: TinyImage, tmp_path: Path) -> None:
    profile = load_target("nrf5340")
    slips = {"TRIM_LIMIT 32u": "TRIM_LIMIT 1u"}
    image = spoil(tiny_image("nrf5340"), tmp_path / "image", profile, slips)
    assert "without copying the trim values of FICR" in fault_on(image, profile)


@pytest.mark.parametrize(
    ("target", "other", "said"),
    [
        ("nrf52840", {"clock_hz": 128_000_000}, "the core runs at 64 MHz"),
        ("nrf5340", {"baud": 12_345}, "UARTE does 9600"),
    ],
)
def test_what_the_chip_cannot_do_is_an_invalid_target(
    tiny_image: TinyImage, target: str, other: dict[str, int], said: str
) -> None:
    with pytest.raises(InvalidTarget, match=said):
        talk(tiny_image(target), board(target, **other))
