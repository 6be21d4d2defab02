"""STM32F4 and F7: RM0090, RM0368, RM0383, RM0390; RM0385, RM0410, RM0431.

Clocks RM0090 section 7.3, power 5.4, flash 3.5.1 and 3.9; the F7's agree but for their limits.
Speeds are the data sheets' (general operating conditions, 2.7 to 3.6 V).
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from edgecompress.device.peripherals.base import Surroundings
from edgecompress.device.peripherals.stm32.chip import (
    Chip,
    UartPlace,
    ahb_divided,
    divided,
    field,
    pll_faults,
)

_RCC, _PWR, _FLASH = 0x40023800, 0x40007000, 0x40023C00
_CR, _PLLCFGR, _CFGR = _RCC, _RCC + 0x04, _RCC + 0x08
_AHB1ENR, _APB1ENR, _APB2ENR = _RCC + 0x30, _RCC + 0x40, _RCC + 0x44
_PWR_CR, _PWR_CSR = _PWR, _PWR + 0x04
_HSION, _HSEON, _HSEBYP, _PLLON = 0, 16, 18, 24
_PLL_FIELDS = 0x3F | 0x1FF << 6 | 3 << 16 | 1 << 22
_OVER_DRIVE, _OVER_DRIVE_SWITCH, _PWREN = 16, 17, 28
_HSI_HZ = 16_000_000
_MHZ = 1_000_000


@dataclass(frozen=True)
class _Line:
    """Limits in MHz; `wait_steps`: the fastest core for 0, 1, 2, ... wait states.

    `scales`: PWR_CR.VOS -> fastest core; `over_drive`: fastest with it, 0 where there is none.
    """

    apb1: int
    apb2: int
    wait_steps: tuple[int, ...]
    scales: dict[int, int]
    over_drive: int = 0
    vos_at_reset: int = 3
    unique_id_base: int = 0x1FFF7A10


_EVERY_30 = tuple(range(30, 241, 30))
# RM0383 3.4.1: wider steps in the F410, F411, F412, F413.
_F411_STEPS = (30, 64, 90, 100)
_BOOSTED_F4 = {1: 120, 2: 144, 3: 168}
_F7_SCALES = {1: 144, 2: 168, 3: 180}

_LINES = {
    "f401": _Line(42, 84, _EVERY_30, {1: 60, 2: 84}, vos_at_reset=2),
    "f405": _Line(42, 84, _EVERY_30, {0: 144, 1: 168}, vos_at_reset=1),
    "f411": _Line(50, 100, _F411_STEPS, {1: 64, 2: 84, 3: 100}, vos_at_reset=2),
    "f429": _Line(45, 90, _EVERY_30, _BOOSTED_F4, over_drive=180),
    "f446": _Line(45, 90, _EVERY_30, _BOOSTED_F4, over_drive=180),
    "f722": _Line(54, 108, _EVERY_30, _F7_SCALES, 216, unique_id_base=0x1FF07A10),
    "f746": _Line(54, 108, _EVERY_30, _F7_SCALES, 216, unique_id_base=0x1FF0F420),
    "f767": _Line(54, 108, _EVERY_30, _F7_SCALES, 216, unique_id_base=0x1FF0F420),
}


class _F4F7(Chip):
    blocks = (("RCC", _RCC, 0x400), ("PWR", _PWR, 0x400), ("flash interface", _FLASH, 0x400))
    gpio_base = 0x40020000
    gpio_enable_register = _AHB1ENR
    functions: ClassVar[dict[str, frozenset[int]]]

    def __init__(self, surroundings: Surroundings) -> None:
        self._limits = _LINES[str(surroundings.profile.console.settings["line"])]
        self.unique_id_base = self._limits.unique_id_base
        super().__init__(surroundings)

    def reset_values(self) -> dict[int, int]:
        return {
            _CR: 0x81, _PLLCFGR: 0x24003010, _CFGR: 0, _AHB1ENR: 0x00100000, _APB1ENR: 0,
            _APB2ENR: 0, _PWR_CR: self._limits.vos_at_reset << 14, _PWR_CSR: 0, _FLASH: 0,
        }  # fmt: skip

    def _hse_ready(self) -> bool:
        return self.bit(_CR, _HSEON) and self.crystal_hz > 0

    def _from_hse(self) -> bool:
        return self.bit(_PLLCFGR, 22)

    def _pll_ready(self) -> bool:
        return self.bit(_CR, _PLLON) and (not self._from_hse() or self._hse_ready())

    def status(self, address: int) -> int:
        if address == _CR:
            ready = self.bit(_CR, _HSION) << 1 | self._hse_ready() << 17
            return ready | self._pll_ready() << 25
        if address == _CFGR:
            return field(self.values[_CFGR], 0, 2) << 2
        if address == _PWR_CSR:
            # The scale chosen is in effect while the PLL is on (RM0090 5.1.4).
            scaled = self._pll_ready() << 14
            over = self.bit(_PWR_CR, _OVER_DRIVE) << 16
            return scaled | over | self.bit(_PWR_CR, _OVER_DRIVE_SWITCH) << 17
        return 0

    def status_mask(self, address: int) -> int:
        return {_CR: 1 << 1 | 1 << 17 | 1 << 25, _CFGR: 3 << 2, _PWR_CSR: ~0}.get(address, 0)

    def faults_of_write(self, address: int, old: int, new: int) -> Iterator[str]:
        changed = old ^ new
        if address in (_PWR_CR, _PWR_CSR) and not self.bit(_APB1ENR, _PWREN):
            yield "wrote to PWR while its clock is off"
        if address == _PLLCFGR and changed & _PLL_FIELDS and self.bit(_CR, _PLLON):
            yield "changed the PLL's factors while it is on"
        if address == _CR and changed & new & 1 << _PLLON:
            yield from self._pll_faults()
        if address == _CR:
            yield from self.faults_of_crystal(
                bool(new >> _HSEON & 1), bool(new >> _HSEBYP & 1), bool(old >> _HSEON & 1)
            )
        if address == _CFGR and new & 3 == 2 and not self._pll_ready():
            yield "switched the core to the PLL before it is ready"
        if address == _CFGR and new & 3 == 1 and not self._hse_ready():
            yield "switched the core to the crystal before it is ready"
        if address == _PWR_CR:
            yield from self._power_faults(old, new)

    def _power_faults(self, old: int, new: int) -> Iterator[str]:
        turned_on = new & ~old
        if turned_on >> _OVER_DRIVE & 1:
            if not self._limits.over_drive:
                yield f"turned over-drive on, which {self.line} does not have"
            elif not self._pll_ready():
                yield "turned over-drive on while the PLL is off"
        if turned_on >> _OVER_DRIVE_SWITCH & 1 and not old >> _OVER_DRIVE & 1:
            yield "switched to over-drive before it is ready"
        if (old ^ new) & 3 << 14 and self.bit(_CR, _PLLON):
            yield "changed the voltage scale while the PLL is on"

    def _pll_input_hz(self) -> float:
        source = self.crystal_hz if self._from_hse() else _HSI_HZ
        return source / max(field(self.values[_PLLCFGR], 0, 6), 1)

    def _vco_hz(self) -> float:
        return self._pll_input_hz() * field(self.values[_PLLCFGR], 6, 9)

    def _pll_faults(self) -> Iterator[str]:
        if self._from_hse() and not self._hse_ready():
            yield "turned the PLL on before its crystal is ready"
            return
        # RM0090 7.3.2 gives the VCO 100 to 432 MHz, RM0368 and RM0383 192 to 432.
        inputs, vcos = (_MHZ, 2 * _MHZ), (192 * _MHZ, 432 * _MHZ)
        yield from pll_faults(self._pll_input_hz(), inputs, self._vco_hz(), vcos)

    def _system_hz(self) -> int:
        source = field(self.values[_CFGR], 0, 2)
        if source == 2:
            return round(self._vco_hz() / (2 * field(self.values[_PLLCFGR], 16, 2) + 2))
        return self.crystal_hz if source == 1 else _HSI_HZ

    def core_hz(self) -> int:
        return ahb_divided(self._system_hz(), field(self.values[_CFGR], 4, 4))

    def core_limit(self) -> tuple[int, str]:
        if self.bit(_PWR_CR, _OVER_DRIVE_SWITCH):
            return self._limits.over_drive * _MHZ, "with over-drive"
        bits = field(self.values[_PWR_CR], 14, 2)
        fastest = self._limits.scales.get(bits, min(self._limits.scales.values()))
        also = " without over-drive" if self._limits.over_drive else ""
        return fastest * _MHZ, f"at voltage scale {bits} of PWR_CR{also}"

    def flash_waits(self) -> tuple[int, int]:
        needed = bisect.bisect_left(self._limits.wait_steps, self.core_hz() / _MHZ)
        return field(self.values[_FLASH], 0, 4), needed

    def bus_hz(self, bus: str) -> int:
        low = 10 if bus == "APB1" else 13
        return divided(self.core_hz(), field(self.values[_CFGR], low, 3))

    def bus_limits(self) -> dict[str, int]:
        return {"APB1": self._limits.apb1 * _MHZ, "APB2": self._limits.apb2 * _MHZ}

    def uarts(self) -> dict[str, UartPlace]:
        places = {
            "USART1": (0x40011000, "APB2", 4), "USART2": (0x40004400, "APB1", 17),
            "USART3": (0x40004800, "APB1", 18), "UART4": (0x40004C00, "APB1", 19),
            "UART5": (0x40005000, "APB1", 20), "USART6": (0x40011400, "APB2", 5),
            "UART7": (0x40007800, "APB1", 30), "UART8": (0x40007C00, "APB1", 31),
        }  # fmt: skip
        enables = {"APB1": _APB1ENR, "APB2": _APB2ENR}
        return {
            name: UartPlace(base, bus, (enables[bus], bit), self.functions[name])
            for name, (base, bus, bit) in places.items()
        }


_SEVEN, _EIGHT = frozenset({7}), frozenset({8})
_F4_FUNCTIONS = {
    "USART1": _SEVEN, "USART2": _SEVEN, "USART3": _SEVEN, "UART4": _EIGHT,
    "UART5": frozenset({7, 8}), "USART6": _EIGHT, "UART7": _EIGHT, "UART8": _EIGHT,
}  # fmt: skip


class F4(_F4F7):
    """STM32F401 to F479."""

    has_old_uart = True
    functions = _F4_FUNCTIONS


class F7(_F4F7):
    """STM32F722 to F779."""

    functions = _F4_FUNCTIONS | {
        "USART1": frozenset({4, 7}), "UART4": frozenset({6, 8}), "UART5": frozenset({1, 7, 8}),
        "UART7": frozenset({8, 12}),
    }  # fmt: skip
