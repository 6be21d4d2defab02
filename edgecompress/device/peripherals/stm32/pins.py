"""GPIO: the same registers in every family (RM0090 section 8.4)."""

from __future__ import annotations

from edgecompress.device.peripherals.base import Peripheral, Surroundings
from edgecompress.device.peripherals.stm32.chip import Chip, field

_PORTS = "ABCDEFGHI"
_PORT_BYTES = 0x400
_MODE, _FUNCTION_LOW = 0x00, 0x20
_LAST = 0x24
_ALTERNATE = 2


class Gpio(Peripheral):
    """Ports A to I; all that is asked of them is which function a pin has."""

    def __init__(self, chip: Chip, surroundings: Surroundings) -> None:
        super().__init__("GPIO", chip.gpio_base, _PORT_BYTES * len(_PORTS), surroundings)
        self._chip = chip
        self._registers: dict[int, int] = {}

    def _check(self, did: str, offset: int) -> None:
        port, register = divmod(offset, _PORT_BYTES)
        if register > _LAST:
            self.refuse(did, offset)
        if not self._chip.bit(self._chip.gpio_enable_register, port):
            self.halt(f"{did} GPIO{_PORTS[port]} while its clock is off")

    def read(self, offset: int) -> int:
        self._check("read", offset)
        return self._registers.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        self._check("wrote to", offset)
        self._registers[offset] = value

    def fault_of_pin(self, pin: str, uart: str, functions: frozenset[int]) -> str | None:
        """What keeps `pin` ("PD8") from being one of `uart`'s; None when nothing does."""
        base = _PORTS.index(pin[1]) * _PORT_BYTES
        number = int(pin[2:])
        if field(self._registers.get(base + _MODE, 0), 2 * number, 2) != _ALTERNATE:
            return f"uses {uart} while pin {pin} is not in alternate function mode"
        register = base + _FUNCTION_LOW + 4 * (number // 8)
        chosen = field(self._registers.get(register, 0), 4 * (number % 8), 4)
        if chosen not in functions:
            allowed = " or ".join(map(str, sorted(functions)))
            return (
                f"uses {uart} while pin {pin} has alternate function {chosen}; {uart} is function "
                f"{allowed}"
            )
        return None
