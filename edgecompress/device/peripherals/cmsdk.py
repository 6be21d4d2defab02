"""Arm's CMSDK UART and timer (Technical Reference Manual DDI 0479, sections 4.2 and 4.3)."""

from __future__ import annotations

from edgecompress.device.peripherals.base import Peripheral, SerialLine, Surroundings
from edgecompress.errors import InvalidTarget

_BLOCK_BYTES = 0x1000
_LAST_REGISTER = 0x10

_UART_DATA, _UART_STATE = 0x00, 0x04
_UART_RECEIVE_FULL = 2
_TIMER_CONTROL, _TIMER_VALUE, _TIMER_RELOAD = 0x00, 0x04, 0x08


def peripherals(surroundings: Surroundings) -> list[Peripheral]:
    """The console's UART and its timer.

    Raises:
        InvalidTarget: the profile's timer is not a CMSDK one.
    """
    profile = surroundings.profile
    if profile.console.timer != "cmsdk":
        raise InvalidTarget(
            f"{profile.name}: the virtual board has a cmsdk timer, not '{profile.console.timer}'."
        )
    return [Uart(surroundings), Timer(surroundings)]


class _Block(Peripheral):
    """Registers that keep what is written to them."""

    def __init__(self, name: str, base: int, surroundings: Surroundings) -> None:
        super().__init__(name, base, _BLOCK_BYTES, surroundings)
        self.registers: dict[int, int] = {}

    def read(self, offset: int) -> int:
        if offset > _LAST_REGISTER:
            self.refuse("read", offset)
        return self.registers.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        if offset > _LAST_REGISTER:
            self.refuse("wrote", offset)
        self.registers[offset] = value


class Uart(_Block):
    """Always ready to send; receives what the console has."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__("UART", surroundings.profile.console.base_address, surroundings)
        # Sending polls the state once a byte, so a second poll in a row is one for input.
        self._line = SerialLine(surroundings.console)

    def read(self, offset: int) -> int:
        if offset == _UART_STATE:
            return _UART_RECEIVE_FULL if self._line.poll() else 0
        if offset == _UART_DATA:
            return self._line.receive()
        self._line.busy()
        return super().read(offset)

    def write(self, offset: int, value: int) -> None:
        self._line.busy()
        if offset == _UART_DATA:
            self._line.send(value)
        else:
            super().write(offset, value)


class Timer(_Block):
    """Counts down once an executed instruction; 32 bits, reloading at zero."""

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__("timer", surroundings.profile.console.timer_address, surroundings)
        self._start = self._value = 0
        self._running = False

    def _now(self) -> int:
        if not self._running:
            return self._value
        period = self.registers.get(_TIMER_RELOAD, 0) + 1
        elapsed = self.surroundings.instructions() - self._start
        if elapsed <= self._value:
            return self._value - elapsed
        return period - 1 - (elapsed - self._value - 1) % period

    def read(self, offset: int) -> int:
        return self._now() if offset == _TIMER_VALUE else super().read(offset)

    def write(self, offset: int, value: int) -> None:
        self._value = value if offset == _TIMER_VALUE else self._now()
        self._start = self.surroundings.instructions()
        if offset == _TIMER_CONTROL:
            self._running = bool(value & 1)
        if offset != _TIMER_VALUE:
            super().write(offset, value)
