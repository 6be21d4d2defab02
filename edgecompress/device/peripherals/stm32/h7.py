"""STM32H7: RM0433 (H742, 743, 750, 753), RM0399 (H745, 747, 755, 757), RM0468 (H723 to H735),
RM0455 (H7A3, 7B0, 7B3).

Clocks RM0433 section 8.7, power 6.8, flash 4.3.8, memories 2.4.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from dataclasses import dataclass

from edgecompress.device.peripherals.base import Surroundings
from edgecompress.device.peripherals.stm32.chip import (
    Chip,
    UartPlace,
    ahb_divided,
    divided,
    field,
    pll_faults,
)

_RCC, _PWR, _FLASH, _SYSCFG = 0x58024400, 0x58024800, 0x52002000, 0x58000400
_CR, _CFGR = _RCC, _RCC + 0x10
_D1CFGR, _D2CFGR, _D3CFGR = _RCC + 0x18, _RCC + 0x1C, _RCC + 0x20
_PLLCKSELR, _PLLCFGR, _PLL1DIVR = _RCC + 0x28, _RCC + 0x2C, _RCC + 0x30
_CSR1, _CR3, _D3CR = _PWR + 0x04, _PWR + 0x0C, _PWR + 0x18
_PWRCR = _SYSCFG + 0x2C
_HSION, _HSEON, _HSEBYP, _PLL1ON = 0, 16, 18, 24
_HSI_HZ = 64_000_000
_MHZ = 1_000_000
_D2_SRAM, _D2_SRAM_END = 0x30000000, 0x30048000


@dataclass(frozen=True)
class _Line:
    """Limits in MHz. `scales`: D3CR.VOS -> fastest core.

    `boosted`: fastest core at scale 1 with SYSCFG's over-drive; 0 without that.
    `waits`: AXI clock up to which 0, 1, 2, ... wait states do, at the fastest scale.
    `delays`: AXI clock up to which a WRHIGHFREQ of 0, 1, 2 does.
    `divides_by_one`: whether PLL1's P may be 1.
    `enables`: the address of AHB3ENR, which the other clock enables follow.
    """

    scales: dict[int, int]
    boosted: int
    bus: int
    vco: int
    waits: tuple[int, ...]
    delays: tuple[int, ...]
    divides_by_one: bool
    enables: int = _RCC + 0xD4
    unique_id_base: int = 0x1FF1E800


_LINES = {
    # RM0433 6.6.2 and table 17; data sheet DS12110, silicon revision V.
    "h743": _Line({1: 200, 2: 300, 3: 400}, 480, 240, 960, (70, 140, 210, 225), (70, 185), False),
    # RM0468 table 15 and data sheet DS13313: 520 MHz without the option CPUFREQ_BOOST.
    "h723": _Line(
        {1: 170, 2: 300, 3: 400, 0: 520}, 0, 275, 836, (70, 140, 210, 275), (70, 140, 210), True
    ),
    # RM0455 table 15, 6.6.2 and 8.7; data sheet DS13195. Waits are those of its lowest steps.
    "h7a3": _Line(
        {0: 88, 1: 160, 2: 225, 3: 280}, 0, 280, 560, tuple(range(42, 281, 42)), (), False,
        enables=_RCC + 0x134, unique_id_base=0x08FFF800,
    ),
}  # fmt: skip


class H7(Chip):
    """STM32H723 to H7B3."""

    blocks = (
        ("RCC", _RCC, 0x400), ("PWR", _PWR, 0x400), ("flash interface", _FLASH, 0x400),
        ("SYSCFG", _SYSCFG, 0x400),
    )  # fmt: skip
    gpio_base = 0x58020000

    def __init__(self, surroundings: Surroundings) -> None:
        self._limits = _LINES[str(surroundings.profile.console.settings["line"])]
        self.unique_id_base = self._limits.unique_id_base
        self._ahb2enr = self._limits.enables + 0x08
        self.gpio_enable_register = self._limits.enables + 0x0C
        self._apb1lenr = self._limits.enables + 0x14
        self._apb2enr = self._limits.enables + 0x1C
        self._apb4enr = self._limits.enables + 0x20
        self._supply = str(surroundings.profile.console.settings["supply"])
        self._supply_written = False
        super().__init__(surroundings)

    def reset_values(self) -> dict[int, int]:
        values = {
            _CR: 0x01, _CFGR: 0, _D1CFGR: 0, _D2CFGR: 0, _D3CFGR: 0, _PLLCKSELR: 0x02020200,
            _PLLCFGR: 0x01FF0000, _PLL1DIVR: 0x01010280, _CSR1: 0x4000, _CR3: 0x06, _D3CR: 0x4000,
            _FLASH: 0x37, _PWRCR: 0,
        }  # fmt: skip
        enables = (self._ahb2enr, self.gpio_enable_register, self._apb1lenr, self._apb2enr)
        return values | dict.fromkeys(enables, 0) | {self._apb4enr: 0x00010000}

    def _hse_ready(self) -> bool:
        return self.bit(_CR, _HSEON) and self.crystal_hz > 0

    def _source(self) -> int:
        return field(self.values[_PLLCKSELR], 0, 2)

    def _pll_ready(self) -> bool:
        return self.bit(_CR, _PLL1ON) and (self._source() != 2 or self._hse_ready())

    def status(self, address: int) -> int:
        if address == _CR:
            ready = self.bit(_CR, _HSION) << 2 | self._hse_ready() << 17
            return ready | self._pll_ready() << 25
        if address == _CFGR:
            return field(self.values[_CFGR], 0, 3) << 3
        if address in (_CSR1, _D3CR):
            # The supply must be chosen before the core's voltage can be (RM0433 6.4.1).
            return self._supply_written << 13
        return 0

    def status_mask(self, address: int) -> int:
        masks = {_CR: 1 << 2 | 1 << 17 | 1 << 25, _CFGR: 7 << 3, _CSR1: ~0, _D3CR: 1 << 13}
        return masks.get(address, 0)

    def faults_of_write(self, address: int, old: int, new: int) -> Iterator[str]:
        if address == _PWRCR and not self.bit(self._apb4enr, 1):
            yield "wrote to SYSCFG while its clock is off"
        if address == _PWRCR and new & 1 and field(self.values[_D3CR], 14, 2) != 3:
            yield "boosted the core's voltage below scale 1"
        if address in (_PLLCKSELR, _PLLCFGR, _PLL1DIVR) and old != new and self.bit(_CR, _PLL1ON):
            yield "changed PLL1's factors while it is on"
        if address == _CR3:
            yield from self._supply_faults(new)
        if address == _CR:
            yield from self.faults_of_crystal(
                bool(new >> _HSEON & 1), bool(new >> _HSEBYP & 1), bool(old >> _HSEON & 1)
            )
            if new & ~old & 1 << _PLL1ON:
                yield from self._pll_faults()
        if address == _CFGR and new & 7 == 3 and not self._pll_ready():
            yield "switched the core to PLL1 before it is ready"
        if address == _CFGR and new & 7 == 2 and not self._hse_ready():
            yield "switched the core to the crystal before it is ready"

    def _supply_faults(self, new: int) -> Iterator[str]:
        wanted = {"external": 1, "ldo": 2, "smps": 4}[self._supply]
        if new & 7 != wanted:
            yield f"wrote {new & 7} as the supply in PWR_CR3; its {self._supply} is {wanted}"
        if self._supply_written:
            yield "wrote the supply in PWR_CR3 a second time"
        self._supply_written = True

    def _pll_input_hz(self) -> float:
        source = {0: _HSI_HZ, 1: 4 * _MHZ, 2: self.crystal_hz}.get(self._source(), 0)
        return source / max(field(self.values[_PLLCKSELR], 4, 6), 1)

    def _vco_hz(self) -> float:
        return self._pll_input_hz() * (field(self.values[_PLL1DIVR], 0, 9) + 1)

    def _pll_faults(self) -> Iterator[str]:
        if self._source() == 2 and not self._hse_ready():
            yield "turned PLL1 on before its crystal is ready"
            return
        configuration = self.values[_PLLCFGR]
        # RM0433 8.7.11: PLL1RGE names the input's range, PLL1VCOSEL the VCO's.
        low = _MHZ << field(configuration, 2, 2)
        vcos = (150 * _MHZ, 420 * _MHZ) if configuration & 2 \
            else (192 * _MHZ, self._limits.vco * _MHZ)  # fmt: skip
        yield from pll_faults(self._pll_input_hz(), (low, 2 * low), self._vco_hz(), vcos)
        if not configuration & 1 << 16:
            yield "turned PLL1 on without its output P"
        p = field(self.values[_PLL1DIVR], 9, 7) + 1
        if p % 2 and not (p == 1 and self._limits.divides_by_one):
            yield f"divides PLL1 by {p}, which is not even"

    def _system_hz(self) -> int:
        source = field(self.values[_CFGR], 0, 3)
        if source == 3:
            return round(self._vco_hz() / (field(self.values[_PLL1DIVR], 9, 7) + 1))
        return self.crystal_hz if source == 2 else _HSI_HZ

    def core_hz(self) -> int:
        return ahb_divided(self._system_hz(), field(self.values[_D1CFGR], 8, 4))

    def core_limit(self) -> tuple[int, str]:
        vos = field(self.values[_D3CR], 14, 2)
        if vos == 3 and self.values[_PWRCR] & 1 and self._limits.boosted:
            return self._limits.boosted * _MHZ, "at voltage scale 0"
        return self._limits.scales.get(vos, 0) * _MHZ, f"with D3CR.VOS {vos} and no boost"

    def _axi_hz(self) -> int:
        return ahb_divided(self.core_hz(), field(self.values[_D1CFGR], 0, 4))

    def flash_waits(self) -> tuple[int, int]:
        return (
            field(self.values[_FLASH], 0, 4),
            bisect.bisect_left(self._limits.waits, self._axi_hz() / _MHZ),
        )

    def bus_hz(self, bus: str) -> int:
        if bus == "AXI":
            return self._axi_hz()
        register, low = {"APB1": (_D2CFGR, 4), "APB2": (_D2CFGR, 8), "APB4": (_D3CFGR, 4)}[bus]
        return divided(self._axi_hz(), field(self.values[register], low, 3))

    def bus_limits(self) -> dict[str, int]:
        bus = self._limits.bus * _MHZ
        return {"AXI": bus, "APB1": bus // 2, "APB2": bus // 2, "APB4": bus // 2}

    def faults_of_talking(self) -> Iterator[str]:
        delay = bisect.bisect_left(self._limits.delays, self._axi_hz() / _MHZ)
        if field(self.values[_FLASH], 4, 2) < delay:
            yield f"left WRHIGHFREQ below {delay} at this flash clock"
        for region in self.surroundings.profile.regions:
            in_second_domain = _D2_SRAM <= region.origin < _D2_SRAM_END
            if in_second_domain and not field(self.values[self._ahb2enr], 29, 2):
                yield f"runs without the clock of {region.name}: AHB2ENR.SRAMxEN"

    def uarts(self) -> dict[str, UartPlace]:
        places = {
            "USART1": (0x40011000, "APB2", 4, {4, 7}), "USART2": (0x40004400, "APB1", 17, {7}),
            "USART3": (0x40004800, "APB1", 18, {7}), "UART4": (0x40004C00, "APB1", 19, {6, 8}),
            "UART5": (0x40005000, "APB1", 20, {8, 14}), "USART6": (0x40011400, "APB2", 5, {7}),
            "UART7": (0x40007800, "APB1", 30, {7, 11}), "UART8": (0x40007C00, "APB1", 31, {8}),
            "LPUART1": (0x58000C00, "APB4", 3, {3, 8}),
        }  # fmt: skip
        enables = {"APB1": self._apb1lenr, "APB2": self._apb2enr, "APB4": self._apb4enr}
        return {
            name: UartPlace(base, bus, (enables[bus], bit), frozenset(functions))
            for name, (base, bus, bit, functions) in places.items()
        }
