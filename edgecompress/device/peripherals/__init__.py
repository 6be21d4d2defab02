"""The registers of the virtual boards, by the port of the firmware that uses them.

A module here bears a port's name (`Console.port`, a folder of runtimes/ports) and has a function
`peripherals(surroundings) -> list[Peripheral]`; adding the module is all it takes. Where a boot ROM
runs before the image, the module also has `boot(engine, surroundings) -> int`: it does what the
ROM would and returns where execution goes on, or halts. `control_registers(surroundings)` gives the
RISC-V registers that are its maker's own, by number.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

from edgecompress.device.peripherals.base import (
    Console,
    ControlRegister,
    Peripheral,
    SerialLine,
    Surroundings,
)
from edgecompress.errors import DeviceNotFound

__all__ = [
    "Console",
    "ControlRegister",
    "Peripheral",
    "SerialLine",
    "Surroundings",
    "boot_of_port",
    "control_registers_of_port",
    "peripherals_of_port",
]


def peripherals_of_port(port: str) -> Callable[[Surroundings], list[Peripheral]]:
    """What makes the registers of one port's boards.

    Raises:
        DeviceNotFound: no module here models that port's hardware.
    """
    return _module(port).peripherals


def boot_of_port(port: str) -> Callable[[Any, Surroundings], int] | None:
    """What that port's boot ROM does; None where the core starts the image by itself.

    Raises:
        DeviceNotFound: as `peripherals_of_port`.
    """
    return getattr(_module(port), "boot", None)


def control_registers_of_port(
    port: str,
) -> Callable[[Surroundings], dict[int, ControlRegister]] | None:
    """What makes the maker's own control and status registers of that port's core; None without.

    Raises:
        DeviceNotFound: as `peripherals_of_port`.
    """
    return getattr(_module(port), "control_registers", None)


def _module(port: str) -> ModuleType:
    module = f"{__name__}.{port}"
    if importlib.util.find_spec(module) is None:
        raise DeviceNotFound(
            f"The virtual board has no model of the '{port}' port's registers: "
            f"edgecompress/device/peripherals/{port}.py is missing."
        )
    return importlib.import_module(module)
