"""What the STM32 families have in common: registers that obey a clock tree, and its limits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from edgecompress.device.peripherals.base import Peripheral, Surroundings


@dataclass(frozen=True)
class UartPlace:
    """Where a UART is, the bus that clocks it, and how its clock is enabled.

    `bus` is a name `Chip.bus_hz` knows; `enable` is the register's address and the bit's number.
    `functions`: alternate functions that reach it from one pin or another (data sheets).
    """

    base: int
    bus: str
    enable: tuple[int, int]
    functions: frozenset[int]


def field(value: int, low: int, bits: int) -> int:
    """`bits` bits of a register, from bit `low` on."""
    return value >> low & ((1 << bits) - 1)


def divided(hz: int, code: int) -> int:
    """By an APB prescaler: 0xx not at all, 100 by 2 up to 111 by 16."""
    return hz >> (code & 3) + 1 if code & 4 else hz


def ahb_divided(hz: int, code: int) -> int:
    """By an AHB prescaler: 0xxx not at all, 1000 by 2 up to 1111 by 512; there is no 32."""
    return hz >> (1, 2, 3, 4, 6, 7, 8, 9)[code & 7] if code & 8 else hz


def megahertz(hz: float) -> str:
    return f"{hz / 1e6:g} MHz"


class Chip(ABC):
    """The registers of clocks, power and flash of one family, and the rules over them.

    A family lists its registers with their reset values and says what follows from them; this
    class applies a write, asks for what must hold then, and halts the firmware where it does not.

    `self.values`: register address -> what was last written, or the reset value.
    """

    blocks: ClassVar[tuple[tuple[str, int, int], ...]]
    unique_id_base: int
    gpio_base: ClassVar[int]
    gpio_enable_register: int
    has_old_uart: ClassVar[bool] = False

    def __init__(self, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        settings = surroundings.profile.console.settings
        self.line = str(settings["line"])
        self.crystal_hz = int(settings["crystal_hz"])
        self.bypassed = bool(settings["crystal_bypass"])
        self._bypass = False
        self.values = dict(self.reset_values())

    @abstractmethod
    def reset_values(self) -> dict[int, int]:
        """Every register that is modelled."""

    @abstractmethod
    def status(self, address: int) -> int:
        """Bits of a register the hardware sets, as they are now."""

    @abstractmethod
    def faults_of_write(self, address: int, old: int, new: int) -> Iterator[str]:
        """What is wrong with replacing `old` by `new`, each continuing "The firmware ..."."""

    @abstractmethod
    def core_hz(self) -> int:
        """The clock the core runs on now."""

    @abstractmethod
    def core_limit(self) -> tuple[int, str]:
        """The fastest the core may run now, in Hz, and under which circumstance."""

    @abstractmethod
    def flash_waits(self) -> tuple[int, int]:
        """Wait states as set, and as needed at the present clock."""

    @abstractmethod
    def bus_hz(self, bus: str) -> int:
        """The present clock of a bus of `bus_limits`."""

    @abstractmethod
    def bus_limits(self) -> dict[str, int]:
        """Bus -> the fastest it may run, in Hz."""

    @abstractmethod
    def uarts(self) -> dict[str, UartPlace]:
        """The UARTs this family has, by the name the settings use."""

    def faults_of_talking(self) -> Iterator[str]:
        """What else must be in order when the console is used."""
        yield from ()

    def reads(self, address: int) -> int | None:
        """A register's value; None where there is no model of it."""
        if address not in self.values:
            return None
        return self.values[address] | self.status(address)

    def writes(self, address: int, value: int) -> bool:
        """Whether there is a model of the register."""
        if address not in self.values:
            return False
        for fault in self.faults_of_write(address, self.reads(address) or 0, value):
            self.surroundings.halt(fault)
        self.values[address] = value & ~self.status_mask(address)
        for fault in self._faults_of_state():
            self.surroundings.halt(fault)
        return True

    @abstractmethod
    def status_mask(self, address: int) -> int:
        """Bits of a register that a write does not change."""

    def faults_of_crystal(self, on: bool, bypass: bool, was_on: bool) -> Iterator[str]:
        """What is wrong with HSEON and HSEBYP as they are being written."""
        if bypass != self._bypass and was_on:
            yield "changed the bypass of the crystal while its oscillator is on"
        if on and not was_on and self.crystal_hz and bypass != self.bypassed:
            mode = "a clock at OSC_IN" if self.bypassed else "a crystal"
            yield f"started the external oscillator in the wrong mode: the board has {mode}"
        self._bypass = bypass

    def bit(self, address: int, number: int) -> bool:
        return bool(self.values[address] >> number & 1)

    def _faults_of_state(self) -> Iterator[str]:
        hz = self.core_hz()
        limit, circumstance = self.core_limit()
        if hz > limit:
            yield (
                f"runs the core at {megahertz(hz)}, but {self.line} allows {megahertz(limit)} "
                f"{circumstance}"
            )
        have, needed = self.flash_waits()
        if have < needed:
            yield (
                f"reads flash with {have} wait states at a core clock of {megahertz(hz)}, which "
                f"needs {needed}"
            )
        for bus, fastest in self.bus_limits().items():
            if self.bus_hz(bus) > fastest:
                yield (
                    f"clocks {bus} with {megahertz(self.bus_hz(bus))}; {self.line} allows "
                    f"{megahertz(fastest)}"
                )


def pll_faults(input_hz: float, inputs: tuple[int, int], vco_hz: float, vcos: tuple[int, int]) \
        -> Iterator[str]:  # fmt: skip
    """What is wrong with a PLL that is switched on: its input and its VCO against their ranges."""
    for what, hz, (low, high) in (("input", input_hz, inputs), ("VCO", vco_hz, vcos)):
        if not low <= hz <= high:
            yield (
                f"turned the PLL on with {megahertz(hz)} at its {what}; {megahertz(low)} to "
                f"{megahertz(high)} are allowed"
            )


class Block(Peripheral):
    """One block of a chip's registers, as the bus sees it."""

    def __init__(self, name: str, base: int, size: int, chip: Chip) -> None:
        super().__init__(name, base, size, chip.surroundings)
        self._chip = chip

    def read(self, offset: int) -> int:
        value = self._chip.reads(self.base + offset)
        if value is None:
            self.refuse("read", offset)
        return value or 0

    def write(self, offset: int, value: int) -> None:
        if not self._chip.writes(self.base + offset, value):
            self.refuse(f"wrote {value:#x} to", offset)


class UniqueId(Peripheral):
    """96 bits that tell one chip from another; a virtual one says what it is."""

    def read(self, offset: int) -> int:
        return int.from_bytes(b"virtual chip"[offset : offset + 4], "little")
