"""RP2040's and RP2350's resets and clock tree: RP2040 datasheet 2.14 to 2.18, RP2350's 7.5, 8."""

from __future__ import annotations

from collections.abc import Callable

from edgecompress.device.peripherals.base import Peripheral, Surroundings

_PAGE_BYTES = 0x1000
# RP2040 datasheet 5.6 "System clock", RP2350 datasheet 14.9: the fastest the core is rated for.
_CORE_LIMIT_HZ = {2040: 133_000_000, 2350: 150_000_000}
# RP2040 datasheet 2.18.2, RP2350 datasheet 8.6.2.
_VCO_HZ = (750_000_000, 1_600_000_000)
_FEEDBACK = (16, 320)


def _setting(surroundings: Surroundings, key: str) -> int:
    return int(surroundings.profile.console.settings[key])


class Resets(Peripheral):
    """Every block starts in reset."""

    def __init__(self, base: int, surroundings: Surroundings) -> None:
        super().__init__("RESETS", base, _PAGE_BYTES, surroundings)
        self._held = 0x1FFFFFFF

    def guard(self, name: str, bit: int) -> Callable[[], None]:
        """What a block calls before each access: halts while the block is in reset."""

        def check() -> None:
            if self._held >> bit & 1:
                self.halt(f"used {name} while it is in reset (RESETS bit {bit})")

        return check

    def read(self, offset: int) -> int:
        if offset == 0x0:
            return self._held
        if offset == 0x8:
            return ~self._held & 0x1FFFFFFF
        return super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if offset != 0x0:
            super().write(offset, value)
        self._held = value


class Oscillator(Peripheral):
    """XOSC: stable a few polls after it is enabled; with `crystal_works` False never."""

    crystal_works = True
    _ENABLE, _POLLS_UNTIL_STABLE = 0xFABAA0, 3

    def __init__(self, base: int, surroundings: Surroundings) -> None:
        super().__init__("XOSC", base, _PAGE_BYTES, surroundings)
        self._control = self._startup = self._polls = 0

    @property
    def stable(self) -> bool:
        """Whether the crystal may clock anything."""
        return self.crystal_works and self._polls > self._POLLS_UNTIL_STABLE

    @property
    def hertz(self) -> int:
        """The crystal's frequency; 0 while it is not stable."""
        return _setting(self.surroundings, "crystal_hz") if self.stable else 0

    def read(self, offset: int) -> int:
        if offset == 0x04:
            self._polls += self._control == self._ENABLE
            return int(self.stable) << 31
        return super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if offset == 0x00:
            if value != self._ENABLE:
                self.halt(f"wrote {value:#x} to XOSC CTRL, which takes FABAA0h (on, 1 to 15 MHz)")
            if not self._startup:
                self.halt("started XOSC without a start-up delay (XOSC STARTUP)")
            self._control = value
        elif offset == 0x0C:
            self._startup = value
        else:
            super().write(offset, value)


class Pll(Peripheral):
    """PLL_SYS (RP2040 datasheet 2.18.4): power, feedback and the two dividers behind it."""

    _POWER_RESET, _CORE_AND_VCO, _POST_DIVIDERS = 0x2D, 1 << 0 | 1 << 5, 1 << 3

    def __init__(
        self,
        base: int,
        surroundings: Surroundings,
        oscillator: Oscillator,
        guard: Callable[[], None],
    ) -> None:
        super().__init__("PLL_SYS", base, _PAGE_BYTES, surroundings)
        self._oscillator, self._guard = oscillator, guard
        self._registers = {0x0: 1, 0x4: self._POWER_RESET, 0x8: 0, 0xC: 0x77000}

    @property
    def locked(self) -> bool:
        """Whether the VCO runs."""
        return not self._registers[0x4] & self._CORE_AND_VCO and self._vco_hz > 0

    @property
    def _vco_hz(self) -> int:
        reference = self._registers[0x0] & 63
        return self._oscillator.hertz // reference * self._registers[0x8] if reference else 0

    @property
    def hertz(self) -> int:
        """What leaves the dividers; 0 while anything on the way is off."""
        first, second = self._registers[0xC] >> 16 & 7, self._registers[0xC] >> 12 & 7
        if not self.locked or self._registers[0x4] & self._POST_DIVIDERS or not first * second:
            return 0
        return self._vco_hz // (first * second)

    def read(self, offset: int) -> int:
        self._guard()
        if offset == 0x0:
            return self._registers[0x0] | int(self.locked) << 31
        return self._registers[offset] if offset in self._registers else super().read(offset)

    def write(self, offset: int, value: int) -> None:
        self._guard()
        if offset not in self._registers:
            super().write(offset, value)
        self._registers[offset] = value
        if not self._registers[0x4] & self._CORE_AND_VCO:
            self._check_vco()

    def _check_vco(self) -> None:
        low, high = _VCO_HZ
        if not self._oscillator.hertz:
            self.halt("powered PLL_SYS before the crystal is stable")
        elif not low <= self._vco_hz <= high:
            self.halt(
                f"set the VCO of PLL_SYS to {self._vco_hz / 1e6:g} MHz; it runs at "
                f"{low // 1_000_000} to {high // 1_000_000} MHz"
            )
        elif not _FEEDBACK[0] <= self._registers[0x8] <= _FEEDBACK[1]:
            self.halt(f"set FBDIV of PLL_SYS to {self._registers[0x8]}; it takes 16 to 320")


class Clocks(Peripheral):
    """clk_ref, clk_sys and clk_peri (RP2040 datasheet 2.15.7, RP2350 datasheet 8.1.7)."""

    _REF, _SYS, _PERI = 0x30, 0x3C, 0x48
    _RING_HZ = 6_500_000

    def __init__(
        self, base: int, surroundings: Surroundings, oscillator: Oscillator, pll: Pll
    ) -> None:
        super().__init__("CLOCKS", base, _PAGE_BYTES, surroundings)
        self._oscillator, self._pll = oscillator, pll
        self._registers = {self._REF: 0, self._SYS: 0, self._PERI: 0}

    @property
    def core_hz(self) -> int:
        """clk_sys."""
        if self._registers[self._SYS] & 1:
            return self._pll.hertz
        return self._oscillator.hertz if self._registers[self._REF] & 3 == 2 else self._RING_HZ

    @property
    def peripheral_hz(self) -> int:
        """clk_peri; 0 while it is stopped."""
        return self.core_hz if self._registers[self._PERI] & 1 << 11 else 0

    def read(self, offset: int) -> int:
        if offset == self._REF + 8:
            return 1 << (self._registers[self._REF] & 3)
        if offset == self._SYS + 8:
            return 1 << (self._registers[self._SYS] & 1)
        return self._registers[offset] if offset in self._registers else super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if offset not in self._registers:
            super().write(offset, value)
        before, self._registers[offset] = self._registers.get(offset, 0), value
        if offset == self._REF and value & 3 == 2 and not self._oscillator.stable:
            self.halt("switched clk_ref to the crystal before it is stable")
        if offset == self._SYS:
            self._check_core(before, value)
        if offset == self._PERI and value >> 5 & 7:
            self.halt("fed clk_peri from something other than clk_sys, which is not modelled")

    def _check_core(self, before: int, value: int) -> None:
        if value >> 5 & 7:
            self.halt("chose a source of clk_sys other than PLL_SYS, which is not modelled")
        elif before & 1 and (before ^ value) >> 5 & 7:
            self.halt("changed the auxiliary source of clk_sys while clk_sys runs from it")
        elif value & 1 and not self._pll.hertz:
            self.halt("switched clk_sys to PLL_SYS, which does not run")
        elif self.core_hz > (limit := _CORE_LIMIT_HZ[_setting(self.surroundings, "chip")]):
            self.halt(
                f"set the core to {self.core_hz / 1e6:g} MHz; it is rated {limit // 1_000_000} MHz"
            )
