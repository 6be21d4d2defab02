"""STM32U5 with TrustZone off: RM0456.

Clocks section 11.8, power 10.10 and 10.5.4, flash 7.3.3, instruction cache 8.7.
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

_RCC, _PWR, _FLASH, _ICACHE = 0x46020C00, 0x46020800, 0x40022000, 0x40030400
_CR, _CFGR1, _CFGR2, _CFGR3 = _RCC, _RCC + 0x1C, _RCC + 0x20, _RCC + 0x24
_PLL1CFGR, _PLL1DIVR = _RCC + 0x28, _RCC + 0x34
_AHB2ENR1, _AHB3ENR, _APB1ENR1, _APB2ENR, _APB3ENR = (
    _RCC + offset for offset in (0x8C, 0x94, 0x9C, 0xA4, 0xA8)
)
_VOSR, _SVMCR = _PWR + 0x0C, _PWR + 0x10
_ICACHE_CR, _ICACHE_SR = _ICACHE, _ICACHE + 0x04
_HSION, _HSEON, _HSEBYP, _PLL1ON = 8, 16, 18, 24
_BOOSTRDY, _VOSRDY, _BOOSTEN, _PWREN = 14, 15, 18, 2
_MSI_HZ, _HSI_HZ = 4_000_000, 16_000_000
_MHZ = 1_000_000
# RM0456 10.5.4: VOSR.VOS, 0 being range 4, -> (fastest core, fastest without the booster, MHz a
# wait state); 7.3.3 for the last.
_RANGES = {3: (160, 55, 32), 2: (110, 55, 30), 1: (55, 55, 24), 0: (25, 25, 12)}


class U5(Chip):
    """STM32U535 to U5G9."""

    blocks = (
        ("RCC", _RCC, 0x400), ("PWR", _PWR, 0x400), ("flash interface", _FLASH, 0x400),
        ("ICACHE", _ICACHE, 0x400),
    )  # fmt: skip
    gpio_base = 0x42020000
    gpio_enable_register = _AHB2ENR1
    unique_id_base = 0x0BFA0700

    def reset_values(self) -> dict[int, int]:
        return {
            _CR: 0x35, _CFGR1: 0, _CFGR2: 0x6000, _CFGR3: 0, _PLL1CFGR: 0, _PLL1DIVR: 0x01010280,
            _AHB2ENR1: 0xD0000100 & ~0x1FF, _AHB3ENR: 0, _APB1ENR1: 0, _APB2ENR: 0, _APB3ENR: 0,
            _VOSR: 0, _SVMCR: 0, _FLASH: 0x1, _ICACHE_CR: 0x4, _ICACHE_SR: 0,
        }  # fmt: skip

    def _hse_ready(self) -> bool:
        return self.bit(_CR, _HSEON) and self.crystal_hz > 0

    def _source_ready(self) -> bool:
        source = field(self.values[_PLL1CFGR], 0, 2)
        return {0: False, 1: True, 2: self.bit(_CR, _HSION), 3: self._hse_ready()}[source]

    def _pll_ready(self) -> bool:
        return self.bit(_CR, _PLL1ON) and self._source_ready()

    def _boosted(self) -> bool:
        """The booster runs on the PLL's source (RM0456 10.5.4)."""
        return self.bit(_VOSR, _BOOSTEN) and self._source_ready()

    def status(self, address: int) -> int:
        if address == _CR:
            ready = 1 << 2 | self.bit(_CR, _HSION) << 10 | self._hse_ready() << 17
            return ready | self._pll_ready() << 25
        if address == _CFGR1:
            return field(self.values[_CFGR1], 0, 2) << 2
        return self._boosted() << _BOOSTRDY | 1 << _VOSRDY if address == _VOSR else 0

    def status_mask(self, address: int) -> int:
        ready = 1 << 2 | 1 << 10 | 1 << 17 | 1 << 25
        voltage = 1 << _BOOSTRDY | 1 << _VOSRDY
        return {_CR: ready, _CFGR1: 3 << 2, _VOSR: voltage, _ICACHE_SR: ~0}.get(address, 0)

    def faults_of_write(self, address: int, old: int, new: int) -> Iterator[str]:
        if _PWR <= address < _PWR + 0x400 and not self.bit(_AHB3ENR, _PWREN):
            yield "wrote to PWR while its clock is off"
        if address in (_PLL1CFGR, _PLL1DIVR) and old != new and self.bit(_CR, _PLL1ON):
            yield "changed PLL1's factors while it is on"
        if address == _PLL1CFGR and (old ^ new) & 0xF << 12 and self.bit(_VOSR, _BOOSTEN):
            yield "changed the booster's divider while the booster is on"
        if address == _CR:
            yield from self.faults_of_crystal(
                bool(new >> _HSEON & 1), bool(new >> _HSEBYP & 1), bool(old >> _HSEON & 1)
            )
            if new & ~old & 1 << _PLL1ON:
                yield from self._pll_faults()
        if address == _VOSR and new & ~old & 1 << _BOOSTEN:
            yield from self._booster_faults()
        if address == _CFGR1 and new & 3 == 3 and not self._pll_ready():
            yield "switched the core to PLL1 before it is ready"
        if address == _CFGR1 and new & 3 == 3 != old & 3 and self._step_is_too_high():
            yield "went beyond 80 MHz in one step; half of it must come first"

    def _step_is_too_high(self) -> bool:
        return ahb_divided(self._pll_hz(), field(self.values[_CFGR2], 0, 4)) > 80 * _MHZ

    def _source_hz(self) -> int:
        source = field(self.values[_PLL1CFGR], 0, 2)
        return {0: 0, 1: _MSI_HZ, 2: _HSI_HZ, 3: self.crystal_hz}[source]

    def _pll_input_hz(self) -> float:
        return self._source_hz() / (field(self.values[_PLL1CFGR], 8, 4) + 1)

    def _vco_hz(self) -> float:
        return self._pll_input_hz() * (field(self.values[_PLL1DIVR], 0, 9) + 1)

    def _pll_hz(self) -> int:
        return round(self._vco_hz() / (field(self.values[_PLL1DIVR], 24, 7) + 1))

    def _booster_faults(self) -> Iterator[str]:
        code = field(self.values[_PLL1CFGR], 12, 4)
        hz = self._source_hz() / (2 * code or 1)
        if not 4 * _MHZ <= hz <= 16 * _MHZ:
            yield f"feeds the booster with {hz / _MHZ:g} MHz; 4 to 16 MHz are allowed"

    def _pll_faults(self) -> Iterator[str]:
        if not self._source_ready():
            yield "turned PLL1 on before its source is ready"
            return
        low = 8 if field(self.values[_PLL1CFGR], 2, 2) == 3 else 4
        inputs, vcos = (low * _MHZ, 2 * low * _MHZ), (128 * _MHZ, 544 * _MHZ)
        yield from pll_faults(self._pll_input_hz(), inputs, self._vco_hz(), vcos)
        if not self.bit(_PLL1CFGR, 18):
            yield "turned PLL1 on without its output R"

    def core_hz(self) -> int:
        source = field(self.values[_CFGR1], 0, 2)
        hz = {0: _MSI_HZ, 1: _HSI_HZ, 2: self.crystal_hz, 3: self._pll_hz()}[source]
        return ahb_divided(hz, field(self.values[_CFGR2], 0, 4))

    def core_limit(self) -> tuple[int, str]:
        vos = field(self.values[_VOSR], 16, 2)
        boosted, plain, _step = _RANGES[vos]
        where = f"in voltage range {4 - vos}"
        if self._boosted():
            return boosted * _MHZ, where
        return plain * _MHZ, f"{where} without the booster"

    def flash_waits(self) -> tuple[int, int]:
        step = _RANGES[field(self.values[_VOSR], 16, 2)][2] * _MHZ
        return field(self.values[_FLASH], 0, 4), (self.core_hz() - 1) // step

    def bus_hz(self, bus: str) -> int:
        register, low = {"APB1": (_CFGR2, 4), "APB2": (_CFGR2, 8), "APB3": (_CFGR3, 4)}[bus]
        return divided(self.core_hz(), field(self.values[register], low, 3))

    def bus_limits(self) -> dict[str, int]:
        return dict.fromkeys(("APB1", "APB2", "APB3"), 160 * _MHZ)

    def faults_of_talking(self) -> Iterator[str]:
        settings = self.surroundings.profile.console.settings
        pins = [str(settings[way]) for way in ("tx", "rx")]
        if any(pin[1] == "G" and int(pin[2:]) >= 2 for pin in pins) and not self.bit(_SVMCR, 29):
            yield "uses a pin of port G while PWR_SVMCR.IO2SV cuts its supply off"

    def uarts(self) -> dict[str, UartPlace]:
        places = {
            "USART1": (0x40013800, "APB2", _APB2ENR, 14, {7}),
            "USART2": (0x40004400, "APB1", _APB1ENR1, 17, {3, 7}),
            "USART3": (0x40004800, "APB1", _APB1ENR1, 18, {7}),
            "UART4": (0x40004C00, "APB1", _APB1ENR1, 19, {8}),
            "UART5": (0x40005000, "APB1", _APB1ENR1, 20, {8}),
            "LPUART1": (0x46002400, "APB3", _APB3ENR, 6, {8}),
        }
        return {
            name: UartPlace(base, bus, (register, bit), frozenset(functions))
            for name, (base, bus, register, bit, functions) in places.items()
        }
