"""USART and LPUART: RM0090 section 30.6 (the F4's), RM0385 31.8 (newer), RM0351 41.7 (LPUART)."""

from __future__ import annotations

from edgecompress.device.peripherals.base import Peripheral, SerialLine, Surroundings
from edgecompress.device.peripherals.stm32.chip import Chip, megahertz
from edgecompress.device.peripherals.stm32.pins import Gpio

_BLOCK_BYTES = 0x400
# Both ends sample a frame of ten bits; together they may be 3 to 4 % apart (RM0090 30.3.5), so
# this end gets half of it.
_BAUD_TOLERANCE = 0.02

_TRANSMIT, _RECEIVE = 1 << 3, 1 << 2
_RECEIVED, _SENT, _EMPTY = 1 << 5, 1 << 6, 1 << 7
# Acknowledges of the newer UART: transmitter and receiver are on.
_TRANSMIT_ACKNOWLEDGE, _RECEIVE_ACKNOWLEDGE = 1 << 21, 1 << 22

# The registers' offsets: status, divider, control 1 to 3, flag clear, receive, send.
_OLD = {"status": 0x00, "receive": 0x04, "send": 0x04, "divider": 0x08, "control": 0x0C,
        "control 2": 0x10, "control 3": 0x14}  # fmt: skip
_NEW = {"control": 0x00, "control 2": 0x04, "control 3": 0x08, "divider": 0x0C, "status": 0x1C,
        "clear": 0x20, "receive": 0x24, "send": 0x28}  # fmt: skip


class Uart(Peripheral):
    """The console's UART. It must be clocked, set to the profile's baud rate and reach its pins."""

    def __init__(self, chip: Chip, gpio: Gpio, surroundings: Surroundings) -> None:
        console = surroundings.profile.console
        self._uart = str(console.settings["uart"])
        self._place = chip.uarts()[self._uart]
        super().__init__(self._uart, self._place.base, _BLOCK_BYTES, surroundings)
        self._chip, self._gpio = chip, gpio
        self._pins = {way: str(console.settings[way]) for way in ("tx", "rx")}
        self._offsets = _OLD if chip.has_old_uart else _NEW
        self._registers: dict[int, int] = {}
        # Waiting for an acknowledge and then for room to send are no waiting for input.
        self._line = SerialLine(surroundings.console, patience=4)

    def _value(self, register: str) -> int:
        return self._registers.get(self._offsets[register], 0)

    def _check_clock(self) -> None:
        register, bit = self._place.enable
        if not self._chip.bit(register, bit):
            self.halt(f"uses {self._uart} while its clock is off: bit {bit} of {register:#010x}")

    @property
    def _enable(self) -> int:
        return 1 << 13 if self._offsets is _OLD else 1

    def _check(self, pin: str, direction: int) -> None:
        """Everything that must be in order for a byte to pass."""
        control = self._value("control")
        if not control & self._enable or not control & direction:
            self.halt(f"uses {self._uart} before it is enabled: control register 1 is {control:#x}")
            return
        fault = self._gpio.fault_of_pin(self._pins[pin], self._uart, self._place.functions)
        for reason in [fault, self._fault_of_baud(), *self._chip.faults_of_talking()]:
            if reason is not None:
                self.halt(reason)

    def _fault_of_baud(self) -> str | None:
        divider = self._value("divider")
        hz = self._chip.bus_hz(self._place.bus)
        steps = 256 if self._uart.startswith("LPUART") else 1
        if divider < (0x300 if steps == 256 else 16):
            return f"set the divider of {self._uart} to {divider:#x}, below what it can do"
        wanted = self.surroundings.profile.console.baud
        made = hz * steps / divider
        if abs(made / wanted - 1) > _BAUD_TOLERANCE:
            return (
                f"set {self._uart} to {made:.0f} baud (divider {divider} at {megahertz(hz)}), but "
                f"the console has {wanted}"
            )
        return None

    def read(self, offset: int) -> int:
        self._check_clock()
        if offset == self._offsets["status"]:
            return self._status()
        if offset == self._offsets["receive"]:
            self._check("rx", _RECEIVE)
            return self._line.receive()
        if offset not in self._offsets.values():
            self.refuse("read", offset)
        return self._registers.get(offset, 0)

    def _status(self) -> int:
        control = self._value("control")
        if not control & self._enable:
            return 0
        status = _EMPTY | _SENT if control & _TRANSMIT else 0
        if self._offsets is _NEW:
            status |= _TRANSMIT_ACKNOWLEDGE if control & _TRANSMIT else 0
            status |= _RECEIVE_ACKNOWLEDGE if control & _RECEIVE else 0
        if control & _RECEIVE and self._line.poll():
            status |= _RECEIVED
        return status

    def write(self, offset: int, value: int) -> None:
        self._check_clock()
        if offset == self._offsets["send"]:
            self._check("tx", _TRANSMIT)
            self._line.send(value)
            return
        self._line.busy()
        if offset not in self._offsets.values():
            self.refuse(f"wrote {value:#x} to", offset)
        if offset == self._offsets["divider"] and self._offsets is _NEW \
                and self._value("control") & self._enable:  # fmt: skip
            self.halt(f"changed the divider of {self._uart} while it is enabled")
        self._registers[offset] = value
