"""What a virtual board's peripherals are made of.

A peripheral model is strict: firmware that uses a register in a way the chip's manual does not
allow is halted with the reason, so that a port which runs here has at least obeyed the manual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgecompress.target.schema import DeviceProfile


class Console(Protocol):
    """The far end of the UART, as the board sees it."""

    def send(self, byte: int) -> None: ...

    def receive(self, *, wait: bool) -> int | None:
        """The next byte; None when there is none, or when the board is being switched off."""
        ...

    def available(self) -> bool: ...


@dataclass(frozen=True)
class Surroundings:
    """What a peripheral sees of its board.

    Attributes:
        profile: the device.
        console: where UART bytes go and come from.
        instructions: executed so far, the current basic block included whole.
        halt: stops the board as a DeviceFault; the reason continues "The firmware ...".
        read_memory: (address, bytes) -> what DMA would read there, any memory.
        write_memory: (address, data), as DMA does.
    """

    profile: DeviceProfile
    console: Console
    instructions: Callable[[], int]
    halt: Callable[[str], None]
    read_memory: Callable[[int, int], bytes] = lambda _address, size: bytes(size)
    write_memory: Callable[[int, bytes], None] = lambda _address, _data: None


class ControlRegister(Protocol):
    """A control and status register of a RISC-V core that the emulator's core does not have."""

    def read(self) -> int:
        """Its 32 bits."""
        ...

    def write(self, value: int) -> None:
        """`value` has 32 bits."""
        ...


class Peripheral:
    """One block of 32-bit registers.

    `name` is how faults call it; `base` and `size` are in bytes and need not be whole pages.
    Offsets given to `read` and `write` are multiples of 4 below `size`.
    """

    def __init__(self, name: str, base: int, size: int, surroundings: Surroundings) -> None:
        self.name, self.base, self.size = name, base, size
        self.surroundings = surroundings

    def read(self, offset: int) -> int:
        """The register's 32 bits."""
        self.refuse("read", offset)
        return 0

    def write(self, offset: int, value: int) -> None:
        """`value` has 32 bits."""
        self.refuse(f"wrote {value:#x} to", offset)

    def write_part(self, offset: int, value: int, size: int) -> None:
        """A byte (`size` 1) or halfword (2) at `offset`, any multiple of `size`.

        Here it is merged into what `read` answers, as in a plain register; a peripheral whose bus
        does otherwise, or whose reads have side effects, overrides this.
        """
        shift = 8 * (offset & 3)
        mask = (1 << 8 * size) - 1
        whole = self.read(offset & ~3) & ~(mask << shift)
        self.write(offset & ~3, whole | (value & mask) << shift)

    def halt(self, reason: str) -> None:
        """Stops the board; `reason` continues "The firmware ..."."""
        self.surroundings.halt(reason)

    def refuse(self, did: str, offset: int) -> None:
        """Halts for a register there is no model of; `did` is "read" or "wrote to"."""
        self.halt(f"{did} {self.name} register {self.base + offset:#010x}, not modelled")


class SerialLine:
    """A UART's wires: its model asks here for input, and the emulator sleeps while there is none.

    A firmware that waits for input reads a status register over and over. `poll` answers whether
    a byte is there; asked more than `patience` times with nothing sent or received in between, it
    waits for one instead of letting the firmware spin.
    """

    def __init__(self, console: Console, *, patience: int = 1) -> None:
        self._console = console
        self._patience = patience
        self._idle_polls = 0

    def poll(self) -> bool:
        """Whether a byte has arrived; what reading the status register calls."""
        if self._console.available():
            return True
        self._idle_polls += 1
        if self._idle_polls > self._patience:
            self._console.receive(wait=True)
        return self._console.available()

    def busy(self) -> None:
        """The firmware does something other than poll."""
        self._idle_polls = 0

    def receive(self) -> int:
        """The byte that arrived, 0 where none did."""
        self.busy()
        byte = self._console.receive(wait=False)
        return 0 if byte is None else byte

    def send(self, byte: int) -> None:
        self.busy()
        self._console.send(byte & 0xFF)
