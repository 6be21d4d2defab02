"""The stm32 port on the virtual boards of its families, and the slips the boards must find."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from spoilt_port import board, fault_on, spoil, talk

from edgecompress.device.peripherals.stm32 import F4, H7, U5
from edgecompress.errors import BuildFailed
from edgecompress.link.image import port_defines
from edgecompress.link.sizes import read_sizes
from edgecompress.link.toolchain import compile_c
from edgecompress.paths import shipped
from edgecompress.target import load_target

TinyImage = Callable[..., Path]

# What runner, protocol and port may take of flash, in bytes; the port itself is about a fifth.
RUNTIME_LIMIT_BYTES = 6300
BOARDS = {
    "stm32f446re": "icache=on dcache=on wait_states=5 scale=0 oscillator=crystal",
    "stm32f746zg": "icache=on dcache=on wait_states=7 scale=0 oscillator=crystal",
    "stm32h743zi": "icache=on dcache=on wait_states=4 scale=0 oscillator=crystal",
    "stm32l4r5zi": "icache=on dcache=on wait_states=5 scale=1 oscillator=internal",
    "stm32u585ai": "icache=on dcache=off wait_states=4 scale=1 oscillator=internal",
}


@pytest.mark.parametrize("target", BOARDS)
def test_every_family_runs_at_its_rated_speed(tiny_image: TinyImage, target: str) -> None:
    profile = load_target(target)
    identity, _ticks = talk(tiny_image(target), profile)
    assert identity.clock_hz == identity.tick_hz == profile.core.clock_hz
    assert identity.clock_source == "registers"
    assert identity.settings == BOARDS[target]
    assert bytes.fromhex(identity.device_id) == b"virtual chip"
    size = read_sizes(tiny_image(target) / "firmware.elf", profile)
    assert size.flash_sections["runtime"] < RUNTIME_LIMIT_BYTES


@pytest.mark.parametrize(
    ("target", "line", "clock_hz"),
    [
        ("stm32f446re", "f401", 84_000_000),
        ("stm32f446re", "f405", 168_000_000),
        ("stm32f446re", "f411", 100_000_000),
        ("stm32l4r5zi", "l476", 80_000_000),
        ("stm32h743zi", "h723", 520_000_000),
        ("stm32h743zi", "h7a3", 280_000_000),
    ],
)
def test_other_lines_of_a_family_keep_their_own_limits(
    tiny_image: TinyImage, tmp_path: Path, target: str, line: str, clock_hz: int
) -> None:
    profile = board(target, line=line, clock_hz=clock_hz)
    image = spoil(tiny_image(target), tmp_path / "image", profile)
    assert talk(image, profile)[0].clock_hz == clock_hz


@pytest.mark.parametrize("target", ["stm32f446re", "stm32h743zi"])
def test_a_crystal_that_never_starts_is_told_and_replaced(
    tiny_image: TinyImage, target: str
) -> None:
    identity, _ticks = talk(tiny_image(target), board(target, crystal_hz=0))
    assert identity.clock_hz == load_target(target).core.clock_hz
    assert identity.settings.endswith("oscillator=internal crystal=failed")


@pytest.mark.parametrize(
    ("target", "chip", "reset_hz"),
    [
        ("stm32f446re", F4, 16_000_000),
        ("stm32h743zi", H7, 64_000_000),
        ("stm32u585ai", U5, 4_000_000),
    ],
)
def test_a_pll_that_never_locks_is_told_and_done_without(
    tiny_image: TinyImage, monkeypatch: pytest.MonkeyPatch, target: str, chip: Any, reset_hz: int
) -> None:
    monkeypatch.setattr(chip, "_pll_ready", lambda _chip: False)
    identity, _ticks = talk(tiny_image(target), load_target(target))
    assert identity.clock_hz == identity.tick_hz == reset_hz
    assert "pll=failed" in identity.settings


@pytest.mark.parametrize("target", ["stm32l4r5zi", "stm32u585ai"])
def test_a_crystal_is_used_where_there_is_one(
    tiny_image: TinyImage, tmp_path: Path, target: str
) -> None:
    profile = board(target, crystal_hz=16_000_000)
    image = spoil(tiny_image(target), tmp_path / "image", profile)
    assert talk(image, profile)[0].settings.endswith("oscillator=crystal")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"crystal_hz": 25_000_000},
            "turned the PLL on with 6.25 MHz at its input; 2 MHz to 4 MHz",
        ),
        ({"crystal_bypass": 0}, "in the wrong mode: the board has a crystal"),
        ({"tx": "PC10"}, "uses USART3 while pin PC10 is not in alternate function mode"),
        ({"uart": "USART2"}, "(4 bytes) at 0x4000480c, where the device has no register"),
        ({"supply": "smps"}, "wrote 2 as the supply in PWR_CR3; its smps is 4"),
    ],
)
def test_an_image_for_another_board_is_found_out(
    tiny_image: TinyImage, other: dict[str, Any], said: str
) -> None:
    assert said in fault_on(tiny_image("stm32h743zi"), board("stm32h743zi", **other))


def test_another_baud_rate_is_found_out(tiny_image: TinyImage) -> None:
    fault = fault_on(tiny_image("stm32f446re"), board("stm32f446re", baud=921_600))
    assert "set USART2 to 115090 baud (divider 391 at 45 MHz), but the console has 921600" in fault


SLIPS = [
    ("stm32f446re", "families/f4_f7.h", "(PORT_CLOCK_HZ - 1u) / 30000000u", "4u",
     "reads flash with 4 wait states at a core clock of 180 MHz, which needs 5"),
    ("stm32f446re", "families/f4.h", "OVER_DRIVE_ABOVE_f446 168000000u",
     "OVER_DRIVE_ABOVE_f446 180000000u",
     "runs the core at 180 MHz, but f446 allows 168 MHz at voltage scale 3 of PWR_CR without"),
    ("stm32f446re", "families/f4.h", "APB1_LIMIT_f446 45000000u", "APB1_LIMIT_f446 90000000u",
     "clocks APB1 with 90 MHz; f446 allows 45 MHz"),
    ("stm32f446re", "port.c", "enable(UART_CLOCKS, JOIN(PORT_UART, _ENABLE));", "",
     "uses USART2 while its clock is off: bit 17 of 0x40023840"),
    ("stm32f446re", "port.c", "(PORT_UART_FUNCTION) << four", "8u << four",
     "uses USART2 while pin PA2 has alternate function 8; USART2 is function 7"),
    ("stm32f446re", "port.c", "enable(&GPIO_CLOCKS, 1u << (pin >> 4));", "",
     "GPIOA while its clock is off"),
    ("stm32f446re", "families/f4_f7.h", "enable(&RCC_APB1ENR, APB1ENR_PWREN);", "",
     "wrote to PWR while its clock is off"),
    ("stm32f746zg", "families/f7.h", "{ start_caches(); }",
     "{ SCB_CCR |= CCR_DATA_CACHE; }", "turned the data cache on after invalidating 0 of its"),
    ("stm32h743zi", "families/h7.h", "enable(&RCC_AHB2ENR, AHB2ENR_SRAMS);", "",
     "runs without the clock of D2"),
    ("stm32h743zi", "families/h7.h", "SYSCFG_PWRCR |= PWRCR_ODEN;", "",
     "runs the core at 480 MHz, but h743 allows 400 MHz"),
    ("stm32h743zi", "families/h7.h", ": 0x24u)", ": 0x14u)", "left WRHIGHFREQ below 2"),
    ("stm32l4r5zi", "port.c", "  connect_pin_supply();\n", "",
     "uses a pin of port G while PWR_CR2.IOSV cuts its supply off"),
    ("stm32l4r5zi", "families/l4.h", "PORT_CLOCK_HZ > BOOST_ABOVE ? CFGR_HPRE_2 : 0", "0",
     "went beyond 80 MHz in one step"),
    ("stm32u585ai", "families/u5.h", "#define BOOST_ABOVE 55000000u",
     "#define BOOST_ABOVE 160000000u",
     "runs the core at 80 MHz, but u585 allows 55 MHz in voltage range 1 without the booster"),
]  # fmt: skip


@pytest.mark.parametrize(("target", "name", "old", "new", "said"), SLIPS)
def test_a_slip_in_the_port_is_a_fault(
    tiny_image: TinyImage, tmp_path: Path, target: str, name: str, old: str, new: str, said: str
) -> None:
    profile = load_target(target)
    image = spoil(tiny_image(target), tmp_path / "image", profile, {old: new}, file=name)
    assert said in fault_on(image, profile)


@pytest.mark.parametrize(
    ("target", "clock_hz", "settings", "said"),
    [
        ("stm32f446re", 216_000_000, {}, "clock_hz is above what this line allows"),
        ("stm32f446re", 180_000_000, {"crystal_hz": 7_372_800}, "cannot make clock_hz of crystal"),
        ("stm32h743zi", 480_000_000, {"uart": "USART2"}, "base_address is not that of uart"),
    ],
)
def test_what_cannot_work_does_not_compile(
    tiny_image: TinyImage, tmp_path: Path, target: str, clock_hz: int, settings: dict[str, Any],
    said: str,
) -> None:  # fmt: skip
    profile = board(target, clock_hz=clock_hz, **settings)
    with pytest.raises(BuildFailed, match=said):
        spoil(tiny_image(target), tmp_path / "image", profile)


def test_the_port_compiles_without_a_warning(tmp_path: Path) -> None:
    for part in ("core", "ports/stm32"):
        shutil.copytree(shipped("runtimes") / part, tmp_path / part)
    for target in BOARDS:
        profile = load_target(target)
        flags = ["-Icore", "-Iports/stm32", "-Wall", "-Wextra", "-Werror"]
        compile_c(
            ["ports/stm32/port.c"], [*flags, *port_defines(profile)], profile, folder=tmp_path
        )
