"""The bus of a virtual board: which peripheral answers an address."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable

from unicorn.unicorn_py3 import Uc, UcError

from edgecompress.device.peripherals.base import Peripheral
from edgecompress.errors import InvalidTarget

PAGE_BYTES = 4096


class Bus:
    """Maps every page a peripheral lies in, and hands each access to its owner.

    Args:
        engine: the machine, its memories mapped already.
        peripherals: none overlaps another; several may share a page.
        device: for messages.
        halt: stops the board; the reason continues "The firmware ...".

    Raises:
        InvalidTarget: peripherals overlap each other or a memory region.
    """

    def __init__(
        self,
        engine: Uc,
        peripherals: Iterable[Peripheral],
        device: str,
        halt: Callable[[str], None],
    ) -> None:
        self._peripherals = sorted(peripherals, key=lambda peripheral: peripheral.base)
        self._bases = [peripheral.base for peripheral in self._peripherals]
        self._halt = halt
        for one, two in itertools.pairwise(self._peripherals):
            if one.base + one.size > two.base:
                raise InvalidTarget(
                    f"{device}: the {one.name} ({one.size} bytes at {one.base:#010x}) overlaps the "
                    f"{two.name} at {two.base:#010x}."
                )
        for page, peripheral in self._pages().items():
            self._map(engine, page, peripheral, device)

    def _pages(self) -> dict[int, Peripheral]:
        """Page address -> the first peripheral in it."""
        pages: dict[int, Peripheral] = {}
        for peripheral in self._peripherals:
            first = peripheral.base // PAGE_BYTES
            last = (peripheral.base + peripheral.size - 1) // PAGE_BYTES
            for page in range(first, last + 1):
                pages.setdefault(page * PAGE_BYTES, peripheral)
        return pages

    def _map(self, engine: Uc, page: int, peripheral: Peripheral, device: str) -> None:
        def on_read(_engine: Uc, offset: int, size: int, _state: object) -> int:
            return self.read(page + offset, size)

        def on_write(_engine: Uc, offset: int, size: int, value: int, _state: object) -> None:
            self.write(page + offset, value, size)

        try:
            engine.mmio_map(page, PAGE_BYTES, on_read, None, on_write, None)
        except UcError as error:
            raise InvalidTarget(
                f"{device}: the {peripheral.name} at {peripheral.base:#010x} cannot be mapped "
                f"({error}): a memory region lies in its {PAGE_BYTES} byte page."
            ) from None

    def owner(self, address: int) -> Peripheral | None:
        """The peripheral an address belongs to."""
        index = bisect.bisect_right(self._bases, address) - 1
        if index < 0:
            return None
        found = self._peripherals[index]
        return found if address < found.base + found.size else None

    def read(self, address: int, size: int) -> int:
        """`size` bytes (1, 2 or 4), taken out of the register's 32 bits."""
        peripheral = self.owner(address)
        if peripheral is None:
            self._halt(f"read {size} bytes at {address:#010x}, where the device has no register")
            return 0
        offset = address - peripheral.base
        word = peripheral.read(offset & ~3) & 0xFFFFFFFF
        return word >> 8 * (offset & 3) & ((1 << 8 * size) - 1)

    def write(self, address: int, value: int, size: int) -> None:
        """`size` bytes (1, 2 or 4)."""
        peripheral = self.owner(address)
        if peripheral is None:
            self._halt(
                f"wrote {value:#x} ({size} bytes) at {address:#010x}, where the device has no "
                f"register"
            )
        elif size < 4:
            peripheral.write_part(address - peripheral.base, value, size)
        else:
            peripheral.write(address - peripheral.base, value)
