"""Espressif ESP32-C3: what its ROM does with an image, watchdogs, clocks, UART0, pins, identity.

Registers: ESP32-C3 Technical Reference Manual v1.2, in the chapters the port names.
"""

from __future__ import annotations

import struct
from typing import Any

from edgecompress.device.peripherals.base import (
    ControlRegister,
    Peripheral,
    SerialLine,
    Surroundings,
)
from edgecompress.errors import InvalidTarget

_UART0 = 0x60000000
_RX_PIN, _TX_PIN = 20, 21
_MAGIC = 0xAEDB041D
_MAPPED_BYTES = 4 << 20
_CLOCKS_HZ = (80_000_000, 160_000_000)
# The virtual chip's MAC address: 02 (locally administered) and five zeros but the last.
_MAC_LOW, _MAC_HIGH = 0x00000001, 0x0200


def boot(_engine: Any, surroundings: Surroundings) -> int:
    """Direct boot: two magic words, then the entry. Halts where the ROM would not jump."""
    flash = surroundings.profile.region("flash")
    magic = struct.unpack("<II", surroundings.read_memory(flash.origin, 8))
    if magic != (_MAGIC, _MAGIC):
        surroundings.halt(
            f"begins with {magic[0]:#010x} {magic[1]:#010x}, not twice {_MAGIC:#010x}: the ROM "
            f"does not boot it directly"
        )
    return flash.origin + 8


def peripherals(surroundings: Surroundings) -> list[Peripheral]:
    """The blocks the esp32c3 port uses.

    Raises:
        InvalidTarget: a clock, UART or flash size this chip does not have.
    """
    profile = surroundings.profile
    if profile.core.clock_hz not in _CLOCKS_HZ:
        raise InvalidTarget(
            f"{profile.name}: core.clock_hz is {profile.core.clock_hz}, but the PLL gives the core "
            f"80 MHz or 160 MHz."
        )
    if profile.console.base_address != _UART0:
        raise InvalidTarget(
            f"{profile.name}: console.base_address is {profile.console.base_address:#010x}, but "
            f"the port uses UART0 at {_UART0:#010x}."
        )
    if profile.region("flash").size > _MAPPED_BYTES:
        raise InvalidTarget(f"{profile.name}: direct boot maps 4 MiB of flash and no more.")
    system = System(surroundings)
    pins = Pins(surroundings)
    watchdogs = [
        Watchdog("RTC_CNTL", 0x60008000, 0x800, 0x90, 0xA8, surroundings),
        Watchdog("TIMG0", 0x6001F000, 0x1000, 0x48, 0x64, surroundings),
        Watchdog("TIMG1", 0x60020000, 0x1000, 0x48, 0x64, surroundings),
    ]
    # TIMG1's is off after reset.
    watchdogs[2].running = False
    return [
        system,
        pins,
        *watchdogs,
        Efuse(surroundings),
        Uart(surroundings, system, pins, watchdogs),
    ]


def control_registers(surroundings: Surroundings) -> dict[int, ControlRegister]:
    """mpcer, mpcmr and mpccr ("ESP-RISC-V CPU"): the core's one performance counter."""
    counter = CycleCounter(surroundings)
    return {
        0x7E0: _Part(counter, "event"),
        0x7E1: _Part(counter, "mode"),
        0x7E2: _Part(counter, "count"),
    }


class CycleCounter:
    """Counts executed instructions where the chip counts cycles."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        # After reset it would count cycles but is told to count nothing (mpcer 0).
        self._event, self._mode, self._start = 0, 1, 0

    def read(self, part: str) -> int:
        if part != "count":
            return self._event if part == "event" else self._mode
        if self._event != 1 or self._mode != 1:
            self._surroundings.halt(
                f"read mpccr while it does not count cycles and wrap (mpcer {self._event:#x}, "
                f"mpcmr {self._mode:#x})"
            )
        return (self._surroundings.instructions() - self._start) & 0xFFFFFFFF

    def write(self, part: str, value: int) -> None:
        if part == "event":
            self._event = value
        elif part == "mode":
            self._mode = value
        else:
            self._start = self._surroundings.instructions() - value


class _Part:
    """One register of the counter."""

    def __init__(self, counter: CycleCounter, part: str) -> None:
        self._counter, self._part = counter, part

    def read(self) -> int:
        return self._counter.read(self._part)

    def write(self, value: int) -> None:
        self._counter.write(self._part, value)


class System(Peripheral):
    """Clock source and divider of the core, clocks and resets of the blocks."""

    _CPU_PER_CONF, _CLOCKS, _RESETS, _SYSCLK = 0x08, 0x10, 0x18, 0x58

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__("SYSTEM", 0x600C0000, 0x1000, surroundings)
        # As the ROM leaves them: core on half the crystal. UART0's clock and reset the other way
        # round than after reset, so that a port which leaves them alone is found out.
        self._registers = {
            self._CPU_PER_CONF: 0xC,
            self._CLOCKS: 0xF9C1E06F & ~(1 << 2 | 1 << 24),
            self._RESETS: 1 << 2 | 1 << 24,
            self._SYSCLK: 1,
        }

    @property
    def core_hz(self) -> int:
        """What the core runs at."""
        source, conf = self._registers[self._SYSCLK] >> 10 & 3, self._registers[0x08]
        crystal_hz = int(self.surroundings.profile.console.settings["crystal_hz"])
        if source != 1:
            return crystal_hz // ((self._registers[self._SYSCLK] & 0x3FF) + 1)
        return _CLOCKS_HZ[conf & 1]

    def uart_fault(self) -> str:
        """Why UART0 cannot work; empty when it can."""
        both = 1 << 2 | 1 << 24
        if self._registers[self._CLOCKS] & both != both:
            return "without its clock or its memory's (SYSTEM_PERIP_CLK_EN0)"
        if self._registers[self._RESETS] & both:
            return "while it is in reset (SYSTEM_PERIP_RST_EN0)"
        return ""

    def read(self, offset: int) -> int:
        return self._registers[offset] if offset in self._registers else super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if offset not in self._registers:
            super().write(offset, value)
        elif offset == self._CPU_PER_CONF and (value & 3 > 1 or not value & 4):
            self.halt(f"wrote {value:#x} to SYSTEM_CPU_PER_CONF: not 80 or 160 MHz of 480 MHz")
        elif offset == self._SYSCLK and value >> 10 & 3 > 1:
            self.halt("clocked the core from a source that is not modelled")
        self._registers[offset] = value


class Pins(Peripheral):
    """IO MUX: function, input and pull-up of each pin."""

    _FUNCTION_SHIFT, _INPUT = 12, 1 << 9

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__("IO_MUX", 0x60009000, 0x1000, surroundings)
        # After reset every pin is a GPIO (function 1) with its input off.
        self._pins: dict[int, int] = {}

    def fault(self, pin: int, *, sends: bool) -> str:
        """Why a pin is not UART0's; empty when it is."""
        value = self._pins.get(pin, 1 << self._FUNCTION_SHIFT)
        function = value >> self._FUNCTION_SHIFT & 7
        if function != 0:
            return f"while GPIO{pin} has function {function}, not 0 (UART0)"
        return "" if sends or value & self._INPUT else f"while the input of GPIO{pin} is off"

    def read(self, offset: int) -> int:
        if not 4 <= offset <= 4 + 4 * 21:
            return super().read(offset)
        return self._pins.get(offset // 4 - 1, 1 << self._FUNCTION_SHIFT)

    def write(self, offset: int, value: int) -> None:
        if not 4 <= offset <= 4 + 4 * 21:
            super().write(offset, value)
        self._pins[offset // 4 - 1] = value


class Watchdog(Peripheral):
    """A watchdog behind its write protection; RTC_CNTL also has the super watchdog."""

    _KEY, _SUPER_KEY = 0x50D83AA1, 0x8F1D312A
    _SUPER_CONFIG, _SUPER_PROTECT = 0xAC, 0xB0

    def __init__(
        self,
        name: str,
        base: int,
        size: int,
        config: int,
        protect: int,
        surroundings: Surroundings,
    ) -> None:
        super().__init__(name, base, size, surroundings)
        self._config, self._protect = config, protect
        self._has_super = name == "RTC_CNTL"
        self.running, self._super_running = True, self._has_super
        self._unlocked = self._super_unlocked = False

    def bites(self) -> bool:
        """Whether it would reset the chip sooner or later."""
        return self.running or self._super_running

    def read(self, offset: int) -> int:
        if offset == self._config:
            return int(self.running) << 31
        if self._has_super and offset == self._SUPER_CONFIG:
            return int(not self._super_running) << 31
        return super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if offset == self._protect:
            self._unlocked = value == self._KEY
        elif self._has_super and offset == self._SUPER_PROTECT:
            self._super_unlocked = value == self._SUPER_KEY
        elif offset == self._config:
            if self._unlocked:
                self.running = bool(value >> 31)
            else:
                self.halt(f"wrote to the watchdog of {self.name} without unlocking it")
        elif self._has_super and offset == self._SUPER_CONFIG:
            if self._super_unlocked:
                # SWD_AUTO_FEED_EN or SWD_DISABLE.
                self._super_running = not value >> 30
            else:
                self.halt("wrote to the super watchdog without unlocking it")
        else:
            super().write(offset, value)


class Efuse(Peripheral):
    """The MAC address."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__("EFUSE", 0x60008800, 0x800, surroundings)

    def read(self, offset: int) -> int:
        if offset == 0x44:
            return _MAC_LOW
        return _MAC_HIGH if offset == 0x48 else super().read(offset)


class Uart(Peripheral):
    """UART0: registers take effect in its core once UART_REG_UPDATE carries them over."""

    _FIFO, _DIVIDER, _STATUS, _CONF0, _CLOCK, _ID = 0x00, 0x14, 0x1C, 0x20, 0x78, 0x80
    _KEPT = (0x14, 0x20, 0x78)
    _CRYSTAL, _CLOCKS_ON, _8N1 = 3, 1 << 22 | 1 << 24 | 1 << 25, 1 << 28 | 3 << 2 | 1 << 4
    _BAUD_TOLERANCE = 0.02

    def __init__(
        self, surroundings: Surroundings, system: System, pins: Pins, watchdogs: list[Watchdog]
    ) -> None:
        super().__init__("UART0", _UART0, 0x1000, surroundings)
        self._system, self._pins, self._watchdogs = system, pins, watchdogs
        self._line = SerialLine(surroundings.console)
        self._written: dict[int, int] = {}
        self._effective: dict[int, int] = {}
        self._id = 1 << 30

    def read(self, offset: int) -> int:
        if offset == self._STATUS:
            self._check(sends=False)
            return int(self._line.poll())
        if offset == self._FIFO:
            self._check(sends=False)
            return self._line.receive()
        self._line.busy()
        if offset == self._ID:
            return self._id
        return self._written.get(offset, 0) if offset in self._KEPT else super().read(offset)

    def write(self, offset: int, value: int) -> None:
        self._line.busy()
        if fault := self._system.uart_fault():
            self.halt(f"used UART0 {fault}")
        elif offset == self._FIFO:
            if self._check(sends=True):
                self._line.send(value)
        elif offset == self._ID:
            self._id = value & ~(1 << 31)
            if value >> 31:
                self._effective = dict(self._written)
        elif offset in self._KEPT:
            self._written[offset] = value
        else:
            super().write(offset, value)

    def _baud(self) -> float:
        """What the divider makes of the crystal."""
        divider = self._effective.get(self._DIVIDER, 0)
        sixteenths = (divider & 0xFFF) << 4 | divider >> 20 & 15
        crystal_hz = int(self.surroundings.profile.console.settings["crystal_hz"])
        return crystal_hz * 16 / sixteenths if sixteenths else 0.0

    def _check(self, *, sends: bool) -> bool:
        """Whether a byte would travel as the profile says; halts with the reason otherwise."""
        profile, clock = self.surroundings.profile, self._effective.get(self._CLOCK, 0)
        fault = self._system.uart_fault() or self._pins.fault(
            _TX_PIN if sends else _RX_PIN, sends=sends
        )
        if clock >> 20 & 3 != self._CRYSTAL or clock & self._CLOCKS_ON != self._CLOCKS_ON:
            fault = fault or f"with UART_CLK_CONF {clock:#x}: its clocks do not run off the crystal"
        elif clock & 0xFFFFF:
            fault = fault or f"with UART_CLK_CONF {clock:#x}, whose divider is not modelled"
        elif self._effective.get(self._CONF0, 0) != self._8N1:
            fault = fault or f"with UART_CONF0 {self._effective.get(self._CONF0, 0):#x}, not 8N1"
        elif abs(self._baud() / profile.console.baud - 1) > self._BAUD_TOLERANCE:
            fault = fault or f"at {self._baud():.0f} baud; the profile says {profile.console.baud}"
        elif self._system.core_hz != profile.core.clock_hz:
            fault = fault or (
                f"while the core runs at {self._system.core_hz} Hz; the profile says "
                f"{profile.core.clock_hz} Hz"
            )
        elif biting := [watchdog.name for watchdog in self._watchdogs if watchdog.bites()]:
            fault = fault or f"while a watchdog of {', '.join(biting)} is going to reset the chip"
        if fault:
            self.halt(f"used UART0 {fault}")
        return not fault
