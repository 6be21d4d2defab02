"""Nordic nRF52 and the application core of nRF53: clocks, pins, UARTE, caches, identity.

Registers: nRF52840 Product Specification v1.8 (PS52) and nRF5340 Product Specification v1.4
(PS53), in the chapters the classes name. Only `console.settings.series` tells the two apart.
"""

from __future__ import annotations

from typing import ClassVar

from edgecompress.device.peripherals.base import Peripheral, SerialLine, Surroundings
from edgecompress.errors import InvalidTarget

_PAGE_BYTES = 0x1000
# PS52 and PS53 "UARTE - BAUDRATE".
_BAUD_RATES = {
    9600: 0x00275000, 38400: 0x009D0000, 57600: 0x00EB0000, 115200: 0x01D60000,
    230400: 0x03B00000, 460800: 0x07400000, 921600: 0x0F000000, 1000000: 0x10000000,
}  # fmt: skip
_DEVICE_ID = (0x67452301, 0xEFCDAB89)
_HW_DISABLED_52, _UNPROTECTED_53 = 0xFFFFFF5A, 0x50FA50FA


def peripherals(surroundings: Surroundings) -> list[Peripheral]:
    """The blocks the nrf port uses.

    Raises:
        InvalidTarget: a clock or baud rate the chip does not have.
    """
    profile = surroundings.profile
    is_53 = profile.console.settings["series"] == 53
    clocks_hz = (64_000_000, 128_000_000) if is_53 else (64_000_000,)
    if profile.core.clock_hz not in clocks_hz:
        allowed = " or ".join(f"{hertz // 1_000_000} MHz" for hertz in clocks_hz)
        raise InvalidTarget(
            f"{profile.name}: core.clock_hz is {profile.core.clock_hz}, but the core runs at "
            f"{allowed}."
        )
    if profile.console.baud not in _BAUD_RATES:
        raise InvalidTarget(
            f"{profile.name}: console.baud is {profile.console.baud}, but UARTE does "
            f"{', '.join(map(str, _BAUD_RATES))}."
        )
    pins = Gpio(surroundings, 0x50842000 if is_53 else 0x50000000)
    clock = Clock(surroundings, 0x50005000 if is_53 else 0x40000000, is_53=is_53)
    trim = Trim(surroundings) if is_53 else None
    shared: list[Peripheral] = [clock, pins, Uarte(surroundings, clock, pins, trim)]
    if trim is not None:
        identity = {0x204: _DEVICE_ID[0], 0x208: _DEVICE_ID[1]}
        return [
            *shared,
            trim,
            Constants("FICR", 0x00FF0000, identity | trim.orders, surroundings),
            Constants(
                "UICR", 0x00FF8000, {0: _UNPROTECTED_53, 0x1C: _UNPROTECTED_53}, surroundings
            ),
            Switches("cache", 0x50001000, {0x500: (0, 1)}, surroundings),
            Switches(
                "CTRL-AP",
                0x50006000,
                {0x544: (0, _UNPROTECTED_53), 0x54C: (0, _UNPROTECTED_53)},
                surroundings,
            ),
        ]
    identity = {0x60: _DEVICE_ID[0], 0x64: _DEVICE_ID[1], 0x100: 0x52840, 0x104: 0x41414630}
    return [
        *shared,
        Constants("FICR", 0x10000000, identity, surroundings),
        Constants("UICR", 0x10001000, {0x208: _HW_DISABLED_52}, surroundings),
        Nvmc("NVMC", 0x4001E000, {0x504: (0,), 0x540: (0, 1)}, surroundings),
    ]


class Trim(Peripheral):
    """What the factory's values are copied to (PS53 "FICR", TRIMCNF): two registers, say."""

    _VALUES: ClassVar[dict[int, int]] = {0x70C: 0x29, 0x73C: 0x3}

    def __init__(self, surroundings: Surroundings) -> None:
        super().__init__("trim", 0x50004000, _PAGE_BYTES, surroundings)
        self._written: dict[int, int] = {}

    @property
    def orders(self) -> dict[int, int]:
        """FICR's words: address and value of each, then an address of all ones."""
        words = [
            word for offset, value in self._VALUES.items() for word in (self.base + offset, value)
        ]
        return {0x300 + 4 * index: word for index, word in enumerate([*words, 0xFFFFFFFF])}

    @property
    def done(self) -> bool:
        """Whether firmware has copied all."""
        return self._written == self._VALUES

    def write(self, offset: int, value: int) -> None:
        if offset not in self._VALUES:
            super().write(offset, value)
        self._written[offset] = value


class Constants(Peripheral):
    """Registers the factory or the programmer has written."""

    def __init__(
        self, name: str, base: int, values: dict[int, int], surroundings: Surroundings
    ) -> None:
        super().__init__(name, base, _PAGE_BYTES, surroundings)
        self._values = values

    def read(self, offset: int) -> int:
        if offset not in self._values:
            return super().read(offset)
        return self._values[offset]


class Switches(Peripheral):
    """Registers that take a few values; all are 0 after reset."""

    def __init__(
        self, name: str, base: int, allowed: dict[int, tuple[int, ...]], surroundings: Surroundings
    ) -> None:
        super().__init__(name, base, _PAGE_BYTES, surroundings)
        self._allowed = allowed
        self._values = dict.fromkeys(allowed, 0)

    def read(self, offset: int) -> int:
        if offset not in self._allowed:
            return super().read(offset)
        return self._values[offset]

    def write(self, offset: int, value: int) -> None:
        if offset not in self._allowed:
            self.refuse("wrote", offset)
        elif value not in self._allowed[offset]:
            self.halt(f"wrote {value:#x} to {self.name} register {self.base + offset:#010x}")
        else:
            self._values[offset] = value


class Nvmc(Switches):
    """nRF52's flash controller. The parts without an FPU (805, 810, 811, 820) have no cache either:
    their ICACHECNF is not there, and reads 0.
    """

    def read(self, offset: int) -> int:
        if offset == 0x540 and self.surroundings.profile.core.fpu == "none":
            return 0
        return super().read(offset)


class Clock(Peripheral):
    """CLOCK, and what shares its addresses: APPROTECT on nRF52, RESET on nRF53.

    The crystal answers after a few polls; with `crystal_works` False it never does.
    """

    crystal_works = True
    _POLLS_UNTIL_STARTED = 3

    def __init__(self, surroundings: Surroundings, base: int, *, is_53: bool) -> None:
        super().__init__("CLOCK", base, _PAGE_BYTES, surroundings)
        self._is_53 = is_53
        self.crystal_requested = False
        self._polls = 0
        # PS53 "CLOCK - HFCLKCTRL": divides by 2 after reset.
        self._divides_by_two = 1

    @property
    def core_hz(self) -> int:
        """What the core runs at."""
        return 128_000_000 >> self._divides_by_two if self._is_53 else 64_000_000

    @property
    def _on_crystal(self) -> bool:
        return self.crystal_works and self._polls > self._POLLS_UNTIL_STARTED

    def read(self, offset: int) -> int:
        if self.crystal_requested and offset in (0x100, 0x40C):
            self._polls += 1
        if offset == 0x100:  # EVENTS_HFCLKSTARTED
            return int(self._on_crystal)
        if offset == 0x40C:  # HFCLKSTAT: SRC, STATE
            return 1 << 16 | int(self._on_crystal)
        if offset == 0x5B8 and self._is_53:
            return self._divides_by_two
        return super().read(offset)

    def write(self, offset: int, value: int) -> None:
        if offset == 0x000:  # TASKS_HFCLKSTART
            self.crystal_requested = self.crystal_requested or bool(value)
        elif offset == 0x100 and value == 0:
            pass
        elif offset == 0x5B8 and self._is_53:
            if value > 1:
                self.halt(f"set HFCLKCTRL to {value:#x}; it takes 0 (128 MHz) and 1 (64 MHz)")
            self._divides_by_two = value & 1
        elif offset == 0x614 and self._is_53:
            if value != 1:
                self.halt("released the network core, which has no firmware")
        elif offset == 0x558 and not self._is_53:
            if value != _HW_DISABLED_52:
                self.halt(f"wrote {value:#x} to APPROTECT.DISABLE, which is not what UICR says")
        else:
            self.refuse("wrote", offset)


class Gpio(Peripheral):
    """Both ports ("GPIO"): direction and input buffer of each pin."""

    _OUTPUT, _INPUT_DISCONNECTED = 1, 2

    def __init__(self, surroundings: Surroundings, base: int) -> None:
        super().__init__("GPIO", base, _PAGE_BYTES, surroundings)
        self._configuration: dict[int, int] = {}

    def _pin(self, offset: int) -> int | None:
        for port in (0, 1):
            index = offset - 0x700 - port * 0x300
            if 0 <= index < 32 * 4:
                return port * 32 + index // 4
        return None

    def read(self, offset: int) -> int:
        pin = self._pin(offset)
        return super().read(offset) if pin is None else self._configuration.get(pin, 2)

    def write(self, offset: int, value: int) -> None:
        pin = self._pin(offset)
        if pin is not None:
            self._configuration[pin] = value
        elif offset not in (0x508, 0x808):  # OUTSET of both ports
            self.refuse("wrote", offset)

    def drives(self, pin: int) -> bool:
        """Whether a pin is an output."""
        return bool(self._configuration.get(pin, 2) & self._OUTPUT)

    def listens(self, pin: int) -> bool:
        """Whether a pin is an input whose buffer is connected."""
        return not self._configuration.get(pin, 2) & (self._OUTPUT | self._INPUT_DISCONNECTED)


class Uarte(Peripheral):
    """UARTE ("UARTE - Universal asynchronous receiver/transmitter with EasyDMA")."""

    _ENABLED = 8
    # PSEL.*, BAUDRATE, CONFIG, and EasyDMA's pointers and counts.
    _KEPT = frozenset(
        {0x508, 0x50C, 0x510, 0x514, 0x524, 0x534, 0x538, 0x544, 0x548, 0x56C, 0x200, 0x500}
    )

    def __init__(
        self, surroundings: Surroundings, clock: Clock, pins: Gpio, trim: Trim | None
    ) -> None:
        base = surroundings.profile.console.base_address
        super().__init__("UARTE", base, _PAGE_BYTES, surroundings)
        self._clock, self._pins, self._trim = clock, pins, trim
        self._line = SerialLine(surroundings.console)
        self._registers: dict[int, int] = dict.fromkeys(range(0x508, 0x518, 4), 0xFFFFFFFF)
        self._receiving = self._received = self._sent = False

    def read(self, offset: int) -> int:
        if offset == 0x110:  # EVENTS_ENDRX
            self._receive()
            return int(self._received)
        self._line.busy()
        if offset == 0x120:  # EVENTS_ENDTX
            return int(self._sent)
        if offset == 0x500 or offset in self._KEPT:
            return self._registers.get(offset, 0)
        return super().read(offset)

    def write(self, offset: int, value: int) -> None:
        self._line.busy()
        if offset in (0x000, 0x008):  # TASKS_STARTRX, TASKS_STARTTX
            if value and self._ready(sends=offset == 0x008):
                self._start(sends=offset == 0x008)
        elif offset in (0x110, 0x120) and value == 0:
            if offset == 0x110:
                self._received = False
            else:
                self._sent = False
        elif offset not in self._KEPT:
            self.refuse("wrote", offset)
        elif 0x508 <= offset <= 0x514 and self._registers.get(0x500):
            self.halt("changed a UARTE pin while UARTE is enabled")
        elif offset == 0x500 and value not in (0, self._ENABLED):
            self.halt(f"wrote {value:#x} to UARTE ENABLE, which takes 0 and 8")
        else:
            self._registers[offset] = value

    def _start(self, *, sends: bool) -> None:
        pointer, count = (0x544, 0x548) if sends else (0x534, 0x538)
        address, length = self._registers.get(pointer, 0), self._registers.get(count, 0)
        ram = [region for region in self.surroundings.profile.regions if region.kind == "ram"]
        if length == 0:
            self.halt("started EasyDMA with MAXCNT 0")
        elif not any(r.origin <= address and address + length <= r.origin + r.size for r in ram):
            self.halt(f"pointed EasyDMA at {address:#010x}, {length} bytes: it reaches RAM only")
        elif sends:
            for byte in self.surroundings.read_memory(address, length):
                self._line.send(byte)
            self._sent = True
        else:
            if length != 1:
                self.halt(f"receives {length} bytes at once; the model ends after 1")
            self._receiving = True

    def _receive(self) -> None:
        if self._received or not self._receiving or not self._line.poll():
            return
        data = bytes([self._line.receive()])
        self.surroundings.write_memory(self._registers[0x534], data)
        self._receiving, self._received = False, True

    def _ready(self, *, sends: bool) -> bool:
        """Whether a byte would travel as the profile says; halts with the reason otherwise."""
        profile = self.surroundings.profile
        settings, what = profile.console.settings, "TXD" if sends else "RXD"
        pin = settings["tx_pin" if sends else "rx_pin"]
        assert isinstance(pin, int)
        selected = self._registers[0x50C if sends else 0x514]
        rate, wanted = self._registers.get(0x524, 0x04000000), _BAUD_RATES[profile.console.baud]
        fault = ""
        if self._registers.get(0x500) != self._ENABLED:
            fault = "started UARTE while it is not enabled"
        elif selected != pin:
            fault = f"started UARTE with PSEL.{what} {selected:#x}; the console is on pin {pin}"
        elif not (self._pins.drives(pin) if sends else self._pins.listens(pin)):
            direction = "an output" if sends else "an input"
            fault = f"started UARTE while its {what} pin {pin} is not {direction}"
        elif rate != wanted:
            fault = (
                f"started UARTE with BAUDRATE {rate:#010x}; {profile.console.baud} baud is "
                f"{wanted:#010x}"
            )
        elif settings["crystal"] and not self._clock.crystal_requested:
            fault = "used UARTE without ever starting the crystal oscillator"
        elif self._trim is not None and not self._trim.done:
            fault = "used UARTE without copying the trim values of FICR"
        elif self._clock.core_hz != profile.core.clock_hz:
            fault = f"runs at {self._clock.core_hz} Hz; the profile says {profile.core.clock_hz} Hz"
        if fault:
            self.halt(fault)
        return not fault
