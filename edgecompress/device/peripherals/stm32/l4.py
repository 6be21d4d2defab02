"""STM32L4 and L4+: RM0351, RM0394; RM0432 (L4P, L4Q, L4R, L4S).

Clocks RM0432 section 6.4, power 5.4 and 5.1.8, flash 3.3.3.
"""

from __future__ import annotations

from collections.abc import Iterator

from edgecompress.device.peripherals.stm32.chip import (
    Chip,
    UartPlace,
    ahb_divided,
    divided,
    field,
    pll_faults,
)

_RCC, _PWR, _FLASH = 0x40021000, 0x40007000, 0x40022000
_CR, _CFGR, _PLLCFGR = _RCC, _RCC + 0x08, _RCC + 0x0C
_AHB2ENR, _APB1ENR1, _APB1ENR2, _APB2ENR = (_RCC + offset for offset in (0x4C, 0x58, 0x5C, 0x60))
_CR1, _CR2, _SR2, _CR5 = _PWR, _PWR + 0x04, _PWR + 0x14, _PWR + 0x80
_HSION, _HSEON, _HSEBYP, _PLLON, _PWREN = 8, 16, 18, 24, 28
_MSI_HZ, _HSI_HZ = 4_000_000, 16_000_000
_MHZ = 1_000_000
# RM0351 6.2.5: the L4's N; RM0432 6.4.4: the L4+'s.
_LARGEST_N = {"l476": 86, "l4r5": 127}


class L4(Chip):
    """STM32L412 to L4S9."""

    blocks = (("RCC", _RCC, 0x400), ("PWR", _PWR, 0x400), ("flash interface", _FLASH, 0x400))
    gpio_base = 0x48000000
    gpio_enable_register = _AHB2ENR
    unique_id_base = 0x1FFF7590

    def reset_values(self) -> dict[int, int]:
        values = {
            _CR: 0x61, _CFGR: 0, _PLLCFGR: 0x1000, _AHB2ENR: 0, _APB1ENR1: 0, _APB1ENR2: 0,
            _APB2ENR: 0, _CR1: 0x200, _CR2: 0, _SR2: 0, _FLASH: 0x600,
        }  # fmt: skip
        return values | {_CR5: 0x100} if self._is_plus else values

    @property
    def _is_plus(self) -> bool:
        return self.line == "l4r5"

    def _hse_ready(self) -> bool:
        return self.bit(_CR, _HSEON) and self.crystal_hz > 0

    def _source_ready(self) -> bool:
        source = field(self.values[_PLLCFGR], 0, 2)
        return {0: False, 1: True, 2: self.bit(_CR, _HSION), 3: self._hse_ready()}[source]

    def _pll_ready(self) -> bool:
        return self.bit(_CR, _PLLON) and self._source_ready()

    def status(self, address: int) -> int:
        if address == _CR:
            ready = 1 << 1 | self.bit(_CR, _HSION) << 10 | self._hse_ready() << 17
            return ready | self._pll_ready() << 25
        return field(self.values[_CFGR], 0, 2) << 2 if address == _CFGR else 0

    def status_mask(self, address: int) -> int:
        ready = 1 << 1 | 1 << 10 | 1 << 17 | 1 << 25
        return {_CR: ready, _CFGR: 3 << 2, _SR2: ~0}.get(address, 0)

    def faults_of_write(self, address: int, old: int, new: int) -> Iterator[str]:
        if _PWR <= address < _PWR + 0x400 and not self.bit(_APB1ENR1, _PWREN):
            yield "wrote to PWR while its clock is off"
        if address == _PLLCFGR and old != new and self.bit(_CR, _PLLON):
            yield "changed the PLL's factors while it is on"
        if address == _CR:
            yield from self.faults_of_crystal(
                bool(new >> _HSEON & 1), bool(new >> _HSEBYP & 1), bool(old >> _HSEON & 1)
            )
            if new & ~old & 1 << _PLLON:
                yield from self._pll_faults()
        if address == _CFGR and new & 3 == 3 and not self._pll_ready():
            yield "switched the core to the PLL before it is ready"
        if address == _CFGR and new & 3 == 3 != old & 3 and self._step_is_too_high(new):
            yield "went beyond 80 MHz in one step; RM0432 5.1.8 wants half of it first"

    def _step_is_too_high(self, configuration: int) -> bool:
        return ahb_divided(self._pll_hz(), field(configuration, 4, 4)) > 80 * _MHZ

    def _pll_input_hz(self) -> float:
        source = field(self.values[_PLLCFGR], 0, 2)
        hz = {0: 0, 1: _MSI_HZ, 2: _HSI_HZ, 3: self.crystal_hz}[source]
        return hz / (field(self.values[_PLLCFGR], 4, 4 if self._is_plus else 3) + 1)

    def _vco_hz(self) -> float:
        return self._pll_input_hz() * field(self.values[_PLLCFGR], 8, 7)

    def _pll_hz(self) -> int:
        return round(self._vco_hz() / (2 * field(self.values[_PLLCFGR], 25, 2) + 2))

    def _pll_faults(self) -> Iterator[str]:
        if not self._source_ready():
            yield "turned the PLL on before its source is ready"
            return
        inputs, vcos = (4 * _MHZ, 16 * _MHZ), (64 * _MHZ, 344 * _MHZ)
        yield from pll_faults(self._pll_input_hz(), inputs, self._vco_hz(), vcos)
        n = field(self.values[_PLLCFGR], 8, 7)
        if not 8 <= n <= _LARGEST_N[self.line]:
            yield f"multiplies by {n} in the PLL; 8 to {_LARGEST_N[self.line]} are allowed"
        if not self.bit(_PLLCFGR, 24):
            yield "turned the PLL on without its output R"

    def core_hz(self) -> int:
        source = field(self.values[_CFGR], 0, 2)
        hz = {0: _MSI_HZ, 1: _HSI_HZ, 2: self.crystal_hz, 3: self._pll_hz()}[source]
        return ahb_divided(hz, field(self.values[_CFGR], 4, 4))

    def core_limit(self) -> tuple[int, str]:
        if field(self.values[_CR1], 9, 2) != 1:
            return 26 * _MHZ, "in voltage range 2"
        if self._is_plus and not self.bit(_CR5, 8):
            return 120 * _MHZ, "in boosted range 1"
        return 80 * _MHZ, "in voltage range 1"

    def flash_waits(self) -> tuple[int, int]:
        step = (20 if self._is_plus else 16) * _MHZ
        return field(self.values[_FLASH], 0, 4), (self.core_hz() - 1) // step

    def bus_hz(self, bus: str) -> int:
        low = 8 if bus == "APB1" else 11
        return divided(self.core_hz(), field(self.values[_CFGR], low, 3))

    def bus_limits(self) -> dict[str, int]:
        fastest = (120 if self._is_plus else 80) * _MHZ
        return {"APB1": fastest, "APB2": fastest}

    def faults_of_talking(self) -> Iterator[str]:
        settings = self.surroundings.profile.console.settings
        pins = [str(settings[way]) for way in ("tx", "rx")]
        if any(pin[1] == "G" and int(pin[2:]) >= 2 for pin in pins) and not self.bit(_CR2, 9):
            yield "uses a pin of port G while PWR_CR2.IOSV cuts its supply off"

    def uarts(self) -> dict[str, UartPlace]:
        places = {
            "USART1": (0x40013800, "APB2", _APB2ENR, 14, {7}),
            "USART2": (0x40004400, "APB1", _APB1ENR1, 17, {3, 7}),
            "USART3": (0x40004800, "APB1", _APB1ENR1, 18, {7}),
            "UART4": (0x40004C00, "APB1", _APB1ENR1, 19, {8}),
            "UART5": (0x40005000, "APB1", _APB1ENR1, 20, {8}),
            "LPUART1": (0x40008000, "APB1", _APB1ENR2, 0, {8}),
        }
        return {
            name: UartPlace(base, bus, (register, bit), frozenset(functions))
            for name, (base, bus, register, bit, functions) in places.items()
        }
