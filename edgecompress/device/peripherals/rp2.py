"""Raspberry Pi RP2040 and RP2350: boot ROM, resets, clock tree, pins, PL011 UART, timers.

Registers: RP2040 datasheet (D40) and RP2350 datasheet (D50), in the sections the port names.
Blocks answer at their plain addresses only, not at the aliases that set and clear bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgecompress.device.peripherals.base import Peripheral, SerialLine, Surroundings
from edgecompress.device.peripherals.rp2_boot import boot
from edgecompress.device.peripherals.rp2_clocks import Clocks, Oscillator, Pll, Resets
from edgecompress.errors import InvalidTarget

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["boot", "peripherals"]

_PAGE_BYTES = 0x1000
# D40 2.2 and 2.14.3, D50 2.2 and 7.5.3: addresses, and bits of RESETS.
_BLOCKS = {
    2040: {
        "resets": 0x4000C000, "clocks": 0x40008000, "io": 0x40014000, "pads": 0x4001C000,
        "xosc": 0x40024000, "pll": 0x40028000, "uart0": 0x40034000, "uart1": 0x40038000,
    },
    2350: {
        "resets": 0x40020000, "clocks": 0x40010000, "io": 0x40028000, "pads": 0x40038000,
        "xosc": 0x40048000, "pll": 0x40050000, "uart0": 0x40070000, "uart1": 0x40078000,
    },
}  # fmt: skip
_RESET_BITS = {
    2040: {"io": 5, "pads": 8, "pll": 12, "timer": 21, "uart0": 22, "uart1": 23},
    2350: {"io": 6, "pads": 9, "pll": 14, "timer": 23, "uart0": 26, "uart1": 27},
}
# D40 table 2 "GPIO functions", D50 table 3: function 2 of these pins.
_UART_PINS = {
    "uart0": {"tx": (0, 12, 16, 28, 32, 44), "rx": (1, 13, 17, 29, 33, 45)},
    "uart1": {"tx": (4, 8, 20, 24, 36, 40), "rx": (5, 9, 21, 25, 37, 41)},
}
_CHIP_ID = (0x67452301, 0xEFCDAB89)


def peripherals(surroundings: Surroundings) -> list[Peripheral]:
    """The blocks the rp2 port uses.

    Raises:
        InvalidTarget: the console names no UART of the chip, or pins that UART does not have.
    """
    profile = surroundings.profile
    chip = int(profile.console.settings["chip"])
    addresses, bits = _BLOCKS[chip], _RESET_BITS[chip]
    uart = _console_uart(surroundings, addresses)
    resets = Resets(addresses["resets"], surroundings)
    oscillator = Oscillator(addresses["xosc"], surroundings)
    pll = Pll(addresses["pll"], surroundings, oscillator, resets.guard("PLL_SYS", bits["pll"]))
    clocks = Clocks(addresses["clocks"], surroundings, oscillator, pll)
    io = Functions(addresses["io"], surroundings, resets.guard("IO_BANK0", bits["io"]))
    pads = Pads(addresses["pads"], surroundings, resets.guard("PADS_BANK0", bits["pads"]))
    blocks: list[Peripheral] = [resets, oscillator, pll, clocks, io, pads]
    guard = resets.guard(uart.upper(), bits[uart])
    blocks.append(Uart(surroundings, clocks, io, pads, guard))
    if chip == 2040:
        watchdog = Watchdog(surroundings)
        timer_guard = resets.guard("TIMER", bits["timer"])
        return [
            *blocks,
            watchdog,
            Timer(surroundings, clocks, watchdog, timer_guard),
            Constants("XIP_CTRL", 0x14000000, {0: 3}, surroundings),
            Constants("SSI", 0x18000000, {}, surroundings, kept={0x00, 0x04, 0x08, 0x14, 0xF4}),
        ]
    blocks += [
        Constants("XIP_CTRL", 0x400C8000, {0: 3}, surroundings),
        Constants("OTP", 0x40130000, {0: _CHIP_ID[0], 4: _CHIP_ID[1]}, surroundings),
    ]
    if profile.core.isa.startswith("rv"):
        blocks.append(PlatformTimer(surroundings))
    return blocks


def _console_uart(surroundings: Surroundings, addresses: dict[str, int]) -> str:
    profile = surroundings.profile
    console = profile.console
    for uart, pins in _UART_PINS.items():
        if console.base_address != addresses[uart]:
            continue
        for wire in ("tx", "rx"):
            if (pin := console.settings[f"{wire}_pin"]) not in pins[wire]:
                raise InvalidTarget(
                    f"{profile.name}: {wire}_pin is {pin}, but {uart.upper()} has its "
                    f"{wire.upper()} on {', '.join(map(str, pins[wire]))}."
                )
        return uart
    known = ", ".join(f"{addresses[uart]:#010x} ({uart.upper()})" for uart in _UART_PINS)
    raise InvalidTarget(
        f"{profile.name}: console.base_address is {console.base_address:#010x}, no UART of the "
        f"chip: {known}."
    )


class Constants(Peripheral):
    """Registers with a value the firmware only reads, and some that keep what is written."""

    def __init__(
        self,
        name: str,
        base: int,
        values: dict[int, int],
        surroundings: Surroundings,
        *,
        kept: set[int] | None = None,
    ) -> None:
        super().__init__(name, base, _PAGE_BYTES, surroundings)
        self.values = values
        self._kept = kept or set()

    def read(self, offset: int) -> int:
        if offset not in self.values and offset not in self._kept:
            return super().read(offset)
        return self.values.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        if offset not in self._kept:
            super().write(offset, value)
        self.values[offset] = value


class Functions(Peripheral):
    """IO_BANK0: which peripheral each pin belongs to (D40 2.19.6.1, D50 9.11.1)."""

    def __init__(self, base: int, surroundings: Surroundings, guard: Callable[[], None]) -> None:
        super().__init__("IO_BANK0", base, _PAGE_BYTES, surroundings)
        self._guard = guard
        self._control: dict[int, int] = {}

    def read(self, offset: int) -> int:
        self._guard()
        return (
            self._control.get(offset // 8, 31) if self._is_control(offset) else super().read(offset)
        )

    def write(self, offset: int, value: int) -> None:
        self._guard()
        if not self._is_control(offset):
            super().write(offset, value)
        self._control[offset // 8] = value

    @staticmethod
    def _is_control(offset: int) -> bool:
        return offset < 48 * 8 and offset % 8 == 4

    def function(self, pin: int) -> int:
        """FUNCSEL of a pin; 31 is none."""
        return self._control.get(pin, 31) & 31


class Pads(Peripheral):
    """PADS_BANK0 (D40 2.19.6.3, D50 9.11.3)."""

    _INPUT_ENABLE, _OUTPUT_DISABLE, _ISOLATED = 1 << 6, 1 << 7, 1 << 8

    def __init__(self, base: int, surroundings: Surroundings, guard: Callable[[], None]) -> None:
        super().__init__("PADS_BANK0", base, _PAGE_BYTES, surroundings)
        self._guard = guard
        is_rp2350 = surroundings.profile.console.settings["chip"] == 2350
        # After reset: pulled down; on RP2350 isolated, and without its input buffer.
        self._reset_value = 0x116 if is_rp2350 else 0x56
        self._pads: dict[int, int] = {}

    def read(self, offset: int) -> int:
        self._guard()
        if not 4 <= offset < 4 + 4 * 48:
            return super().read(offset)
        return self._pads.get(offset // 4 - 1, self._reset_value)

    def write(self, offset: int, value: int) -> None:
        self._guard()
        if not 4 <= offset < 4 + 4 * 48:
            super().write(offset, value)
        self._pads[offset // 4 - 1] = value

    def fault(self, pin: int, *, sends: bool) -> str:
        """Why a pin does not carry the line; empty when it does."""
        pad = self._pads.get(pin, self._reset_value)
        if pad & self._ISOLATED:
            return f"while the pad of GPIO{pin} is isolated (ISO)"
        if sends and pad & self._OUTPUT_DISABLE:
            return f"while the output of GPIO{pin} is disabled (OD)"
        if not sends and not pad & self._INPUT_ENABLE:
            return f"while the input of GPIO{pin} is disabled (IE)"
        return ""


class Uart(Peripheral):
    """A PL011 (D40 4.2.8, D50 12.1.8) that never waits for its own line."""

    _RECEIVE_EMPTY, _TRANSMIT_EMPTY = 1 << 4, 1 << 7
    _FUNCTION, _LINE, _CONTROL = 2, 0x70, 0x301
    # What the far end tolerates.
    _BAUD_TOLERANCE = 0.02

    def __init__(
        self,
        surroundings: Surroundings,
        clocks: Clocks,
        io: Functions,
        pads: Pads,
        guard: Callable[[], None],
    ) -> None:
        super().__init__(
            "UART", surroundings.profile.console.base_address, _PAGE_BYTES, surroundings
        )
        self._clocks, self._io, self._pads, self._guard = clocks, io, pads, guard
        self._line = SerialLine(surroundings.console)
        self._registers: dict[int, int] = {}
        # The divider takes effect when LCR_H is written.
        self._divider = 0

    def read(self, offset: int) -> int:
        self._guard()
        if offset == 0x18:
            self._check(sends=False)
            return self._TRANSMIT_EMPTY | (0 if self._line.poll() else self._RECEIVE_EMPTY)
        if offset == 0x00:
            self._check(sends=False)
            return self._line.receive()
        self._line.busy()
        if offset not in (0x24, 0x28, 0x2C, 0x30):
            return super().read(offset)
        return self._registers.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        self._guard()
        self._line.busy()
        if offset == 0x00:
            if self._check(sends=True):
                self._line.send(value)
            return
        if offset not in (0x24, 0x28, 0x2C, 0x30):
            super().write(offset, value)
        self._registers[offset] = value
        if offset == 0x2C:
            self._divider = self._registers.get(0x24, 0) << 6 | self._registers.get(0x28, 0) & 63

    def _check(self, *, sends: bool) -> bool:
        """Whether a byte would travel as the profile says; halts with the reason otherwise."""
        profile = self.surroundings.profile
        wire = "tx" if sends else "rx"
        pin = int(profile.console.settings[f"{wire}_pin"])
        baud = self._clocks.peripheral_hz * 4 / self._divider if self._divider else 0.0
        fault = self._pads.fault(pin, sends=sends)
        if self._registers.get(0x30, 0) & self._CONTROL != self._CONTROL:
            fault = "while it is not enabled (UARTCR)"
        elif self._registers.get(0x2C, 0) != self._LINE:
            fault = f"with UARTLCR_H {self._registers.get(0x2C, 0):#x}, not 8 bits and FIFOs"
        elif not self._clocks.peripheral_hz:
            fault = "while clk_peri is stopped"
        elif abs(baud / profile.console.baud - 1) > self._BAUD_TOLERANCE:
            fault = f"at {baud:.0f} baud; the profile says {profile.console.baud}"
        elif self._io.function(pin) != self._FUNCTION:
            fault = f"while GPIO{pin} has function {self._io.function(pin)}, not 2 (UART)"
        elif self._clocks.core_hz != profile.core.clock_hz:
            fault = (
                f"while the core runs at {self._clocks.core_hz} Hz; the profile says "
                f"{profile.core.clock_hz} Hz"
            )
        if fault:
            self.halt(f"used the UART {fault}")
        return not fault


class Watchdog(Peripheral):
    """Only its TICK, which makes the microseconds of RP2040's timer (D40 4.7.2)."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__("WATCHDOG", 0x40058000, _PAGE_BYTES, surroundings)
        self._tick = 0

    @property
    def makes_microseconds(self) -> bool:
        """Whether it divides the crystal down to 1 MHz."""
        crystal_hz = int(self.surroundings.profile.console.settings["crystal_hz"])
        return self._tick == 1 << 9 | crystal_hz // 1_000_000

    def read(self, offset: int) -> int:
        return self._tick if offset == 0x2C else super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if offset != 0x2C:
            super().write(offset, value)
        self._tick = value


class Timer(Peripheral):
    """RP2040's 64-bit microseconds (D40 4.6); an executed instruction is a core cycle."""

    def __init__(
        self,
        surroundings: Surroundings,
        clocks: Clocks,
        watchdog: Watchdog,
        guard: Callable[[], None],
    ) -> None:
        super().__init__("TIMER", 0x40054000, _PAGE_BYTES, surroundings)
        self._clocks, self._watchdog, self._guard = clocks, watchdog, guard

    def read(self, offset: int) -> int:
        self._guard()
        if offset not in (0x24, 0x28):
            return super().read(offset)
        if not self._watchdog.makes_microseconds:
            self.halt("read the TIMER while WATCHDOG.TICK does not make microseconds")
            return 0
        now = self.surroundings.instructions() * 1_000_000 // self._clocks.core_hz
        return now >> 32 if offset == 0x24 else now & 0xFFFFFFFF

    def write(self, offset: int, value: int) -> None:
        self._guard()
        super().write(offset, value)


class PlatformTimer(Peripheral):
    """RP2350's RISC-V timer at the core's speed (D50 3.1.8), a part of SIO."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__("SIO", 0xD0000000, _PAGE_BYTES, surroundings)
        self._control = 1

    def read(self, offset: int) -> int:
        if offset not in (0x1B0, 0x1B4):
            return super().read(offset)
        if self._control != 3:
            self.halt("read MTIME while it does not count core cycles (MTIME_CTRL)")
        return self.surroundings.instructions() >> (32 if offset == 0x1B4 else 0) & 0xFFFFFFFF

    def write(self, offset: int, value: int) -> None:
        if offset != 0x1A4:
            super().write(offset, value)
        self._control = value
