"""STM32: clock tree, power, flash, pins and UARTs of the families the stm32 port knows.

What a model accepts is what ST's reference manual allows, and was written from the manual apart
from the firmware: limits and tables stand here a second time on purpose.
"""

from __future__ import annotations

from edgecompress.device.peripherals.base import Peripheral, Surroundings
from edgecompress.device.peripherals.stm32.chip import Block, Chip, UniqueId
from edgecompress.device.peripherals.stm32.f4_f7 import F4, F7
from edgecompress.device.peripherals.stm32.h7 import H7
from edgecompress.device.peripherals.stm32.l4 import L4
from edgecompress.device.peripherals.stm32.pins import Gpio
from edgecompress.device.peripherals.stm32.u5 import U5
from edgecompress.device.peripherals.stm32.uart import Uart

_FAMILIES: dict[str, type[Chip]] = {"f4": F4, "f7": F7, "h7": H7, "l4": L4, "u5": U5}


def peripherals(surroundings: Surroundings) -> list[Peripheral]:
    """The registers of the family and line the profile's settings name."""
    chip = _FAMILIES[str(surroundings.profile.console.settings["family"])](surroundings)
    gpio = Gpio(chip, surroundings)
    blocks = [Block(name, base, size, chip) for name, base, size in chip.blocks]
    unique_id = UniqueId("unique device ID", chip.unique_id_base, 12, surroundings)
    return [*blocks, gpio, Uart(chip, gpio, surroundings), unique_id]
